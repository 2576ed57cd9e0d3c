"""Ends the calls whose server died without a word."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from calls import rows


class Command(BaseCommand):
    help = "End calls that no server carries any more. Running servers do this by themselves."

    def handle(self, *args: Any, **options: Any) -> None:
        lost = rows.reap(timezone.now())
        self.stdout.write(f"{lost} call{'' if lost == 1 else 's'} ended as worker-lost")
