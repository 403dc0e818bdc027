"""Runs in the process and thread of whoever sends or runs a task, and may neither raise nor wait.

A task waits for what is done here, so microseconds count. What is captured is handed to `storage`,
whose own thread waits for the database.
"""
