"""The table of server processes."""

from __future__ import annotations

from datetime import timedelta
from typing import Self

from django.db import models
from django.utils import timezone

SEEN_WITHIN = timedelta(seconds=20)  # otherwise it has stopped, or cannot reach the database
KEEP = timedelta(days=1)


class WorkerQuerySet(models.QuerySet["Worker"]):
    def running(self) -> Self:
        """The processes that have updated their row lately."""
        return self.filter(seen_at__gte=timezone.now() - SEEN_WITHIN)


class Worker(models.Model):
    """A server process that handles calls. It reports its state here, and learns that it is to drain."""

    name = models.CharField(max_length=128, primary_key=True)  # as in `Call.worker`
    host = models.CharField(max_length=255)
    started_at = models.DateTimeField()
    seen_at = models.DateTimeField()
    live_calls = models.PositiveIntegerField(default=0)
    max_calls = models.PositiveIntegerField(default=0)
    stopping = models.BooleanField(default=False)  # the process has been told to stop
    drain_requested = models.BooleanField(default=False)  # by staff or `./manage.py drain`

    objects = WorkerQuerySet.as_manager()

    class Meta:
        ordering = ("host", "started_at")
        permissions = [("drain_worker", "Can stop servers from taking new calls")]

    def __str__(self) -> str:
        return f"{self.name} on {self.host}"

    @property
    def is_draining(self) -> bool:
        """Whether it takes no new calls, or is about to stop taking them."""
        return self.stopping or self.drain_requested
