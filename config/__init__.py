"""The service as this repository runs it: settings, Celery app, URLs, and `make up`."""
