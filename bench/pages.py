"""Measure the response time of the staff pages: `python -m bench.pages`.

    ./manage.py migrate && ./manage.py seed_calls --calls 1000000 && .venv/bin/python -m bench.pages

Uses the configured database, or `--database URL`, which must hold seeded calls. Requests each page in this
process: once to warm up and to count the queries, then five times, of which the median counts. The figure
includes everything that a server does for a page, but not the network. Creates a user for it, and removes
that user and its activity afterwards. Limits are 300 ms on PostgreSQL and 600 ms on SQLite. Exits with 1 if
a limit was not met.
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

from bridge.end_reasons import ASSISTANT_UNREACHABLE

LIMIT_MS = {"postgresql": 300.0, "sqlite": 600.0}
REPEATS = 5
ROW = re.compile(rb'href="/calls/(\d+)/[^"]*"><time')


@dataclass(frozen=True, slots=True)
class Page:
    """A page to measure. `rows` is the least number of calls that it must list for a valid result."""

    name: str
    path: str
    rows: int = 1


@dataclass(frozen=True, slots=True)
class PageTimes:
    page: Page
    rows: int
    queries: int
    times_ms: list[float]

    @property
    def median_ms(self) -> float:
        return median(self.times_ms)


def pages() -> list[Page]:
    """All pages. Search terms come from the middle of the seeded calls."""
    from calls.models import Call, PhoneNumber
    from calls.seed.calls import SEEDED_SID_PREFIX
    from calls.seed.dialogue import COMMON_WORD, RARE_WORD, UNCOMMON_WORD

    seeded = Call.objects.filter(call_sid__startswith=SEEDED_SID_PREFIX)
    first, last = seeded.order_by("pk").first(), seeded.order_by("-pk").first()
    if first is None or last is None:
        raise LookupError(
            "There are no seeded calls in this database. Create some with ./manage.py seed_calls."
        )
    middle = (first.pk + last.pk) // 2
    example = seeded.filter(pk__gte=middle, from_number__startswith="+1").order_by("pk").first() or last
    number = PhoneNumber.objects.get(number=example.to_number)

    def calls(name: str, rows: int = 1, **query: object) -> Page:
        return Page(f"calls: {name}", f"/calls/?{urlencode(query)}", rows)

    return [
        Page("dashboard, 24 hours", "/"),
        Page("dashboard, 7 days", "/?range=7d"),
        Page("dashboard, 30 days", "/?range=30d"),
        Page("dashboard, one number, 30 days", f"/?range=30d&number={number.pk}"),
        calls("first page"),
        *([calls("page 100", rows=50, page=100)] if last.pk - first.pk >= 5_000 else []),
        calls("failed", ended="failed"),
        calls("failed: assistant unreachable", ended=ASSISTANT_UNREACHABLE),
        calls("failed in the last 7 days", rows=0, ended="failed", range="7d"),
        calls("flagged: response over 4 s", rows=0, flag="slow-turn"),
        calls("slowest response over 2 s", rows=0, slower=2000),
        calls("slowest first", sort="-slowest"),
        calls(
            "slowest first, one of our numbers, 7 days", rows=0, sort="-slowest", number=number.pk, range="7d"
        ),
        calls("longest first", sort="-length"),
        calls("shortest first, failed", rows=0, sort="length", ended="failed"),
        calls("inbound", direction="inbound"),
        calls("outbound", rows=0, direction="outbound"),
        calls("busy", rows=0, ended="busy"),
        calls("in progress", rows=0, ended="live"),
        calls("one outcome", rows=0, outcome="booked"),
        calls("all calls of a caller", caller=example.pk),
        calls("needs review", rows=0, review="yes"),
        calls("one of our numbers", number=number.pk),
        calls("one of our numbers, failed", rows=0, number=number.pk, ended="failed"),
        calls("a CallSid", q=example.call_sid),
        calls("the start of all CallSids", q=SEEDED_SID_PREFIX),
        calls("a caller's number", q=example.from_number),
        calls("the start of a number", q=example.from_number[:8]),
        calls("a longer start of a number", q=example.from_number[:10]),
        calls("an unknown number", rows=0, q="+99999"),
        calls("a number without its country code", q=example.from_number[2:]),
        calls("the last four digits", q=example.from_number[-4:]),
        calls("digits without a match", rows=0, q="98765432109"),
        calls("a common word", q=COMMON_WORD),
        calls("a less common word", q=UNCOMMON_WORD),
        calls("a rare word", rows=0, q=RARE_WORD),
        calls("the start of a word", q=COMMON_WORD[:6]),
        calls("two words", q=f"{UNCOMMON_WORD} {COMMON_WORD}", rows=0),
        calls("an unknown word", rows=0, q="onomatopoeia"),
        calls("a common word, failed", q=COMMON_WORD, ended="failed", rows=0),
        calls("a common word, one caller", q=COMMON_WORD, caller=example.pk, rows=0),
        calls("a common word, last 24 hours", q=COMMON_WORD, range="24h", rows=0),
        calls("a less common word, needs review", q=UNCOMMON_WORD, review="yes", rows=0),
        calls("a rare word, one outcome", q=RARE_WORD, outcome="booked", rows=0),
        Page("one call", example.get_absolute_url(), rows=0),
    ]


@contextmanager
def logged_in_client() -> Iterator[Any]:
    """A test client with a temporary superuser, who is removed with all traces."""
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


def measure(client: Any, page: Page) -> PageTimes:
    from django.core.cache import cache
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as queries:
        response = client.get(page.path)
    query_count = len(queries)  # read now: the next request clears the log
    rows = len(set(ROW.findall(response.content)))
    if response.status_code != 200 or rows < page.rows:
        raise LookupError(
            f"{page.path} returned {response.status_code} with {rows} calls; expected at least {page.rows}."
        )
    times = []
    for _ in range(REPEATS):
        cache.clear()  # the cache of this process
        before = time.perf_counter()
        client.get(page.path)
        times.append((time.perf_counter() - before) * 1000)
    return PageTimes(page, rows, query_count, times)


def report(results: list[PageTimes], limit_ms: float, database: str) -> bool:
    """Print the table. True if every page is within the limit."""
    table = Table(title=f"Staff pages in ms, medians of {REPEATS}")
    for heading in ("page", "calls on it", "queries", "median", "slowest", ""):
        table.add_column(heading, justify="left" if heading == "page" else "right")
    for result in results:
        is_within_limit = result.median_ms <= limit_ms
        table.add_row(
            result.page.name,
            str(result.rows),
            str(result.queries),
            f"{result.median_ms:.0f}",
            f"{max(result.times_ms):.0f}",
            "met" if is_within_limit else "[bold red]NOT MET[/]",
        )
    missed = [result.page.name for result in results if result.median_ms > limit_ms]
    console = Console(width=110)
    console.print(table)
    console.print(
        f"Limit: {limit_ms:.0f} ms each: {f'NOT MET by {len(missed)}' if missed else 'met'}. {database}."
        f" {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()},"
        f" {time.strftime('%Y-%m-%d')}.",
        highlight=False,
    )
    return not missed


def describe_database() -> str:
    """Name and version of the database, and its numbers of rows."""
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
    parser.add_argument("--database", metavar="URL", help="overrides DATABASE_URL")
    options = parser.parse_args()
    if options.database:
        os.environ["DATABASE_URL"] = options.database
    # Settings of a production server, but a cache of its own: Redis may belong to a running service.
    os.environ.update(DJANGO_DEBUG="off", REDIS_URL="")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "voiceai.settings")
    import django

    django.setup()
    from django.db import connection

    try:
        all_pages = pages()
        with logged_in_client() as client:
            results = [measure(client, page) for page in all_pages]
    except LookupError as error:
        print(error, file=sys.stderr)
        return 2
    return 0 if report(results, LIMIT_MS[connection.vendor], describe_database()) else 1


if __name__ == "__main__":
    sys.exit(main())
