"""Prometheus metrics of a master process, and of Celery workers; `docs/metrics.md` lists them.

What happened is counted where it happens. What is, on the other hand, is read when somebody asks,
from the latest look at database and broker: it is the same on every replica.
"""

from master.metrics.exposition import registry

__all__ = ["registry"]
