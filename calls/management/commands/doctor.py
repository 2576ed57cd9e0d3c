"""`manage.py doctor`: check whether this server can take calls."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from calls import doctor
from calls.doctor.check import Result
from calls.doctor.symptoms import SYMPTOMS


class Command(BaseCommand):
    help = (
        "Checks the settings, the public URL, Twilio, Vapi, the database and the disk, and says how to fix "
        "what is wrong. Changes nothing. The exit code is 1 when a check is red."
    )
    requires_system_checks = ()  # the doctor reports wrong settings itself

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        parser.add_argument(
            "--only",
            action="append",
            choices=doctor.NAMES,
            default=[],
            metavar="NAME",
            help="run this check only; can be given more than once",
        )
        parser.add_argument(
            "--symptoms", action="store_true", help="list symptoms, their causes and the checks to run"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["symptoms"]:
            self._print_symptoms()
            return
        results = asyncio.run(doctor.run_checks(options["only"]))
        has_red = any(result.finding.level == "red" for result in results)
        if options["json"]:
            checks = [_as_json(result) for result in results]
            self.stdout.write(json.dumps({"ok": not has_red, "checks": checks}))
        else:
            self._print(results)
        if has_red:
            self.stdout.flush()
            sys.exit(1)

    def _print(self, results: list[Result]) -> None:
        for result in results:
            if result.finding.was_skipped:
                continue
            self.stdout.write(f"{result.finding.level:5}  {result.check.name}: {result.finding.message}")
            if result.finding.fix:
                self.stdout.write(f"       fix: {result.finding.fix}")
            for symptom in result.symptoms:
                self.stdout.write(f"       symptom: {symptom}")
        if skipped := [result.check.name for result in results if result.finding.was_skipped]:
            self.stdout.write(f"amber  Not checked, because of the red checks: {', '.join(skipped)}")

    def _print_symptoms(self) -> None:
        for symptom in SYMPTOMS:
            self.stdout.write(f"{symptom.title}\n  cause: {symptom.causes}\n  fix: {symptom.fix}")
            self.stdout.write(f"  checks: {', '.join(symptom.checks)}\n")


def _as_json(result: Result) -> dict[str, Any]:
    return {
        "name": result.check.name,
        "level": result.finding.level,
        "seen": result.finding.message,
        "fix": result.finding.fix,
        "symptoms": list(result.symptoms),
    }
