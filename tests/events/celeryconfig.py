"""The settings of a worker that has only Celery's own tasks."""

control_exchange = "tests"
task_default_queue = "tests"
