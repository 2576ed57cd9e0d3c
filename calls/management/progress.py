"""A bar on the terminal for commands that take long; where nobody watches, nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class Bar:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task
        self.is_watched = not progress.disable  # if not, no total need be counted

    def total(self, count: int) -> None:
        """How many there are to do, once that is known."""
        self._progress.update(self._task, total=count)

    def advance(self, count: int) -> None:
        self._progress.advance(self._task, count)


@contextmanager
def shown(doing: str) -> Iterator[Bar]:
    """A bar on stderr, so that what the command says can be piped. A cron job's mail stays empty of it."""
    console = Console(stderr=True)
    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield Bar(progress, progress.add_task(doing, total=None))
