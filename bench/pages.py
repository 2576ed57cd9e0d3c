"""How long the staff pages take at any number of calls: `python -m bench.pages`.

    manage.py migrate && manage.py seed_calls --calls 1000000 && python -m bench.pages

Asks the configured database (or `--database URL`), which must have been seeded, for each page in this very
process: one warm-up, in which the queries are counted, and then five times, of which the median counts.
All that a server does for a page is in it, the network is not. It asks as a user of its own, whom it
removes with all traces. Bounds are 300 ms on PostgreSQL and 600 ms on SQLite; exit 1 when one was not held.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any
from urllib.parse import urlencode

from rich.console import Console
from rich.table import Table

BOUND_MS = {"postgresql": 300.0, "sqlite": 600.0}
TIMES = 5
ROW = re.compile(rb'href="/calls/\d+/"')


@dataclass(frozen=True, slots=True)
class Page:
    """One question that staff ask. With fewer than `rows` calls on its page it answers nothing."""

    name: str
    path: str
    rows: int = 1


@dataclass(frozen=True, slots=True)
class Measured:
    page: Page
    rows: int
    queries: int
    times_ms: list[float]

    @property
    def median_ms(self) -> float:
        return median(self.times_ms)


def pages() -> list[Page]:
    """What is looked for comes from the middle of what was seeded."""
    from calls.models import Call, PhoneNumber
    from calls.seed.calls import SEEDED_SID
    from calls.seed.dialogue import COMMON, MIDDLING, RARE

    seeded = Call.objects.filter(call_sid__startswith=SEEDED_SID)
    first, last = seeded.order_by("pk").first(), seeded.order_by("-pk").first()
    if first is None or last is None:
        raise LookupError("There are no seeded calls in this database: manage.py seed_calls makes some.")
    middle = (first.pk + last.pk) // 2
    found = seeded.filter(pk__gte=middle, from_number__startswith="+1").order_by("pk").first() or last
    number = PhoneNumber.objects.get(number=found.to_number)

    def calls(name: str, rows: int = 1, **asked: object) -> Page:
        return Page(f"calls: {name}", f"/admin/calls/call/?{urlencode(asked)}", rows)

    return [
        Page("dashboard, 24 hours", "/"),
        Page("dashboard, 7 days", "/?range=7d"),
        Page("dashboard, 30 days", "/?range=30d"),
        calls("first page"),
        calls("page 100", rows=0 if last.pk - first.pk < 5_000 else 50, p=100),
        calls("failed", ended="failed"),
        calls("failed in one way", ended="assistant-unreachable"),
        calls("failed in the last 7 days", rows=0, ended="failed", when="7d"),
        calls("an answer over 4 s", rows=0, flag="slow-turn"),
        calls("needs review", rows=0, review="yes"),
        calls("one of our numbers", number=number.pk),
        calls("one of our numbers, failed", rows=0, number=number.pk, ended="failed"),
        calls("a CallSid", q=found.call_sid),
        calls("what all CallSids begin with", q=SEEDED_SID),
        calls("a caller's number", q=found.from_number),
        calls("a number's beginning", q=found.from_number[:8]),
        calls("a rarer beginning", q=found.from_number[:10]),
        calls("a number that nobody has", rows=0, q="+99999"),
        calls("a common word", q=COMMON),
        calls("a middling word", q=MIDDLING),
        calls("a rare word", rows=0, q=RARE),
        calls("a word's beginning", q=COMMON[:6]),
        calls("two words", q=f"{MIDDLING} {COMMON}", rows=0),
        calls("a word that nobody said", rows=0, q="onomatopoeia"),
        calls("a common word, failed", q=COMMON, ended="failed", rows=0),
        Page("one call", found.get_absolute_url(), rows=0),
    ]


@contextmanager
def staff() -> Iterator[Any]:
    """A test client that is logged in, as somebody who is there only now."""
    from django.contrib.auth import get_user_model
    from django.test import Client

    from calls.models import AuditEntry

    user = get_user_model().objects.create_superuser(f"bench-{os.getpid()}")
    client = Client(SERVER_NAME="localhost", raise_request_exception=True)
    try:
        client.force_login(user)
        yield client
    finally:
        client.logout()
        AuditEntry.objects.filter(username=user.get_username()).delete()
        user.delete()


def measure(client: Any, page: Page) -> Measured:
    from django.core.cache import cache
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as queries:
        answer = client.get(page.path)
    asked = len(queries)  # now: the next request empties the log
    rows = len(set(ROW.findall(answer.content)))
    if answer.status_code != 200 or rows < page.rows:
        raise LookupError(f"{page.path} answers {answer.status_code} with {rows} calls, not {page.rows}.")
    times = []
    for _ in range(TIMES):
        cache.clear()  # of this process
        before = time.perf_counter()
        client.get(page.path)
        times.append((time.perf_counter() - before) * 1000)
    return Measured(page, rows, asked, times)


def report(results: list[Measured], bound_ms: float, database: str) -> bool:
    """Prints the table; True when every page is within the bound."""
    table = Table(title=f"Staff pages in ms, medians of {TIMES}")
    for heading in ("page", "calls on it", "queries", "median", "slowest", ""):
        table.add_column(heading, justify="left" if heading == "page" else "right")
    for found in results:
        held = found.median_ms <= bound_ms
        table.add_row(
            found.page.name,
            str(found.rows),
            str(found.queries),
            f"{found.median_ms:.0f}",
            f"{max(found.times_ms):.0f}",
            "held" if held else "[bold red]NOT HELD[/]",
        )
    missed = [found.page.name for found in results if found.median_ms > bound_ms]
    console = Console(width=110)
    console.print(table)
    console.print(
        f"Bound: {bound_ms:.0f} ms each: {f'NOT HELD by {len(missed)}' if missed else 'held'}. {database}."
        f" {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()},"
        f" {time.strftime('%Y-%m-%d')}.",
        highlight=False,
    )
    return not missed


def described() -> str:
    """The database and what is in it."""
    from django.db import connection

    from calls.models import Call, Turn, Utterance

    with connection.cursor() as cursor:
        postgres = connection.vendor == "postgresql"
        cursor.execute("SHOW server_version" if postgres else "SELECT sqlite_version()")
        version = str(cursor.fetchone()[0]).split()[0]
    rows = ", ".join(
        f"{model.objects.count():,} {model._meta.verbose_name_plural}" for model in (Call, Turn, Utterance)
    )
    return f"{connection.display_name} {version} with {rows}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--database", metavar="URL", help="instead of that of DATABASE_URL")
    options = parser.parse_args()
    if options.database:
        os.environ["DATABASE_URL"] = options.database
    # As a server runs, but with a cache of its own: the other one's may be that of a running service.
    os.environ.update(DJANGO_DEBUG="off", REDIS_URL="")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "voiceai.settings")
    import django

    django.setup()
    from django.db import connection

    try:
        wanted = pages()
        with staff() as client:
            results = [measure(client, page) for page in wanted]
    except LookupError as problem:
        print(problem, file=sys.stderr)
        return 2
    return 0 if report(results, BOUND_MS[connection.vendor], described()) else 1


if __name__ == "__main__":
    sys.exit(main())
