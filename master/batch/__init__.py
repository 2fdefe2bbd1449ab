"""Bulk work that nobody waits for at a stream: ingestion, in a master's process or by Celery."""
