"""A durable record of each Celery task: what ran, when, how long, how it ended, what it logged."""
