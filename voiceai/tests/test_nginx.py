"""`deploy/nginx.conf` with a real nginx in front of `serve`: a call, the doctor, and the limits."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from calls.demo.server_process import HOST, ROOT, reserve_port
from calls.tests.commands import InProcessCommands, run_command_async
from calls.tests.doctor.proxy import Authority
from calls.tests.live_server import ServeProcess, make_serve_process, poll_until, temporary_database
from sandbox.vapi.server import VapiSimulator
from voiceai.tests.test_serve import WAIT_SECONDS

pytestmark = [pytest.mark.slow, pytest.mark.once, pytest.mark.asyncio(loop_scope="module")]

START_TIMEOUT_SECONDS = 15.0
MAIN_CONFIG = """
{user}
daemon off;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/voiceai.conf;
}}
"""


class Nginx:
    """nginx as deployed, with another port and another certificate."""

    def __init__(self, folder: Path, server_port: int, pages_port: int) -> None:
        self.port = reserve_port()
        self.authority = Authority(folder / "tls")
        self.authority.make_context()  # writes the certificate and its key
        self.folder = folder
        changes = {
            "127.0.0.1:8000": f"127.0.0.1:{server_port}",
            "127.0.0.1:8001": f"127.0.0.1:{pages_port}",
            "listen 443 ssl": f"listen {HOST}:{self.port} ssl",
            "server_name voice.example.com": "server_name localhost",
            "/etc/ssl/voiceai/fullchain.pem": str(folder / "tls" / "server.pem"),
            "/etc/ssl/voiceai/privkey.pem": str(folder / "tls" / "server.pem"),
        }
        text = (ROOT / "deploy" / "nginx.conf").read_text()
        for old, new in changes.items():
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        (folder / "voiceai.conf").write_text(text)
        user = "user root;" if os.geteuid() == 0 else ""  # otherwise its workers cannot write to the folder
        (folder / "nginx.conf").write_text(MAIN_CONFIG.format(folder=folder, user=user))

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    async def __aenter__(self) -> Nginx:
        self._process = await asyncio.create_subprocess_exec(
            "nginx", "-c", str(self.folder / "nginx.conf"), "-p", str(self.folder),
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(START_TIMEOUT_SECONDS):
                await self._wait_until_it_listens()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def _wait_until_it_listens(self) -> None:
        while True:
            assert self._process.returncode is None, "nginx did not start"
            try:
                _, writer = await asyncio.open_connection(HOST, self.port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.terminate()
        await self._process.communicate()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def proxied(
    tmp_path_factory: pytest.TempPathFactory, django_db_blocker: Any
) -> AsyncIterator[tuple[ServeProcess, Nginx]]:
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed")
    folder = tmp_path_factory.mktemp("nginx")
    port, pages_port = reserve_port(), reserve_port()
    nginx = Nginx(folder, port, pages_port)
    with django_db_blocker.unblock(), temporary_database(folder) as database:
        async with VapiSimulator() as vapi:
            server = make_serve_process(
                vapi.base_url,
                database.url,
                folder,
                PUBLIC_URL=nginx.url,
                TRUSTED_PROXIES="127.0.0.0/8",
                DJANGO_DEBUG="off",
            )
            server.port, server.pages_port = port, pages_port
            async with server, nginx:
                yield server, nginx


@pytest.fixture
def tls(proxied: tuple[ServeProcess, Nginx]) -> ssl.SSLContext:
    _, nginx = proxied
    return ssl.create_default_context(cafile=str(nginx.authority.file))


async def test_a_call_passes(proxied: tuple[ServeProcess, Nginx]) -> None:
    server, nginx = proxied
    arguments = ("--listen-seconds", "3", "--save-heard", str(nginx.folder / "heard.wav"))
    result = await run_command_async(
        server.environment, "simulate_call", *arguments, SSL_CERT_FILE=str(nginx.authority.file)
    )
    assert result.code == 0, result.stderr
    query = "SELECT status, end_reason, frames_dropped, turn_count > 0 FROM calls_call"
    rows = await poll_until(
        lambda: server.database.select(query), lambda rows: rows and rows[0][0] == "completed", WAIT_SECONDS
    )
    assert rows == [("completed", "caller-hung-up", 0, 1)]


async def test_the_doctor_finds_nothing(proxied: tuple[ServeProcess, Nginx], django_db_blocker: Any) -> None:
    server, nginx = proxied
    checks = (
        "address",
        "certificate",
        "redirects",
        "this-server",
        "headers",
        "paths",
        "bodies",
        "signature",
        "websocket",
    )
    arguments = [part for check in checks for part in ("--only", check)]
    commands = InProcessCommands(django_db_blocker)
    result = await commands.run(
        server.environment, "doctor", "--json", *arguments, SSL_CERT_FILE=str(nginx.authority.file)
    )
    assert {check["name"]: check["level"] for check in result.report["checks"]} == dict.fromkeys(
        checks, "green"
    )


@pytest.mark.parametrize(
    ("path", "size", "status"),
    [
        ("/twilio/voice", 60 << 10, 403), ("/twilio/voice", 70 << 10, 413),
        ("/vapi/events", 7 << 20, 401), ("/vapi/events", 9 << 20, 413), ("/nothing", 3 << 20, 413),
    ],
)  # fmt: skip
async def test_bodies_have_the_same_limits(
    proxied: tuple[ServeProcess, Nginx], tls: ssl.SSLContext, path: str, size: int, status: int
) -> None:
    _, nginx = proxied
    async with (
        aiohttp.ClientSession(trust_env=False) as http,
        http.post(nginx.url + path, data=io.BytesIO(b"x" * size), ssl=tls) as response,
    ):
        assert response.status == status


async def test_an_address_that_asks_too_often_is_told_so(
    proxied: tuple[ServeProcess, Nginx], tls: ssl.SSLContext
) -> None:
    """Pages only: webhooks of all calls come from a few addresses."""
    _, nginx = proxied
    async with aiohttp.ClientSession(trust_env=False) as http:
        statuses: dict[str, set[int]] = {"/healthz": set(), "/twilio/voice": set()}
        for path, found in statuses.items():
            for _ in range(200):
                async with http.get(nginx.url + path, ssl=tls) as response:
                    found.add(response.status)
    assert 429 in statuses["/healthz"] and statuses["/twilio/voice"] == {403}
