"""Runs in receivers of Celery's signals, in the thread that sends them.

That is the thread that sends or runs a task, or a worker's main thread. Do not raise or block:
blocking the main process blocks every child.
"""
