"""`manage.py export_calls`: content, order, formula escaping, atomic replacement of the file."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from contextlib import redirect_stderr
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import TestCase
from django.test.utils import CaptureQueriesContext

from calls.models import AuditEntry
from calls.tests.builders import make_call, make_turn, make_utterance

NOON = datetime(2026, 11, 18, 12, 0, tzinfo=UTC)


def export(*arguments: str) -> str:
    out = io.StringIO()
    call_command("export_calls", *arguments, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def export_lines(*arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in export(*arguments).splitlines()]


def export_csv_rows() -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(export("--format=csv").removeprefix("\ufeff"))))


class ExportCallsTests(TestCase):
    def test_a_line_contains_transcript_and_turns(self) -> None:
        call = make_call(
            started_at=NOON, vapi_cost="0.13", twilio_price="-0.017", stream_price="0.008",
            vapi_report={"success": "true", "costs": [{"cost": 0.13}]},
        )  # fmt: skip
        make_utterance(call, text="Grüße 👋\nnext line")
        make_utterance(call, speaker="assistant", text="Of course.", interrupted=True, unheard_ms=300)
        make_turn(call, model_ms=420)
        (line,) = export_lines()
        self.assertEqual((line["call_sid"], line["from_number"]), (call.call_sid, "+15550100134"))
        self.assertEqual((line["started_at"], line["cost"]), ("2026-11-18T12:00:00+00:00", "0.15500"))
        self.assertEqual((line["twilio_price"], line["stream_price"]), ("-0.01700", "0.00800"))
        self.assertEqual((line["success"], line["report"]["costs"]), ("true", [{"cost": 0.13}]))
        self.assertEqual(
            [(row["speaker"], row["text"], row["unheard_ms"]) for row in line["transcript"]],
            [("caller", "Grüße 👋\nnext line", None), ("assistant", "Of course.", 300)],
        )
        (turn,) = line["turns"]
        self.assertEqual((turn["number"], turn["response_latency_ms"], turn["model_ms"]), (1, 880, 420))

    def test_dates_cover_whole_days_and_times_are_exact(self) -> None:
        for hours in (-36, -12, 0, 11, 12):
            make_call(started_at=NOON + timedelta(hours=hours))
        for arguments, count in (
            ((), 5),
            (("--since=2026-11-18",), 4),
            (("--until=2026-11-17",), 1),
            (("--since=2026-11-18", "--until=2026-11-18"), 3),
            (("--since=2026-11-18T13:00+01:00", "--until=2026-11-18T23:00"), 1),
            (("--since=2026-11-18T23:00", "--until=2026-11-19"), 2),
        ):
            found = [line["started_at"] for line in export_lines(*arguments)]
            self.assertEqual(len(found), count, arguments)
            self.assertEqual(found, sorted(found))

    def test_csv_escapes_formulas(self) -> None:
        make_call(caller_name="=1+1", note="@SUM(A1)")
        (row,) = export_csv_rows()
        self.assertEqual((row["caller_name"], row["note"]), ("'=1+1", "'@SUM(A1)"))
        self.assertEqual(row["from_number"], "'+15550100134")

    def test_no_cell_is_a_formula_whatever_separates_the_cells(self) -> None:
        texts = [
            '=HYPERLINK("http://x.example")', 'Bob;=HYPERLINK("http://x.example")', "Bob; =1+1", 'Bob;"=1+1"',
            "Bob\t=1+1", "Bob\n=1+1", "Bob|@SUM(A1)", "a;b;-2+3", "  +1", '"=1', "＝1+1", ";;=1",
        ]  # fmt: skip
        for text in texts:
            make_call(caller_name=text, note=text)
        exported = export("--format=csv")
        for delimiter in ",;\t|":
            for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE):
                file = io.StringIO(exported, newline="")
                for row in csv.reader(file, delimiter=delimiter, quoting=quoting):
                    for cell in row:
                        is_formula = cell.lstrip(' "\t\n').startswith(("=", "+", "-", "@", "＝"))
                        self.assertFalse(is_formula, (delimiter, quoting, cell))

    def test_amounts_and_counts_are_numbers(self) -> None:
        make_call(twilio_price="-0.00850", vapi_cost="0.13", stream_price="0.004", barge_ins=2)
        (row,) = export_csv_rows()
        amounts = (row["twilio_price"], row["vapi_cost"], row["cost"], row["barge_ins"])
        self.assertEqual(amounts, ("-0.00850", "0.13000", "0.14250", "2"))

    def test_excel_recognizes_the_encoding(self) -> None:
        make_call(caller_name="Müller")
        self.assertTrue(export("--format=csv").startswith("\ufeffstarted_at,"))

    def test_simulated_calls_are_excluded_once_there_is_a_real_one(self) -> None:
        make_call(simulated=True)
        self.assertEqual(len(export_lines()), 1)
        make_call()
        self.assertEqual([line["simulated"] for line in export_lines()], [False])
        self.assertEqual(len(export_lines("--simulated")), 2)

    def test_queries_do_not_grow_with_the_calls_of_a_chunk(self) -> None:
        counts = []
        for more in (1, 40):
            for _ in range(more):
                make_utterance(make_call())
            with CaptureQueriesContext(connection) as queries:
                export_lines()
            counts.append(len(queries))
        self.assertEqual(counts[0], counts[1])

    def test_the_file_is_replaced_only_on_success(self) -> None:
        make_call()
        with TemporaryDirectory() as directory:
            file = Path(directory) / "calls.csv"
            self.assertEqual(export("--format=csv", f"--output={file}"), "")
            self.assertEqual(len(file.read_text().splitlines()), 2)
            self.assertEqual(file.stat().st_mode & 0o777, 0o600)
            before = file.read_bytes()
            with (
                mock.patch("calls.staff.export.serialize_call", side_effect=ZeroDivisionError),
                pytest.raises(ZeroDivisionError),
            ):
                export("--format=csv", f"--output={file}")
            self.assertEqual((file.read_bytes(), [*Path(directory).iterdir()]), (before, [file]))
            with pytest.raises(CommandError, match="--output: No such file or directory"):
                export(f"--output={directory}/none/calls.csv")

    def test_it_rejects_invalid_dates(self) -> None:
        for wrong in ("--since=soon", "--until=2026-13-01", "--format=xml"):
            with pytest.raises(CommandError):
                export(wrong)
        with pytest.raises(CommandError, match="must be before"):
            export("--since=2026-11-19", "--until=2026-11-18")

    def test_it_leaves_an_audit_entry(self) -> None:
        export("--since=2026-11-18")
        entry = AuditEntry.objects.get()
        self.assertEqual((entry.username, entry.action), ("manage.py", "export"))
        self.assertIn("jsonl 2026-11-18", entry.detail)


@pytest.mark.slow
def test_it_exits_without_an_error_when_its_pipe_is_closed(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'calls.sqlite3'}"
    manage_py = [sys.executable, "manage.py"]
    environment = {"DATABASE_URL": database, "PATH": "/usr/bin:/bin", "DJANGO_DEBUG": "on"}
    fill = (
        "from calls.models import Call\n"
        "Call.objects.bulk_create(Call(call_sid=f'CA{n}', note='x' * 900) for n in range(1000))"
    )
    for arguments in (["migrate", "-v0"], ["shell", "-v0", "-c", fill]):
        subprocess.run(
            [*manage_py, *arguments], env=environment, cwd=settings.BASE_DIR, check=True, timeout=60
        )
    process = subprocess.Popen(
        [*manage_py, "export_calls"], env=environment, cwd=settings.BASE_DIR, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    assert json.loads(process.stdout.readline())["note"]
    process.stdout.close()
    assert process.wait(30) == 0
    assert process.stderr.read() == ""
    process.stderr.close()


class ProgressTests(TestCase):
    def test_on_a_terminal_stderr_has_a_progress_bar(self) -> None:
        make_call()
        with (
            mock.patch.dict("os.environ", {"FORCE_COLOR": "1", "TERM": "xterm"}),
            redirect_stderr(io.StringIO()) as err,
        ):
            (line,) = export_lines()
        self.assertEqual(line["direction"], "inbound")
        self.assertRegex(err.getvalue(), r"Exporting calls.*1/1")

    def test_without_a_terminal_there_is_no_progress_bar(self) -> None:
        make_call()
        with redirect_stderr(io.StringIO()) as err:
            export_lines()
        self.assertEqual(err.getvalue(), "")
