"""Fixtures of tests in several folders."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from calls.tests.live_server import Cluster, find_postgres_programs


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A separate PostgreSQL that the test can freeze."""
    programs = find_postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL's programs are not installed")
    # It could run without these, but then `make test` without PostgreSQL would start one unasked.
    on_postgres = os.environ.get("DATABASE_URL", "").startswith("postgres")
    if not on_postgres and not os.environ.get("TEST_POSTGRES_URL"):
        pytest.skip("needs PostgreSQL: set TEST_POSTGRES_URL or DATABASE_URL")
    with Cluster(programs) as cluster:
        yield cluster
