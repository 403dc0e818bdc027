"""Runs in the process and thread that sends or runs a task, and may neither raise nor wait.

The task waits for this code, so microseconds count. Captured runs are handed to `storage`, whose
own thread waits for the database.
"""
