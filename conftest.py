"""What holds for every test: what CI may not skip, what starts processes, and what workers must not share.

A test skips where its PostgreSQL, Redis or speech extra is absent, which is right on a laptop. CI has
them all, so there a skip means that something silently went untested, and counts as a failure.

A test that starts a process must be marked `slow`: `make test-fast` leaves these out. Tests of a real
browser are marked by their folder.
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
# Each xdist worker has a database of Redis of its own: clearing the cache empties the whole database.
REDIS_VARIABLES = ("REDIS_URL", "TEST_REDIS_URL")
REDIS_APART = 2  # as many as there are variables

# Tests start many processes; each would compile the product anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


# How long an example takes tells how busy the machine is, and nothing about what is tested.
hypothesis_settings.register_profile("any-speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("any-speed")


def _worker() -> int | None:
    """The number of this xdist worker; None where there are none."""
    name = os.environ.get("PYTEST_XDIST_WORKER", "")
    return int(name.removeprefix("gw")) if name else None


def pytest_configure() -> None:
    worker = _worker()
    if worker is None:
        return
    for name in REDIS_VARIABLES:
        url, slash, number = os.environ.get(name, "").rpartition("/")
        if slash and number.isdecimal():
            os.environ[name] = f"{url}/{int(number) + REDIS_APART * worker}"
    from django.conf import settings

    if settings.REDIS_URL:
        settings.REDIS_URL = os.environ["REDIS_URL"]
        settings.CACHES["default"]["LOCATION"] = settings.REDIS_URL
        for host in settings.CHANNEL_LAYERS["default"]["CONFIG"]["hosts"]:
            host["address"] = settings.REDIS_URL


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first."""
    for item in items:
        if item.path.parent.name == "browser":
            item.add_marker("slow")
            item.add_marker("browser")
            item.add_marker("once")
    items.sort(key=lambda item: (not _is_slow(item), not _stays_together(item.path)))


def _is_slow(item: pytest.Item) -> bool:
    return item.get_closest_marker("slow") is not None


@cache
def _stays_together(file: Path) -> bool:
    """Tests of a file share its fixtures and rows; those with a server each go wherever there is room."""
    text = file.read_text()
    return 'scope="module"' in text or "mark.slow" not in text


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    # Groups by a marker (`--dist loadgroup`) do not work with pytest 9.2.
    from xdist.scheduler import LoadScopeScheduling

    class ByFileOrTest(LoadScopeScheduling):  # type: ignore[misc]  # no types
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return file if _stays_together(config.rootpath / file) else nodeid

    config.option.loadscopereorder = False  # the order of the collection is meant
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


def _look_for_processes(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "subprocess.Popen" and _running is not None and not _is_slow(_running):
        raise RuntimeError(f"{_running.nodeid} starts {arguments[0]}: mark it `slow`.")


sys.addaudithook(_look_for_processes)


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
