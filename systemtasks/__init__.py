"""A durable record of every Celery task: what ran, when, how long, how it ended, what it said."""
