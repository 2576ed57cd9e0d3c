"""Rules for all tests: what may be skipped, what is slow, and which Redis databases each worker uses.

A test is skipped where PostgreSQL, Redis or the speech extra that it needs is missing. In CI
(`VOICEAI_CI=1`) all of them are present, so a skip counts as a failure there.

`make test-fast` runs the product's tests without the markers `slow` and `database`. A test that starts a
process must be marked `slow`, otherwise it fails. Browser tests are marked by their folder, tests that use
the database by their class or their `django_db` marker.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

STRICT = os.environ.get("VOICEAI_CI") == "1"
# Each worker has its own Redis databases, because clearing the cache empties a whole database.
REDIS_VARIABLES = ("REDIS_URL", "TEST_REDIS_URL")
REDIS_DATABASES = len(REDIS_VARIABLES)  # per worker

# Without bytecode files each process that a test starts would compile the product again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


# The duration of an example depends on the load of the machine, so it must not fail a test.
hypothesis_settings.register_profile("any-speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("any-speed")


def _worker_number() -> int | None:
    """The number of this xdist worker; None without workers."""
    name = os.environ.get("PYTEST_XDIST_WORKER", "")
    return int(name.removeprefix("gw")) if name else None


def pytest_configure() -> None:
    from django.conf import settings

    # Otherwise each test client reads the folders of static files once.
    settings.WHITENOISE_AUTOREFRESH = True
    worker = _worker_number()
    if worker is None:
        return
    for name in REDIS_VARIABLES:
        url, slash, number = os.environ.get(name, "").rpartition("/")
        if slash and number.isdecimal():
            os.environ[name] = f"{url}/{int(number) + REDIS_DATABASES * worker}"
    if settings.REDIS_URL:
        settings.REDIS_URL = os.environ["REDIS_URL"]
        settings.CACHES["default"]["LOCATION"] = settings.REDIS_URL
        for host in settings.CHANNEL_LAYERS["default"]["CONFIG"]["hosts"]:
            host["address"] = settings.REDIS_URL


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Add the markers that follow from a test's place or class, and run the slowest tests first."""
    for item in items:
        if _uses_database(item):
            item.add_marker("database")
        if item.path.parent.name == "browser":
            item.add_marker("slow")
            item.add_marker("browser")
            item.add_marker("once")
    items.sort(key=lambda item: (not _is_slow(item), not _must_stay_together(item.path)))


def _uses_database(item: pytest.Item) -> bool:
    from django.test import TransactionTestCase

    in_class = isinstance(item, pytest.Function) and item.cls and issubclass(item.cls, TransactionTestCase)
    return bool(in_class) or item.get_closest_marker("django_db") is not None


def _is_slow(item: pytest.Item) -> bool:
    return item.get_closest_marker("slow") is not None


@cache
def _must_stay_together(file: Path) -> bool:
    """Whether the tests of a file must run on one worker, because they share fixtures of the module."""
    text = file.read_text()
    return 'scope="module"' in text or "mark.slow" not in text


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    # `--dist loadgroup` does not keep groups together with pytest 9.2.
    from xdist.scheduler import LoadScopeScheduling

    class ByFileOrTest(LoadScopeScheduling):  # type: ignore[misc]  # no types
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return file if _must_stay_together(config.rootpath / file) else nodeid

    config.option.loadscopereorder = False  # keep the order of the collection
    return ByFileOrTest(config, log)


_running: pytest.Item | None = None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    global _running
    _running = item
    try:
        return (yield)
    finally:
        _running = None


def _on_audit_event(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "subprocess.Popen" and _running is not None and not _is_slow(_running):
        raise RuntimeError(f"{_running.nodeid} starts {arguments[0]}: mark it `slow`.")


sys.addaudithook(_on_audit_event)


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if STRICT and report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"Nothing may be skipped here (VOICEAI_CI=1). {reason}"


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("speech") is not None:
        from sandbox.vapi.recognizer import can_recognize  # Django is set up by now

        if not can_recognize():
            pytest.skip("needs the [speech] extra: make speech")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_if_skipped(report)
    return report
