"""Runs in receivers of Celery's signals, in the thread that sends them; may neither raise nor wait.

That is the thread that sends or runs a task, or the thread of a worker's main process, for which
all its child processes would wait.
"""
