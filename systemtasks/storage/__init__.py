"""Runs in the writer's thread, one in each process that records, and may not import Celery.

Only `Writer.submit` and what it calls run in the task's own thread: they append to the journal, and
may not touch the database.
"""
