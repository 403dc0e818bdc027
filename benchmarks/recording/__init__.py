"""Measure what recording costs a Celery worker, compared with other recorders."""
