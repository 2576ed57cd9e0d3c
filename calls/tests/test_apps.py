"""What the app does once in each process: it closes the connection pools at the end."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from django.conf import settings


@pytest.mark.slow
def test_no_pool_thread_is_left_when_a_command_ends() -> None:
    """Exit handlers run in reverse order: this one is registered before the app's, so it runs after it."""
    url = os.environ.get("TEST_POSTGRES_URL", "")
    if not url:
        pytest.skip("needs PostgreSQL: set TEST_POSTGRES_URL")
    program = (
        "import atexit, threading\n"
        "atexit.register(lambda: print(sorted(t.name for t in threading.enumerate())))\n"
        "import django; django.setup()\n"
        "from django.db import connection\n"
        "connection.ensure_connection(); print(len(threading.enumerate()) > 1)\n"
    )
    environment = {**os.environ, "DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "voiceai.settings"}
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=settings.BASE_DIR, env=environment, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert result.stdout.split("\n")[:2] == ["True", "['MainThread']"], result.stderr
