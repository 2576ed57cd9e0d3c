"""What the terminal shows when settings are wrong or the database cannot be used: one line, no traceback."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command, get_commands, load_command_class
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.test import TransactionTestCase

from calls.demo.server_process import reserve_port
from calls.management.database import DatabaseCommand, require_database
from calls.tests.builders import make_staff
from calls.tests.commands import command_environment
from voiceai.environment import parse_file
from voiceai.server.serve import ServeOptions

DEBUG = {"DJANGO_DEBUG": "on", "JOURNAL_DIR": ""}
NO_DATABASE = "postgres://voiceai:secret@127.0.0.1:1/voiceai"
DAPHNE = ("-m", "daphne", "-p", "0", "voiceai.asgi:application")
MANAGE = ("manage.py",)
NEW_USER = ("--noinput", "--username", "ops", "--email", "ops@example.com")


def run(command: tuple[str, ...], **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=settings.BASE_DIR, env=command_environment(**DEBUG, **variables),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PUBLIC_URL", "example.com"), ("DATABASE_URL", "nonsense"), ("REDIS_URL", "nonsense"),
        ("DJANGO_DEBUG", "maybe"), ("MAX_CALL_SECONDS", "ten"), ("TWILIO_STREAM_PRICE_PER_MINUTE", "free"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "command",
    [(*MANAGE, "migrate"), (*MANAGE, "serve"), (*MANAGE, "runserver"), (*MANAGE, "demo"), DAPHNE],
    ids=["migrate", "serve", "runserver", "demo", "daphne"],
)
def test_a_wrong_setting_is_one_line(command: tuple[str, ...], name: str, value: str) -> None:
    variables = {**DEBUG, name: value}
    result = subprocess.run(
        [sys.executable, *command],
        cwd=settings.BASE_DIR, env=command_environment(**variables),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"{name} must be")


@pytest.mark.slow
@pytest.mark.parametrize(
    "database_url",
    [NO_DATABASE, "sqlite:////dev/null/rows.sqlite3", f"sqlite:///{settings.BASE_DIR}/README.md"],
)
@pytest.mark.parametrize(
    "arguments",
    [("migrate",), ("createsuperuser",), ("demo",), ("export_calls",), ("place_call", "+15550100134")],
    ids=lambda arguments: arguments[0],
)
def test_an_unusable_database_is_one_line(arguments: tuple[str, ...], database_url: str) -> None:
    result = run((*MANAGE, *arguments), DATABASE_URL=database_url)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.removeprefix("CommandError: ").startswith("The database cannot be used: ")
    assert line.endswith("check DATABASE_URL.") and "secret" not in line


@pytest.mark.slow
def test_tables_that_are_missing_are_one_line(tmp_path: Path) -> None:
    result = run((*MANAGE, "createsuperuser", *NEW_USER), DATABASE_URL=f"sqlite:///{tmp_path}/empty.sqlite3")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("The database's tables are not up to date.")
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_a_server_whose_spool_is_not_writable_says_so_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = subprocess.run(
        [sys.executable, *DAPHNE],
        cwd=settings.BASE_DIR,
        env=command_environment(DJANGO_DEBUG="on", JOURNAL_DIR=f"{tmp_path}/file/journal"),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 1
    line = result.stderr.splitlines()[-1]
    assert "JOURNAL_DIR" in line and "Not a directory" in line and "Traceback" not in result.stderr


@pytest.mark.slow
def test_a_port_that_cannot_be_used_is_named() -> None:
    for command in ("serve", "demo", "sandbox"):
        result = run((*MANAGE, command, "--port", "99999"))
        assert result.returncode == 2
        assert "a port is a number from 0 to 65535, not '99999'" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("reload", [(), ("--noreload",)])
def test_runserver_ends_if_it_cannot_listen(reload: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for port, problem in (
            ("99999", "A port is a number from 0 to 65535, not 99999."),
            (str(taken.getsockname()[1]), "Address already in use"),
        ):
            result = run((*MANAGE, "runserver", port, *reload))
            assert (result.returncode, problem in result.stderr) == (1, True), result.stderr


@pytest.mark.slow
def test_the_doctor_shows_wrong_settings_red_and_checks_the_rest() -> None:
    result = run(
        (*MANAGE, "doctor", "--only", "settings", "--only", "disk"), MAX_CALL_SECONDS="ten", LOG_FORMAT="x"
    )
    lines = result.stdout.splitlines()
    assert result.returncode == 1
    assert (
        lines[0].startswith("red    settings: MAX_CALL_SECONDS must be") and "LOG_FORMAT must be" in lines[0]
    )
    assert any(line.startswith("green  disk") for line in lines)
    assert result.stderr == ""


@pytest.mark.slow
def test_the_doctor_lists_what_it_did_not_check_in_one_line() -> None:
    result = run(
        (*MANAGE, "doctor"), PUBLIC_URL="", TWILIO_AUTH_TOKEN="", VAPI_API_KEY="", VAPI_SOCKET_URL=""
    )
    (line,) = (line for line in result.stdout.splitlines() if "Not checked" in line)
    assert "address" in line and "websocket" in line and "vapi-key" in line


@pytest.mark.slow
def test_manage_py_runs_outside_the_virtual_environment(tmp_path: Path) -> None:
    shutil.copy(Path(settings.BASE_DIR) / "manage.py", tmp_path)
    bare = Path(sys.base_prefix) / "bin" / "python3"
    command = [str(bare), "-S", str(tmp_path / "manage.py"), "check"]  # -S: without installed packages
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (
        1,
        "The packages are not installed. Run `make demo` once.\n",
    )
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$0" "$@"\n')
    python.chmod(0o755)
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.stdout.split() == [str(python), str(tmp_path / "manage.py"), "check"]


@pytest.mark.slow
def test_the_lines_of_sandbox_are_an_env_file() -> None:
    command = [sys.executable, "manage.py", "sandbox", "--port", "0", "--listen", "energy"]
    process = subprocess.Popen(
        command, cwd=settings.BASE_DIR, env=command_environment(**DEBUG), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        printed = list(takewhile(lambda line: not line.rstrip().endswith("/socket"), process.stdout))
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)
        process.stdout.close()
    values, problems = parse_file("".join(printed))
    assert problems == []
    names = ("VAPI_BASE_URL", "VAPI_API_KEY", "VAPI_ASSISTANT_ID", "VAPI_ALLOWED_HOSTS", "TWILIO_BASE_URL")
    assert all(values.get(name) for name in names), printed


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("staff", "login"),
    [
        ([], "createsuperuser"), ([{"is_staff": False}], "createsuperuser"),
        ([{"is_active": False}], "createsuperuser"), ([{}], "staff user's name and password"),
        ([{"is_staff": False}, {}], "staff user's name and password"),
    ],
)  # fmt: skip
def test_serve_prints_its_address_and_how_to_log_in(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    staff: list[dict[str, bool]],
    login: str,
) -> None:
    for changes in staff:
        make_staff(**changes)
    served: list[ServeOptions] = []
    monkeypatch.setattr("calls.management.commands.serve.serve", served.append)
    monkeypatch.setattr("calls.management.commands.serve.refuse_to_start", lambda: None)
    monkeypatch.setattr("calls.management.commands.serve.connections.close_all", lambda: None)
    monkeypatch.setattr("calls.management.commands.serve.require_free_port", lambda host, port: None)
    port = reserve_port()
    call_command("serve", "--port", str(port))
    output = capsys.readouterr().out
    assert f"Pages: http://127.0.0.1:{port + 1}/" in output and login in output
    assert [(options.host, options.port, options.pages_port) for options in served] == [
        ("127.0.0.1", port, port + 1)
    ]


def test_tzdata_is_installed_on_every_platform() -> None:
    """Systems leave out old names of time zones, which browsers still report."""
    text = (Path(settings.BASE_DIR) / "requirements.txt").read_text()
    lines = [line for line in text.splitlines() if line.startswith("tzdata==")]
    assert len(lines) == 1 and ";" not in lines[0]


# Command -> arguments with which it would change something, here or at a vendor.
USES_ROWS: dict[str, list[str]] = {
    "configure_number": ["+15559870000"],
    "place_call": ["+15550100134"],
    "sync_calls": [],
    "reap_calls": [],
    "seed_calls": ["--calls", "1"],
    "export_calls": [],
    "create_roles": [],
    "drain": [],
}


class MigrationTests(TransactionTestCase):
    def test_commands_that_use_rows_check_the_tables_before_anything_else(self) -> None:
        require_database()
        recorder = MigrationRecorder(connection)
        last = recorder.migration_qs.filter(app="calls").latest("name").name
        recorder.record_unapplied("calls", last)
        self.addCleanup(recorder.record_applied, "calls", last)
        for name, arguments in USES_ROWS.items():
            with (
                self.subTest(command=name),
                self.assertRaisesMessage(
                    CommandError, "not up to date (1 migrations). Run `./manage.py migrate`."
                ),
            ):
                call_command(name, *arguments)

    def test_every_such_command_is_known(self) -> None:
        found = {
            name
            for name, app in get_commands().items()
            if app == "calls" and isinstance(load_command_class("calls", name), DatabaseCommand)
        }
        self.assertEqual(found, set(USES_ROWS))
