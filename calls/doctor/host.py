"""What is on our side: database, Redis, clock, disk, workers."""

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
from django.db import DatabaseError, InterfaceError, connection
from django.db.migrations.executor import MigrationExecutor
from redis import RedisError
from redis.asyncio import Redis

from calls.doctor.check import Check, Finding, amber, green, red
from calls.doctor.public_url import SECONDS

FULL_BYTES, LOW_BYTES = 20 << 20, 500 << 20
POOL_SIZE = 10  # connections of one worker, at most; see DATABASES
SKEW_SECONDS, DRIFT_SECONDS = 60, 5


async def database() -> Finding:
    try:
        room = await sync_to_async(_room)()
    except (DatabaseError, InterfaceError, OSError):
        return red(
            "The database does not answer.",
            "Start it, and check DATABASE_URL. Calls go on meanwhile; what they report waits on the disk.",
        )
    if settings.DATABASES["default"]["ENGINE"].endswith("sqlite3") and _workers() > 1:
        return amber("Several workers share one SQLite file.", "Set DATABASE_URL to a PostgreSQL.")
    if room is not None and room < (wanted := _workers() * POOL_SIZE):
        return amber(
            f"{_workers()} workers may want {wanted} connections; the database has {room}.",
            "Raise max_connections of PostgreSQL, or run fewer workers.",
        )
    return green("The database answers.")


def _room() -> int | None:
    """How many connections the database allows; None where that is no question."""
    try:
        with connection.cursor() as cursor:
            if connection.vendor != "postgresql":
                cursor.execute("SELECT 1")
                return None
            cursor.execute("SELECT current_setting('max_connections')::int")
            return int(cursor.fetchone()[0])
    finally:
        _leave()


def _leave() -> None:
    if not connection.in_atomic_block:
        connection.close()


async def migrations() -> Finding:
    left = await sync_to_async(_left)()
    if left:
        return red(f"{left} migrations are not applied.", "Run `manage.py migrate`, then restart the server.")
    return green("All migrations are applied.")


def _left() -> int:
    try:
        executor = MigrationExecutor(connection)
        return len(executor.migration_plan(executor.loader.graph.leaf_nodes()))
    finally:
        _leave()


def breaks_consumers(client: str) -> bool:
    """channels-redis tears waiting consumers down after five seconds with redis-py 8."""
    return int(client.partition(".")[0]) >= 8


async def redis() -> Finding:
    if not settings.REDIS_URL:
        return green("No Redis is configured, and one process needs none.")
    if breaks_consumers(version("redis")):
        return red(
            "The redis package is 8 or later.", "Install redis below 8: channels-redis breaks with it."
        )
    client = Redis.from_url(settings.REDIS_URL, socket_timeout=SECONDS, socket_connect_timeout=SECONDS)
    try:
        async with asyncio.timeout(SECONDS):
            answer = client.ping()
            assert not isinstance(answer, bool)  # that is the other client's
            await answer
    except (RedisError, OSError, TimeoutError):
        return red("Redis does not answer.", "Start it, and check REDIS_URL, its password included.")
    finally:
        await client.aclose()
    return green("Redis answers.")


async def clock() -> Finding:
    """By whichever far end answers: what it answers does not matter here."""
    for origin in (settings.TWILIO_BASE_URL, settings.VAPI_BASE_URL):
        try:
            async with (
                aiohttp.ClientSession(trust_env=False, timeout=aiohttp.ClientTimeout(total=SECONDS)) as http,
                http.get(origin, allow_redirects=False) as answer,
            ):
                theirs = parsedate_to_datetime(answer.headers["Date"]).timestamp()
        except (aiohttp.ClientError, OSError, TimeoutError, KeyError, ValueError):
            continue
        skew = time.time() - theirs
        if abs(skew) > SKEW_SECONDS:
            return red(
                f"Our clock is {skew:+.0f} s off.", "Set the clock by NTP: signed reports expire by it."
            )
        if abs(skew) > DRIFT_SECONDS:
            return amber(f"Our clock is {skew:+.0f} s off.", "Set the clock by NTP.")
        return green("Our clock is right.")
    return amber("Nobody told us the time.", "See whether Twilio and Vapi can be reached from here.")


async def disk() -> Finding:
    folder = Path(settings.JOURNAL_DIR)
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return red(
            "The journal's folder cannot be written.",
            "Point JOURNAL_DIR to a folder that belongs to the server's user.",
        )
    free = shutil.disk_usage(there).free
    if free < FULL_BYTES:
        return red("The journal's disk is full.", "Free some space: calls are kept there before all else.")
    if free < LOW_BYTES:
        return amber(f"The journal's disk has {free >> 20} MB left.", "Free some space.")
    if there == folder and stat.S_IMODE(folder.stat().st_mode) & 0o077:
        return amber("Others on this machine can look into the journal's folder.", "chmod 700 it.")
    return green(f"The journal's disk has {free >> 30} GB left.")


def _workers() -> int:
    text = os.environ.get("WEB_CONCURRENCY", "1")
    return int(text) if text.isascii() and text.isdigit() else 1


async def workers() -> Finding:
    if _workers() > 1 and not settings.REDIS_URL:
        return red(
            f"{_workers()} workers share nothing: live pages and ends of calls stay in one of them.",
            "Set REDIS_URL, or run one worker.",
        )
    return green("The workers have what they must share.")


CHECKS = (
    Check("database", "Database", "Does the database answer?", database),
    Check("migrations", "Migrations", "Are the tables up to date?", migrations, ("database",)),
    Check("redis", "Redis", "Does Redis answer, by a client that works?", redis),
    Check("clock", "Clock", "Is our clock right?", clock),
    Check("disk", "Disk", "Can the journal be written?", disk),
    Check("workers", "Workers", "Do several workers share what they must?", workers),
)
