"""A server process with a temporary database, and a PostgreSQL that can be frozen or restarted.

The server is started as its users start it, and can be killed at any time. Its database has the type that the
settings name; it is created for the test and deleted afterwards. Rows are read with plain SQL, as another
program would read them.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import pwd
import resource
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self, TypeVar

import psycopg
from django.conf import settings
from django.db import connections
from psycopg import sql

from calls.demo.server_process import HOST, ROOT, ServerProcess, reserve_port
from sandbox.twilio.simulator import TwilioSimulator

ACCOUNT_SID = "AC" + "7" * 32
AUTH_TOKEN = "a-test-token"
VAPI_KEY = "sandbox-key"  # accepted by the simulator only
COMMAND_TIMEOUT_SECONDS = 150
CLUSTER_TIMEOUT_SECONDS = 30
POLL_INTERVAL_SECONDS = 0.05
NOTE_LINES = 40
DESCRIPTORS = 1024  # that a shell allows by default

T = TypeVar("T")


async def poll_until(read: Callable[[], T], is_done: Callable[[T], object], timeout_seconds: float) -> T:
    """Call `read` until `is_done` accepts the value. Returns the last value, also after the timeout."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        value = await asyncio.to_thread(read)
        if is_done(value) or time.monotonic() >= deadline:
            return value
        await asyncio.sleep(POLL_INTERVAL_SECONDS)


class LiveServer(ServerProcess):
    """A server process. It can be started again after its end, with the same spool and database."""

    ready_timeout_seconds = 120.0  # several start at once on a busy machine

    def __init__(self, environment: Mapping[str, str], port: int) -> None:
        super().__init__(port, environment, asgi="voiceai.asgi:application", on_line=lambda line: None)
        self.environment = self._environment

    async def __aexit__(self, *error: object) -> None:
        await super().__aexit__(*error)
        if isinstance(error[1], Exception):
            error[1].add_note("\n".join(["The end of the server's log:", *list(self.lines)[-NOTE_LINES:]]))

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def pages_url(self) -> str:
        return self.url

    async def kill(self) -> None:
        """SIGKILL: no handler runs, nothing is flushed."""
        process, self._process = self._process, None
        assert process is not None and self._reader is not None
        process.kill()
        await process.wait()
        await self._reader

    def twilio_simulator(self, **changes: Any) -> TwilioSimulator:
        return TwilioSimulator(self.url, account_sid=ACCOUNT_SID, auth_token=AUTH_TOKEN, **changes)

    def run(self, *arguments: str) -> str:
        """Run Python with the server's environment. Returns its standard output."""
        result = subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT, env=self.environment, timeout=COMMAND_TIMEOUT_SECONDS, capture_output=True, text=True,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        return result.stdout


def make_server(vapi_url: str, database_url: str, journal: Path, **variables: str) -> LiveServer:
    """A server that uses the Vapi at `vapi_url`, not started. Creates the tables if there are none."""
    port = reserve_port()
    environment = {
        "DJANGO_SETTINGS_MODULE": "voiceai.settings",
        "DJANGO_DEBUG": "on",
        "DJANGO_SECRET_KEY": secrets.token_urlsafe(32),
        "DATABASE_URL": database_url,
        "JOURNAL_DIR": str(journal),
        "PUBLIC_URL": f"http://{HOST}:{port}",
        "TWILIO_ACCOUNT_SID": ACCOUNT_SID,
        "TWILIO_AUTH_TOKEN": AUTH_TOKEN,
        "TWILIO_BASE_URL": vapi_url,  # no request may leave this machine
        "VAPI_BASE_URL": vapi_url,
        "VAPI_API_KEY": VAPI_KEY,
        "VAPI_ASSISTANT_ID": "an-assistant",
        "VAPI_WEBHOOK_SECRET": secrets.token_urlsafe(16),
        "VAPI_ALLOWED_HOSTS": HOST,
        "LOG_FORMAT": "console",
        # A blank variable counts as not set, and overrides the one in `.env`.
        **dict.fromkeys(
            (
                "VAPI_SOCKET_URL",
                "AI_DISCLOSURE",
                "SAY_LANGUAGE",
                "SAY_VOICE",
                "FALLBACK_NUMBER",
                "SENTRY_DSN",
                "HOLD_BUFFER_MS",
                "MAX_CALL_SECONDS",
            ),
            "",
        ),
        **variables,
    }
    server = LiveServer(environment, port)
    if not Database(database_url).has_tables():
        server.run("manage.py", "migrate", "-v0")
    return server


class ServeProcess(LiveServer):
    """`./manage.py serve`, with as many descriptors as a shell allows by default."""

    def __init__(self, environment: Mapping[str, str], port: int) -> None:
        super().__init__(environment, port)
        self.pages_port = reserve_port()

    def build_arguments(self) -> list[str]:
        ports = ["--port", str(self.port), "--pages-port", str(self.pages_port)]
        return ["manage.py", "serve", *ports]

    @property
    def pages_url(self) -> str:
        return f"http://{HOST}:{self.pages_port}"

    async def start(self) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, hard))  # inherited by the process
        try:
            await super().start()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    @property
    def database(self) -> Database:
        return Database(self.environment["DATABASE_URL"])

    @property
    def memory_kb(self) -> int:
        """The largest memory that the process has had."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0])

    async def wait_for_exit(self) -> int:
        process = self._process
        assert process is not None
        async with asyncio.timeout(60):
            return await process.wait()

    def send_signal(self) -> None:
        os.kill(self.pid, signal.SIGTERM)


def make_serve_process(vapi_url: str, database_url: str, folder: Path, **variables: str) -> ServeProcess:
    """As `make_server`, with the production server."""
    server = make_server(vapi_url, database_url, folder / "journal", **variables)
    return ServeProcess(server.environment, server.port)


@dataclass(frozen=True, slots=True)
class Database:
    """A database, read with SQL."""

    url: str

    def select(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a query with `%s` for each value. Returns its rows."""
        if path := self._path:
            with closing(sqlite3.connect(path)) as connection:
                return list(connection.execute(query.replace("%s", "?"), values))
        with psycopg.connect(self.url, connect_timeout=5) as postgres:
            return list(postgres.execute(query.encode(), values))

    def execute(self, statement: str) -> None:
        """Run a statement, and commit it."""
        if path := self._path:
            with closing(sqlite3.connect(path)) as connection, connection:
                connection.execute(statement)
            return
        with psycopg.connect(self.url, connect_timeout=5) as postgres:
            postgres.execute(statement.encode())

    def has_tables(self) -> bool:
        try:
            return bool(self.select("SELECT 1 FROM django_migrations LIMIT 1"))
        except (sqlite3.OperationalError, psycopg.errors.UndefinedTable):
            return False

    def select_utterances(self, call_sid: str) -> list[tuple[str, str]]:
        """Speaker and text of each utterance, in order."""
        rows = self.select(
            'SELECT u.speaker, u.text FROM calls_utterance u JOIN calls_call c ON c.id = u.call_id'
            ' WHERE c.call_sid = %s ORDER BY u."index"',
            call_sid,
        )  # fmt: skip
        return [(str(speaker), str(text)) for speaker, text in rows]

    @contextmanager
    def lock_writes(self) -> Iterator[None]:
        """Until the block ends, no other connection can write to the table of calls."""
        if path := self._path:
            with closing(sqlite3.connect(path, isolation_level=None)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                yield
            return
        with psycopg.connect(self.url, connect_timeout=5) as postgres:
            postgres.execute("LOCK TABLE calls_call IN EXCLUSIVE MODE")
            yield
            postgres.rollback()

    @property
    def _path(self) -> str:
        kind, _, path = self.url.partition(":///")
        return path if kind == "sqlite" else ""


@contextmanager
def temporary_database(folder: Path) -> Iterator[Database]:
    """A new database of the type that the settings name, with all tables and no rows."""
    if connections["default"].vendor != "postgresql":
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(_sqlite_template(), folder / "live.sqlite3")
        yield Database(f"sqlite:///{folder / 'live.sqlite3'}")
        return
    name = f"live_{secrets.token_hex(6)}"
    template = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
    _execute_as_admin(template.format(sql.Identifier(name), sql.Identifier(_postgres_template())))
    try:
        yield Database(_postgres_url(name))
    finally:
        _drop(name)


@cache
def _sqlite_template() -> Path:
    """A migrated database. Migrating takes a second, copying the file a millisecond."""
    folder = Path(tempfile.mkdtemp(prefix="voiceai-template-"))
    atexit.register(shutil.rmtree, folder)
    _migrate(f"sqlite:///{folder / 'empty.sqlite3'}")
    return folder / "empty.sqlite3"


@cache
def _postgres_template() -> str:
    name = f"live_template_{secrets.token_hex(6)}"
    _execute_as_admin(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    atexit.register(_drop, name)
    _migrate(_postgres_url(name))
    return name


def _migrate(url: str) -> None:
    environment = {**os.environ, "DATABASE_URL": url, "DJANGO_DEBUG": "on"}
    command = [sys.executable, "manage.py", "migrate", "-v0"]
    subprocess.run(command, cwd=ROOT, env=environment, timeout=COMMAND_TIMEOUT_SECONDS, check=True)


def _postgres_credentials() -> dict[str, str]:
    """Host, port, user and password from the settings, without those that are not set."""
    database = settings.DATABASES["default"]
    names = {"host": "HOST", "port": "PORT", "user": "USER", "password": "PASSWORD"}
    return {name: str(database[key]) for name, key in names.items() if database[key]}


def _postgres_url(name: str) -> str:
    login = _postgres_credentials()
    password = f":{login['password']}" if "password" in login else ""
    port = f":{login['port']}" if "port" in login else ""
    return f"postgres://{login.get('user', '')}{password}@{login.get('host', HOST)}{port}/{name}"


def _execute_as_admin(statement: sql.Composed) -> None:
    admin = psycopg.conninfo.make_conninfo(dbname="postgres", connect_timeout=5, **_postgres_credentials())
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(statement)


def _drop(name: str) -> None:
    _execute_as_admin(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def find_postgres_programs() -> Path | None:
    """The folder with the programs of the newest installed PostgreSQL, if any."""
    paths = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = max(paths, key=lambda path: float(path.parts[-3]), default=None)
    if newest is None and (on_path := shutil.which("initdb")):
        newest = Path(on_path)
    return newest.parent if newest else None


class Cluster:
    """A separate PostgreSQL in a temporary folder. It can be frozen (SIGSTOP) and restarted."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._port = reserve_port()
        self._folder = Path()
        self._server: subprocess.Popen[bytes] | None = None
        self._frozen: list[int] = []

    @property
    def database(self) -> Database:
        return Database(f"postgres://voiceai@{HOST}:{self._port}/postgres")

    def __enter__(self) -> Self:
        # Not below pytest's folder: other users cannot read it, and PostgreSQL does not run as root.
        self._folder = Path(tempfile.mkdtemp(prefix="cluster-"))
        try:
            if os.getuid() == 0:
                owner = pwd.getpwnam("postgres")
                os.chown(self._folder, owner.pw_uid, owner.pw_gid)
            data = str(self._folder / "data")
            initdb = self._start(
                "initdb", "-D", data, "-U", "voiceai", "-A", "trust", "-E", "UTF8", "--no-sync"
            )
            assert initdb.wait(CLUSTER_TIMEOUT_SECONDS) == 0, self._read_log()
            self._start_server()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.thaw()
        self._stop_server()
        shutil.rmtree(self._folder)

    def restart(self) -> None:
        """End all connections, and accept new ones afterwards, as an upgrade of PostgreSQL does."""
        with self.stopped():
            pass

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop it for the time of a block."""
        self._stop_server()
        try:
            yield
        finally:
            self._start_server()

    def freeze(self) -> None:
        """Suspend all its processes with SIGSTOP: connections stay open, and queries do not return."""
        assert self._server is not None
        os.kill(self._server.pid, signal.SIGSTOP)  # first, so that it starts no more children
        self._frozen = [self._server.pid, *_find_children(self._server.pid)]
        for pid in self._frozen[1:]:
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        frozen, self._frozen = self._frozen, []
        for pid in frozen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def process_states(self) -> set[str]:
        """The states of its processes as in `ps`; `T` is suspended."""
        assert self._server is not None
        return {_read_stat(pid)[0] for pid in (self._server.pid, *_find_children(self._server.pid))}

    def _start(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        user: dict[str, Any] = {}
        if os.getuid() == 0:
            user = {"user": "postgres", "group": "postgres", "extra_groups": []}
        command = [str(self._programs / program), *arguments]
        with open(self._folder / "log", "ab") as log:
            return subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log, **user)

    def _start_server(self) -> None:
        self._server = self._start(
            "postgres", "-D", str(self._folder / "data"), "-p", str(self._port), "-k", str(self._folder),
            "-c", f"listen_addresses={HOST}", "-c", "fsync=off",
        )  # fmt: skip
        self._wait_until_ready(self._server)

    def _stop_server(self) -> None:
        if self._server is None:
            return
        self._server.send_signal(signal.SIGINT)
        try:
            self._server.wait(CLUSTER_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self._server.send_signal(signal.SIGQUIT)
            self._server.wait(CLUSTER_TIMEOUT_SECONDS)
        self._server = None

    def _wait_until_ready(self, server: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + CLUSTER_TIMEOUT_SECONDS
        while True:
            try:
                self.database.select("SELECT 1")
                return
            except psycopg.OperationalError:
                assert server.poll() is None and time.monotonic() < deadline, self._read_log()
                time.sleep(POLL_INTERVAL_SECONDS)

    def _read_log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")[-2000:]


def _read_stat(pid: int) -> tuple[str, int]:
    """State and parent id of a process."""
    state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    return state, int(parent)


def _find_children(parent: int) -> list[int]:
    children = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if _read_stat(int(path.name))[1] == parent:
                children.append(int(path.name))
    return children
