"""Runs in any process and thread; does no I/O and knows neither Celery, the database nor models.

It defines a run in flight and its messages, the run's line in the journal, and the record that is
read from the line.
"""
