"""Draining: server processes finish their calls and take no new ones, until they may be stopped.

Staff and `./manage.py drain` set it in the rows of the processes (`Worker`), which read them every two
seconds. A process that gets SIGTERM drains by itself. How long its calls will take is estimated from recent
calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings

from calls.models import MAX_CALL_AGE, Call, Worker

SAMPLE_CALLS = 500  # the newest ones that are over
ESTIMATE_QUANTILE = 0.9  # of the durations of longer calls
MIN_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class DrainStatus:
    """The state of all running processes."""

    workers: tuple[Worker, ...]
    live_calls: int
    seconds_left: float  # until the last of the live calls is likely over; 0 without calls

    @property
    def max_calls(self) -> int:
        return sum(worker.max_calls for worker in self.workers)

    @property
    def is_accepting(self) -> bool:
        """Whether any process takes new calls."""
        return any(not worker.is_draining and worker.live_calls < worker.max_calls for worker in self.workers)

    @property
    def is_draining(self) -> bool:
        return bool(self.workers) and all(worker.is_draining for worker in self.workers)

    @property
    def summary(self) -> str:
        """Such as "7 calls, safe to stop in about 2 min"."""
        if not self.workers:
            return "no running server process reports to this database"
        if not self.live_calls:
            return "no calls, safe to stop"
        calls = f"{self.live_calls} call{'' if self.live_calls == 1 else 's'}"
        if self.seconds_left < 60:
            return f"{calls}, safe to stop in less than a minute"
        return f"{calls}, safe to stop in about {round(self.seconds_left / 60)} min"


def get_status(now: datetime, name: str = "") -> DrainStatus:
    """Of all running processes, or of the one with this name. Three queries at most.

    Calls are counted by their rows, too: processes report a few seconds late.
    """
    running = Worker.objects.running()
    live = Call.objects.live().filter(end_reason="").since(now - MAX_CALL_AGE)
    if name:
        running, live = running.filter(name=name), live.filter(worker=name)
    workers = tuple(running)
    ages = [(now - started_at).total_seconds() for started_at in live.values_list("started_at", flat=True)]
    live_calls = max(len(ages), sum(worker.live_calls for worker in workers))
    if not live_calls:
        return DrainStatus(workers, 0, 0.0)
    recent = Call.objects.filter(duration_seconds__gt=0).newest_first()
    durations = [seconds or 0 for seconds in recent.values_list("duration_seconds", flat=True)[:SAMPLE_CALLS]]
    return DrainStatus(workers, live_calls, estimate_seconds(ages, durations, settings.MAX_CALL_SECONDS))


def estimate_seconds(ages: Sequence[float], durations: Sequence[float], max_seconds: float) -> float:
    """In how many seconds the last of the live calls is likely over.

    For each call, from the calls that took longer than it has taken so far: nine of ten were over by then.
    Without such calls, it may take the longest time that a call may take.
    """
    left = 0.0
    for age in ages:
        longer = sorted(duration for duration in durations if duration > age)
        total = longer[min(int(len(longer) * ESTIMATE_QUANTILE), len(longer) - 1)] if longer else max_seconds
        left = max(left, min(total, max_seconds) - age)
    return max(left, MIN_SECONDS) if ages else 0.0


def request_drain(*, drain: bool, name: str = "") -> list[Worker]:
    """Have the running processes, or the one with this name, drain or take calls again. Returns them."""
    workers = Worker.objects.running()
    if name:
        workers = workers.filter(name=name)
    workers.update(drain_requested=drain)
    return list(workers)
