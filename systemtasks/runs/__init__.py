"""Called in any process and thread, and may do no I/O, nor know Celery, the database or the models.

Here are a run in flight and what it logs, the line of the journal that reports on it, and the
record that the line becomes.
"""
