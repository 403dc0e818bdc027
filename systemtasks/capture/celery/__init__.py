"""Runs in Celery's signals, in the thread that sends them, and may neither raise nor wait there.

That is the thread that sends or runs a task, or the one of a worker's main process, for which all
its children would wait.
"""
