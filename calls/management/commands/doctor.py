"""`manage.py doctor`: what stands between this server and its first call."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from calls import doctor
from calls.doctor.symptoms import SYMPTOMS


class Command(BaseCommand):
    help = (
        "Asks settings, proxy, Twilio, Vapi, database and disk whether calls can come, and says what to "
        "fix. Changes nothing. Exit code 1 when something is red."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="one JSON object")
        parser.add_argument("--only", action="append", choices=doctor.NAMES, default=[], metavar="NAME")
        parser.add_argument("--symptoms", action="store_true", help="what is noticed, and which checks tell")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["symptoms"]:
            for row in SYMPTOMS:
                self.stdout.write(f"{row.noticed}\n  why: {row.causes}\n  fix: {row.fix}")
                self.stdout.write(f"  see: {', '.join(row.checks)}\n")
            return
        answers = asyncio.run(doctor.examine(options["only"]))
        ill = any(each.finding.level == "red" for each in answers)
        if options["json"]:
            rows = [
                {
                    "name": each.check.name, "level": each.finding.level, "seen": each.finding.seen,
                    "fix": each.finding.fix, "symptoms": list(each.symptoms),
                }
                for each in answers
            ]  # fmt: skip
            self.stdout.write(json.dumps({"ok": not ill, "checks": rows}))
        else:
            for each in answers:
                self.stdout.write(f"{each.finding.level:5}  {each.check.name}: {each.finding.seen}")
                if each.finding.fix:
                    self.stdout.write(f"       fix: {each.finding.fix}")
                for noticed in each.symptoms:
                    self.stdout.write(f"       noticed as: {noticed}")
        if ill:
            self.stdout.flush()
            sys.exit(1)
