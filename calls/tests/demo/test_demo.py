"""`manage.py demo`: both dialects, both audio formats, start and stop."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import wave
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, ProxyHandler, build_opener

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from calls.demo.assertions import CHECKS
from calls.demo.server_process import ROOT, ServerFailed, reserve_port
from calls.tests.commands import command_environment, run_command

pytestmark = [pytest.mark.slow, pytest.mark.once]

VARIANTS: dict[str, tuple[dict[str, str], list[str]]] = {
    "pcm": ({}, []),
    "socket": ({"VAPI_SOCKET_URL": "ws://replaced.invalid/socket"}, ["--fast", "--listen", "energy"]),
}
MAX_RUN_SECONDS = 45


@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", VARIANTS)
def test_a_healthy_call_passes_every_check(tmp_path: Path, name: str) -> None:
    variables, arguments = VARIANTS[name]
    arguments = ["--once", "--json", "--save", str(tmp_path), *arguments]
    result = run_command(command_environment(**variables), "demo", *arguments)
    assert result.code == 0, result
    report = result.report
    assert report["ok"] is True and report["failed"] == []
    assert all(check["held"] for check in report["checks"].values())
    assert report["dialect"] == ("socket" if name == "socket" else "call")
    assert report["audio_format"] == ("pcm_s16le" if name == "pcm" else "mulaw")
    assert len(report["turns"]) >= 3 and len(report["transcript"]) >= 6
    assert report["barge_ins"] == 1 and report["frames"]["held"] > 0
    assert report["took_s"] < MAX_RUN_SECONDS
    for path, rate in zip(report["wavs"], (8_000, 16_000 if name == "pcm" else 8_000), strict=True):
        with wave.open(path) as file:
            assert file.getframerate() == rate and file.getnframes() > 10 * rate


def test_json_needs_once() -> None:
    with pytest.raises(CommandError, match="--once"):
        call_command("demo", "--json")


def test_it_reports_why_the_server_did_not_start() -> None:
    arguments = ("--once", "--json", "--asgi", "voiceai.nowhere:application")
    result = run_command(command_environment(), "demo", *arguments)
    assert result.code != 0 and result.stdout == ""
    assert "The server did not start" in result.stderr and "No module named" in result.stderr


def test_it_uses_the_next_port_if_one_is_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert reserve_port(port) > port
    with pytest.raises(ServerFailed):
        reserve_port(65_536)


def test_a_reserved_port_is_free_for_the_server_only() -> None:
    port = reserve_port()
    others = [socket.socket() for _ in range(2)]
    try:
        for other in others:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        others[0].bind(("127.0.0.1", port))
        others[0].listen()
        with pytest.raises(OSError):
            others[1].bind(("127.0.0.1", port))
        assert reserve_port(port) > port
    finally:
        for other in others:
            other.close()


@pytest.mark.timeout(200)
def test_it_serves_until_ctrl_c_and_leaves_no_process(tmp_path: Path) -> None:
    """Also covers the call dialect with mu-law, which `VARIANTS` omits."""
    database = f"sqlite:///{tmp_path / 'demo.sqlite3'}"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "manage.py", "demo", "--fast", "--listen", "energy"]
        command += ["--port", str(port), "--save", str(tmp_path)]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=command_environment(DATABASE_URL=database, VAPI_AUDIO_FORMAT="mulaw", PYTHONUNBUFFERED="1"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            assert process.stdout is not None
            lines: list[str] = []
            for line in process.stdout:
                lines.append(line)
                if "Ctrl-C stops" in line:
                    break
            output = "".join(lines)
            assert f"Port {port} is in use" in output, output
            assert "call dialect, mu-law" in output, output
            assert re.findall(r"^(passed|FAILED) ", output, re.MULTILINE) == ["passed"] * len(CHECKS), output
            url = re.search(r"Calls: +(\S+)/", output)
            login = re.search(r"Log in as demo with (\S+)", output)
            assert url and login, output
            assert "/calls/1/" in _get_dashboard(url[1], login[1])
            process.send_signal(signal.SIGINT)
            rest, _ = process.communicate(timeout=30)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 0, output + rest
    assert "Traceback" not in output + rest
    assert not _is_listening(int(url[1].rpartition(":")[2]))
    assert (tmp_path / "caller-heard.wav").stat().st_size > 0
    assert "= webhook 200" in (tmp_path / "server.log").read_text()


def _get_dashboard(url: str, password: str) -> str:
    """Log in as the demo's user. Returns the HTML of the dashboard."""
    cookies = CookieJar()
    browser = build_opener(ProxyHandler({}), HTTPCookieProcessor(cookies))
    browser.open(f"{url}/admin/login/", timeout=10).read()
    token = next(cookie.value for cookie in cookies if cookie.name == "csrftoken")
    form = {"username": "demo", "password": password, "csrfmiddlewaretoken": token or "", "next": "/"}
    with browser.open(f"{url}/admin/login/", urlencode(form).encode(), timeout=10) as response:
        assert response.url == f"{url}/"
        return str(response.read().decode())


def _is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
