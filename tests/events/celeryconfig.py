"""Of a worker of Celery's own tasks alone."""

control_exchange = "tests"
task_default_queue = "tests"
