"""Checks of this machine and what it depends on: database, Redis, clock, disk, workers."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import time
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from pathlib import Path

import aiohttp
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import DatabaseError, InterfaceError, OperationalError, ProgrammingError, connection
from redis import RedisError
from redis.asyncio import Redis

from calls.doctor.check import Check, Finding, amber, green, red
from calls.doctor.public_url import REQUEST_TIMEOUT_SECONDS
from calls.management.database import count_unapplied_migrations, describe_database_error
from calls.models import Worker

FULL_DISK_BYTES, LOW_DISK_BYTES = 20 << 20, 500 << 20
# Of one server process, at most: two pools (`database()` in the settings), the writer's and the confirmer's.
CONNECTIONS_OF_A_SERVER = 22
MAX_CLOCK_ERROR_SECONDS, CLOCK_WARNING_SECONDS = 60, 5


async def check_database() -> Finding:
    try:
        max_connections, workers = await sync_to_async(_read_database)()
    except (DatabaseError, InterfaceError, OSError) as error:
        reason = await sync_to_async(describe_database_error)(error)
        return red(
            reason or "The database does not respond.",
            "Start it, and check DATABASE_URL. Calls continue; their records wait in the journal on disk.",
        )
    return grade_database(max_connections, workers)


def grade_database(max_connections: int | None, workers: int) -> Finding:
    """Whether a database that responds is enough for so many server processes. None: it is SQLite."""
    if max_connections is None and workers > 1:
        return amber(
            "Several server processes share one SQLite file.", "Set DATABASE_URL to a PostgreSQL database."
        )
    needed = workers * CONNECTIONS_OF_A_SERVER
    if max_connections is not None and max_connections < needed:
        return amber(
            f"{workers} server processes may need {needed} connections, but the database allows "
            f"{max_connections}.",
            "Raise PostgreSQL's max_connections, or run fewer server processes.",
        )
    return green("The database responds.")


def _read_database() -> tuple[int | None, int]:
    """How many connections PostgreSQL allows (None for SQLite), and how many server processes run.

    Raises what the database raises.
    """
    max_connections = _max_connections()
    try:
        return max_connections, Worker.objects.running().count()
    except (ProgrammingError, OperationalError):  # before the migrations
        return max_connections, 0
    finally:
        _close_connection()


def _max_connections() -> int | None:
    """How many connections PostgreSQL allows; None for SQLite. Raises what the database raises."""
    try:
        with connection.cursor() as cursor:
            if connection.vendor != "postgresql":
                cursor.execute("SELECT 1")
                return None
            cursor.execute("SELECT current_setting('max_connections')::int")
            return int(cursor.fetchone()[0])
    finally:
        _close_connection()


def _close_connection() -> None:
    if not connection.in_atomic_block:
        connection.close()


async def check_migrations() -> Finding:
    count = await sync_to_async(_unapplied_migrations)()
    if count:
        return red(
            f"{count} migrations are not applied.", "Run `./manage.py migrate`, then restart the server."
        )
    return green("All migrations are applied.")


def _unapplied_migrations() -> int:
    try:
        return count_unapplied_migrations()
    finally:
        _close_connection()


def is_incompatible_redis(client_version: str) -> bool:
    """With redis-py 8, channels-redis closes waiting consumers after five seconds."""
    return int(client_version.partition(".")[0]) >= 8


async def check_redis() -> Finding:
    if not settings.REDIS_URL:
        return green("Redis is not configured. A single process does not need it.")
    if is_incompatible_redis(version("redis")):
        return red(
            "The installed redis package is version 8 or later.",
            "Install a version below 8: channels-redis does not work with later ones.",
        )
    client = Redis.from_url(
        settings.REDIS_URL,
        socket_timeout=REQUEST_TIMEOUT_SECONDS,
        socket_connect_timeout=REQUEST_TIMEOUT_SECONDS,
    )
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT_SECONDS):
            reply = client.ping()
            assert not isinstance(reply, bool)  # only the synchronous client returns a bool
            await reply
    except (RedisError, OSError, TimeoutError):
        return red("Redis does not respond.", "Start it, and check REDIS_URL, including its password.")
    finally:
        await client.aclose()
    return green("Redis responds.")


async def check_clock() -> Finding:
    """Compares our clock with the Date header of Twilio or Vapi, whatever the status of the response."""
    timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_SECONDS)
    for origin in (settings.TWILIO_BASE_URL, settings.VAPI_BASE_URL):
        try:
            async with (
                aiohttp.ClientSession(trust_env=False, timeout=timeout) as http,
                http.get(origin, allow_redirects=False) as response,
            ):
                peer_time = parsedate_to_datetime(response.headers["Date"]).timestamp()
        except (aiohttp.ClientError, OSError, TimeoutError, KeyError, ValueError):
            continue
        offset_seconds = time.time() - peer_time
        message = f"The clock of this machine is off by {offset_seconds:+.0f} s."
        if abs(offset_seconds) > MAX_CLOCK_ERROR_SECONDS:
            return red(message, "Set the clock by NTP: signed reports are accepted for a few minutes only.")
        if abs(offset_seconds) > CLOCK_WARNING_SECONDS:
            return amber(message, "Set the clock by NTP.")
        return green("The clock of this machine is right.")
    return amber(
        "The clock could not be checked.", "Check that Twilio and Vapi can be reached from this machine."
    )


async def check_disk() -> Finding:
    journal_folder = Path(settings.JOURNAL_DIR)
    folder = journal_folder
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent  # where the journal's folder would be created
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        return red(
            "The journal folder is not writable.",
            "Point JOURNAL_DIR to a folder that the server's user may write to.",
        )
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < FULL_DISK_BYTES:
        return red(
            "The disk of the journal is full.",
            "Free disk space: entries about calls are written there first.",
        )
    if free_bytes < LOW_DISK_BYTES:
        return amber(f"The disk of the journal has {_format_size(free_bytes)} left.", "Free disk space.")
    if folder == journal_folder and stat.S_IMODE(folder.stat().st_mode) & 0o077:
        return amber("Other users of this machine can read the journal folder.", "Run chmod 700 on it.")
    return green(f"The disk of the journal has {_format_size(free_bytes)} left.")


def _format_size(size_bytes: int) -> str:
    return f"{size_bytes >> 20} MB" if size_bytes < 1 << 30 else f"{size_bytes / (1 << 30):.1f} GB"


async def check_workers() -> Finding:
    workers = await sync_to_async(_count_workers)()
    if workers > 1 and not settings.REDIS_URL:
        return red(
            f"{workers} server processes run without Redis: each knows the streams and end reasons of its "
            "own calls only.",
            "Set REDIS_URL, or run one server process.",
        )
    if workers > 1:
        return green("The server processes share live calls and end reasons through Redis.")
    if workers == 1:
        return green("A single server process handles all calls.")
    return green("No running server process reports to this database.")


def _count_workers() -> int:
    try:
        return Worker.objects.running().count()
    finally:
        _close_connection()


CHECKS = (
    Check("database", "Database", check_database),
    Check("migrations", "Migrations", check_migrations, ("database",)),
    Check("redis", "Redis", check_redis),
    Check("clock", "Clock", check_clock),
    Check("disk", "Disk", check_disk),
    Check("workers", "Server processes", check_workers, ("migrations",)),
)
