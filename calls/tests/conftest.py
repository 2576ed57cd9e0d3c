"""Fixtures that tests in several folders use."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from calls.tests.live_server import Cluster, find_postgres_programs


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A separate PostgreSQL that the test can freeze and restart."""
    programs = find_postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL's programs are not installed")
    # The cluster needs only the programs, but a PostgreSQL must not be started unless one is configured.
    on_postgres = os.environ.get("DATABASE_URL", "").startswith("postgres")
    if not on_postgres and not os.environ.get("TEST_POSTGRES_URL"):
        pytest.skip("needs PostgreSQL: set TEST_POSTGRES_URL or DATABASE_URL")
    with Cluster(programs) as cluster:
        yield cluster
