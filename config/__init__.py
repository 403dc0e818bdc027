"""The service of this repository: its settings, its Celery app, its start on one machine."""
