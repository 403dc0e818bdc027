"""Runs in the writer's thread, one in each process that records, and may not import Celery.

Only `Writer.submit` and the code that it calls run in the task's own thread. They append to the
journal and may not use the database.
"""
