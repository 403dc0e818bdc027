"""What recording costs a Celery worker, beside what others cost it."""
