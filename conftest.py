"""What holds for every test: in CI nothing may be skipped.

A test skips where its PostgreSQL, Redis or speech extra is absent, which is right on a laptop. CI has
them all, so there a skip means that something silently went untested, and counts as a failure.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

STRICT = os.environ.get("VOICEAI_CI") == "1"


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
