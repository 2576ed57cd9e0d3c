"""The settings module, executed anew for each environment, and the system checks."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from typing import Any

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.test import SimpleTestCase, override_settings

from calls.apps import check_deployment, check_settings
from calls.requirements import refuse_to_start
from calls.tests.commands import read_settings
from voiceai.bridge_settings import bridge_config
from voiceai.logs import ConsoleLine, JsonLine

PRINT_SETTINGS = """
import json, voiceai.settings as s
names = ("DEBUG", "SECRET_KEY", "SECRET_KEY_IS_SET", "PUBLIC_URL", "ALLOWED_HOSTS", "CSRF_TRUSTED_ORIGINS")
names += ("VAPI_AUDIO_FORMAT", "TWILIO_AUTH_TOKENS", "DATABASES", "CHANNEL_LAYERS", "CACHES")
names += ("SESSION_COOKIE_SECURE", "AI_DISCLOSURE", "AI_DISCLOSURE_LINE")
print(json.dumps({name: getattr(s, name) for name in names}))
"""


def make_environment(variables: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")} | variables


def read(**variables: str) -> Any:
    """The settings with this environment, or the error with its type."""
    try:
        return read_settings(make_environment(variables))
    except ImproperlyConfigured as error:
        return f"{type(error).__name__}: {error}"


def read_in_a_process(**variables: str) -> Any:
    """The settings as a fresh process with this environment reads them."""
    result = subprocess.run(
        [sys.executable, "-c", PRINT_SETTINGS],
        capture_output=True,
        text=True,
        env=make_environment(variables),
        cwd=settings.BASE_DIR,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.slow
def test_an_invalid_setting_stops_the_process_with_an_error_that_names_it() -> None:
    result = subprocess.run(
        [sys.executable, "-c", PRINT_SETTINGS],
        cwd=settings.BASE_DIR, env=make_environment({"LOG_FORMAT": "yaml"}),
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    last = result.stderr.strip().splitlines()[-1]
    assert result.returncode != 0 and "ImproperlyConfigured" in last and "LOG_FORMAT" in last


def test_it_runs_without_any_variable() -> None:
    values = read(REDIS_URL="", DATABASE_URL=" ", DJANGO_SECRET_KEY="")
    assert (values["DEBUG"], values["SECRET_KEY_IS_SET"]) == (False, False)
    assert values["DATABASES"]["default"]["NAME"].endswith("var/db.sqlite3")
    assert values["DATABASES"]["default"]["OPTIONS"]["transaction_mode"] == "IMMEDIATE"
    assert "InMemory" in values["CHANNEL_LAYERS"]["default"]["BACKEND"]
    assert values["VAPI_AUDIO_FORMAT"] == "pcm_s16le"
    assert values["SESSION_COOKIE_SECURE"] is False


@pytest.mark.parametrize(
    ("value", "expected"),
    [("", "You are speaking with an AI assistant."), ("A machine.", "A machine."), ("Off", ""), ("off", "")],
)
def test_the_disclosure_has_a_default_and_can_be_off(value: str, expected: str) -> None:
    values = read(AI_DISCLOSURE=value)
    assert values["AI_DISCLOSURE"] == expected
    assert values["AI_DISCLOSURE_LINE"] == "You are speaking with an AI assistant."


@pytest.mark.parametrize("value", ["free", "NaN", "-0.004", "100", "0,004"])
def test_it_rejects_an_invalid_price_by_name(value: str) -> None:
    assert "TWILIO_STREAM_PRICE_PER_MINUTE" in read(TWILIO_STREAM_PRICE_PER_MINUTE=value)


@pytest.mark.slow
def test_it_reads_a_production_environment() -> None:
    values = read_in_a_process(
        DJANGO_SECRET_KEY="$ecret",
        PUBLIC_URL="https://voice.example.com/",
        ALLOWED_HOSTS="a.example.com, b.example.com",
        DATABASE_URL="postgres://u:p%40ss@db:5433/calls",
        REDIS_URL="redis://redis:6379/0",
        TWILIO_AUTH_TOKEN="new, old",
        VAPI_SOCKET_URL="wss://agent.example.com/ws",
    )
    assert (values["SECRET_KEY"], values["SECRET_KEY_IS_SET"]) == ("$ecret", True)
    assert values["PUBLIC_URL"] == "https://voice.example.com"
    assert {"a.example.com", "voice.example.com", "127.0.0.1"} <= set(values["ALLOWED_HOSTS"])
    assert "https://voice.example.com" in values["CSRF_TRUSTED_ORIGINS"]
    database = values["DATABASES"]["default"]
    assert (database["HOST"], database["PORT"], database["PASSWORD"], database["CONN_MAX_AGE"]) == (
        "db",
        5433,
        "p@ss",
        0,
    )
    assert database["OPTIONS"]["pool"]["max_size"] == 10
    assert values["CHANNEL_LAYERS"]["default"]["CONFIG"]["hosts"][0]["socket_timeout"] is None
    assert values["TWILIO_AUTH_TOKENS"] == ["new", "old"]
    assert values["VAPI_AUDIO_FORMAT"] == "mulaw"
    assert values["SESSION_COOKIE_SECURE"] is True


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9000", "http://web:8000", "http://sandbox:9100", "http://[::1]:8000"]
)
def test_plain_http_is_allowed_on_loopback_and_in_compose(url: str) -> None:
    assert read(PUBLIC_URL=url)["PUBLIC_URL"] == url


@pytest.mark.parametrize(
    ("written", "origin", "host"),
    [
        ("https://Voice.Example.com", "https://voice.example.com", "voice.example.com"),
        ("https://voice.example.com:443/", "https://voice.example.com", "voice.example.com"),
        ("https://voice.example.com:8443", "https://voice.example.com:8443", "voice.example.com"),
        ("https://münchen.example", "https://xn--mnchen-3ya.example", "xn--mnchen-3ya.example"),
        ("https://[2001:DB8::1]", "https://[2001:db8::1]", "[2001:db8::1]"),
    ],
)
def test_pages_open_at_the_public_url_in_every_spelling(written: str, origin: str, host: str) -> None:
    values = read(PUBLIC_URL=written)
    assert values["PUBLIC_URL"] == origin
    assert values["PUBLIC_URL_AS_WRITTEN"] == written.rstrip("/")
    assert host in values["ALLOWED_HOSTS"]
    assert origin in values["CSRF_TRUSTED_ORIGINS"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PUBLIC_URL", "http://voice.example.com"),
        ("PUBLIC_URL", "https://voice.example.com/path"),
        ("PUBLIC_URL", "https://user@voice.example.com"),
        ("PUBLIC_URL", "voice.example.com"),
        ("PUBLIC_URL", "https://voice.example.com:port"),
        ("MAX_CONCURRENT_CALLS", "0"),
        ("MAX_CALL_SECONDS", "ten"),
        ("VAPI_AUDIO_FORMAT", "opus"),
        ("LOG_FORMAT", "yaml"),
    ],
)
def test_it_rejects_an_invalid_value_by_name(name: str, value: str) -> None:
    error = read(**{name: value})
    assert isinstance(error, str)
    assert "ImproperlyConfigured" in error and name in error


class CheckTests(SimpleTestCase):
    @override_settings(DEBUG=False, SECRET_KEY_IS_SET=False, TWILIO_AUTH_TOKENS=[])
    def test_a_deployment_without_secrets_is_an_error_with_a_hint(self) -> None:
        messages = check_deployment(None)
        self.assertEqual([message.id for message in messages], ["voiceai.E001", "voiceai.E002"])
        self.assertTrue(all(message.hint for message in messages))

    @override_settings(DEBUG=False, SECRET_KEY_IS_SET=False, TWILIO_AUTH_TOKENS=[])
    def test_a_server_without_secrets_refuses_to_start(self) -> None:
        with self.assertRaisesMessage(
            ImproperlyConfigured, "DJANGO_SECRET_KEY and TWILIO_AUTH_TOKEN must be"
        ):
            refuse_to_start()

    @override_settings(DEBUG=True, SECRET_KEY_IS_SET=False, TWILIO_AUTH_TOKENS=[])
    def test_debug_needs_no_secrets(self) -> None:
        refuse_to_start()
        self.assertEqual(check_deployment(None), [])
        self.assertTrue(bridge_config().allow_unsigned)

    @override_settings(
        VAPI_SOCKET_URL="wss://a.example.com",
        VAPI_AUDIO_FORMAT="pcm_s16le",
        TWILIO_ACCOUNT_SID="SK1",
        VAPI_ENDPOINTING_MS=100,
    )
    def test_settings_that_do_not_fit_together_are_warnings(self) -> None:
        self.assertEqual(
            [m.id for m in check_settings(None)], ["voiceai.W001", "voiceai.W003", "voiceai.W004"]
        )

    @override_settings(VAPI_SOCKET_URL="", VAPI_API_KEY="key", VAPI_ASSISTANT_ID="")
    def test_a_key_without_an_assistant_is_a_warning(self) -> None:
        self.assertEqual([m.id for m in check_settings(None)], ["voiceai.W002"])

    @override_settings(TWILIO_AUTH_TOKENS=["a", "b"], DEBUG=True, VAPI_AUDIO_FORMAT="mulaw")
    def test_the_bridge_gets_its_values_from_the_settings(self) -> None:
        config = bridge_config()
        self.assertEqual(config.twilio_auth_tokens, ("a", "b"))
        self.assertFalse(config.allow_unsigned)
        self.assertEqual(config.vapi_audio_format, "mulaw")
        self.assertEqual(config.ticket_secret, settings.SECRET_KEY)


class LogTests(SimpleTestCase):
    def record(self, message: str) -> logging.LogRecord:
        try:
            raise ValueError("broken\nline")
        except ValueError:
            return logging.LogRecord("calls", logging.WARNING, "f", 1, message, (), sys.exc_info())

    def test_a_message_cannot_forge_a_second_line(self) -> None:
        first, *trace = ConsoleLine().format(self.record("evil\n12:00 I calls fine\ud800")).split("\n")
        self.assertIn(r"W calls evil\n12:00 I calls fine\ud800", first)
        self.assertTrue(all(line.startswith("  | ") for line in trace))

    def test_json_is_one_object_per_line(self) -> None:
        line = JsonLine().format(self.record("evil\n"))
        self.assertNotIn("\n", line)
        facts = json.loads(line)
        self.assertEqual((facts["level"], facts["message"], facts["logger"]), ("warning", "evil\n", "calls"))
        self.assertIn("ValueError", facts["trace"])
