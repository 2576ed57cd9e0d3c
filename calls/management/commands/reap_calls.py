"""`./manage.py reap_calls`: closes the calls that nothing else will end."""

from __future__ import annotations

from typing import Any

from calls.ingest import upsert
from calls.ingest.db import bounded_transaction, now_utc
from calls.management.database import DatabaseCommand


class Command(DatabaseCommand):
    help = (
        "Closes calls whose server has stopped, and calls whose last status from Twilio never arrived. "
        "Running servers do this by themselves."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        with bounded_transaction():
            ended = len(upsert.reap(now_utc()))
        self.stdout.write(f"{ended} call{'' if ended == 1 else 's'} closed")
