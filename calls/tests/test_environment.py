"""Reading the environment and `.env`: formats of the file, types of values, spellings of an origin."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from voiceai.environment import Environment, load_file, normalize_origin, parse_file, spellings
from voiceai.settings import open_redis

TEXT = "PUBLIC_URL=https://voice.example.com\r\nVAPI_API_KEY=kéy\r\n"
VALUES = {"PUBLIC_URL": "https://voice.example.com", "VAPI_API_KEY": "kéy"}


def write(folder: Path, data: bytes) -> Path:
    path = folder / ".env"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode(),
        TEXT.replace("\r", "").encode(),
        b"\xef\xbb\xbf" + TEXT.encode(),
        TEXT.encode("utf-16"),
        b"\xfe\xff" + TEXT.encode("utf-16-be"),
        TEXT.replace("\r\n", "\r").encode(),
    ],
    ids=["windows", "unix", "utf-8-bom", "utf-16", "utf-16-be", "old-mac"],
)
def test_it_reads_the_first_and_the_last_variable_of_every_encoding(tmp_path: Path, data: bytes) -> None:
    variables: dict[str, str] = {}
    assert load_file(write(tmp_path, data), variables) == []
    assert variables == VALUES


@pytest.mark.parametrize("data", [TEXT.encode("latin-1"), TEXT.encode("utf-16-le"), b"\x1f\x8b\x08\xff"])
def test_it_names_a_file_that_is_no_utf_8_text(tmp_path: Path, data: bytes) -> None:
    variables: dict[str, str] = {}
    (problem,) = load_file(write(tmp_path, data), variables)
    assert ".env" in problem and "UTF-8" in problem
    assert variables == {}


def test_a_missing_file_is_no_problem_and_a_folder_is_one(tmp_path: Path) -> None:
    assert load_file(tmp_path / ".env", {}) == []
    (tmp_path / ".env").mkdir()
    (problem,) = load_file(tmp_path / ".env", {})
    assert problem.startswith(".env cannot be read")


def test_the_environment_overrides_the_file_even_with_a_blank_value(tmp_path: Path) -> None:
    variables = {"PUBLIC_URL": ""}
    load_file(write(tmp_path, TEXT.encode()), variables)
    assert variables["PUBLIC_URL"] == ""


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("NAME=value", "value"),
        ("  NAME = value  ", "value"),
        ("export NAME=value", "value"),
        ('NAME="two words"', "two words"),
        ("NAME='single # not a comment' # a comment", "single # not a comment"),
        ("NAME=value # a comment", "value"),
        ("NAME=# a comment", ""),
        ("NAME=a#b", "a#b"),
        ("NAME=$ecret=x", "$ecret=x"),
        ("NAME=it's", "it's"),
        ("NAME=", ""),
        ('NAME="A=1 BCD=2"', "A=1 BCD=2"),
        ("\u200bNAME=value\u202c", "value"),
    ],
)
def test_it_reads_one_variable_of_a_line(line: str, value: str) -> None:
    assert parse_file(f"# first\n\n{line}\n") == ({"NAME": value}, [])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            'VAPI_API_KEY="k" VAPI_ASSISTANT_ID="z"',
            "Line 1 of .env contains VAPI_API_KEY and VAPI_ASSISTANT_ID",
        ),
        ("A=1 CD=2", "Line 1 of .env contains A and CD"),
        ("K=a;NAME=b", "Line 1 of .env contains K and NAME"),
        ("AI_DISCLOSURE=Please say PIN=1", "Line 1 of .env contains AI_DISCLOSURE and PIN"),
        ('A="x', "Line 1 of .env: the value of A must be in plain quotes, or in none."),
        ("A='x' y", "Line 1 of .env: the value of A must be in plain quotes, or in none."),
        ("A=“x”", "Line 1 of .env: the value of A must be in plain quotes, or in none."),
        ("A=1\nPUBLIC_URL https://x", "Line 2 of .env must be NAME=value."),
        (
            "VAPI_API_KEY=k VAPI_ASSISTANT_ID=any",
            "Line 1 of .env contains VAPI_API_KEY and VAPI_ASSISTANT_ID",
        ),
        ("PUBLIC-URL=x", "Line 1 of .env must be NAME=value."),
        ("<html>", "Line 1 of .env must be NAME=value."),
    ],
)
def test_it_names_a_line_that_it_cannot_read_and_shows_no_value(text: str, problem: str) -> None:
    _, (found,) = parse_file(text)
    assert found.startswith(problem) and "https" not in found


def test_the_last_value_that_is_not_blank_counts() -> None:
    assert parse_file("A=\nB=1\nA=2\nB=\nB=3\nA=")[0] == {"A": "2", "B": "3"}


@pytest.mark.parametrize(
    ("written", "origin"),
    [
        ("https://Voice.Example.COM", "https://voice.example.com"),
        ("HTTPS://voice.example.com:443/", "https://voice.example.com"),
        ("https://voice.example.com:8443", "https://voice.example.com:8443"),
        ("https://voice.example.com.", "https://voice.example.com"),
        ("https://münchen.example", "https://xn--mnchen-3ya.example"),
        ("https://MÜNCHEN.example:443", "https://xn--mnchen-3ya.example"),
        ("https://例え.テスト", "https://xn--r8jz45g.xn--zckzah"),
        ("http://[::1]:80", "http://[::1]"),
        ("https://voice.example.com/?", "https://voice.example.com"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
    ],
)
def test_an_origin_has_one_spelling(written: str, origin: str) -> None:
    assert normalize_origin(written) == origin
    assert normalize_origin(origin) == origin


@pytest.mark.parametrize(
    "written",
    [
        "voice.example.com", "https://", "https://voice.example.com/path", "https://voice.example.com?x",
        "https://u:secret@voice.example.com", "ftp://voice.example.com", "https://voice.example.com:99999",
        "https://voice.example.com:port", "https://voice example.com", "https://*.example.com", "https://[::1",
        "https://xn--a\u202e.example", "https://a..b.com", "https://-a.com", "https://ex,ample.com",
        "https://<v>.com", "https://v.e.com;a", f"https://{'a' * 64}.com", "https://v.e.com:0",
        f"https://{'é' * 70}.example",
    ],
)  # fmt: skip
def test_anything_else_is_not_an_origin(written: str) -> None:
    with pytest.raises(ValueError, match="must be an origin") as caught:
        normalize_origin(written)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("written", "also"),
    [
        ("https://voice.example.com", "https://voice.example.com:443"),
        ("https://Voice.Example.com", "https://Voice.Example.com"),
        ("https://Voice.Example.com:443", "https://voice.example.com"),
        ("https://xn--mnchen-3ya.example", "https://münchen.example"),
        ("https://München.example", "https://münchen.example"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
    ],
)
def test_an_origin_may_be_written_otherwise_at_twilio(written: str, also: str) -> None:
    found = spellings(normalize_origin(written), written)
    assert {normalize_origin(written), written, also} <= set(found)
    assert {normalize_origin(spelling) for spelling in found} == {normalize_origin(written)}


def read(name: str, value: str) -> tuple[Any, list[str]]:
    """A variable as `settings.py` reads it, and the problems."""
    env = Environment({name: value})
    readers: dict[str, Any] = {
        "BOOLEAN": lambda: env.boolean(name),
        "NUMBER": lambda: env.whole_number(name, 10, minimum=1),
        "PRICE": lambda: str(env.price(name, "0.004")),
        "CHOICE": lambda: env.choice(name, ("console", "json"), "console"),
        "REDIS": lambda: env.url(name, ("redis", "rediss", "unix"), check=open_redis),
        "DATABASE": lambda: env.database(name, "sqlite:////tmp/x.sqlite3")["NAME"],
        "OUTBOUND": lambda: env.phone_prefixes(name),
        "HOSTS": lambda: env.hosts(name),
        "ORIGINS": lambda: env.origins(name),
        "VAPI_HOSTS": lambda: env.vapi_hosts(name),
        "SECONDS": lambda: env.whole_number(name, 1800, minimum=1, maximum=14_400),
    }
    return readers[name](), env.problems


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("BOOLEAN", "ON", True), ("BOOLEAN", "yes", True), ("BOOLEAN", "0", False), ("BOOLEAN", " ", False),
        ("NUMBER", "42", 42), ("NUMBER", "\u200b42\u00a0", 42), ("NUMBER", "", 10),
        ("PRICE", "0", "0"), ("CHOICE", "JSON", "json"),
        ("REDIS", "rediss://:p@host:6380/1", "rediss://:p@host:6380/1"),
        ("REDIS", "unix:///run/r.sock", "unix:///run/r.sock"),
        ("DATABASE", "postgres://u:p%40@db:5433/calls", "calls"),
        ("DATABASE", "postgresql://db/calls", "calls"),
        ("DATABASE", "sqlite:///rows.db", "rows.db"), ("DATABASE", "sqlite:////tmp/rows.db", "/tmp/rows.db"),
        ("HOSTS", "A.example.com, .b.example.com,*,[::1],münchen.example",
         ["a.example.com", ".b.example.com", "*", "[::1]", "xn--mnchen-3ya.example"]),
        ("ORIGINS", "https://A.example.com:443,https://*.b.example.com",
         ["https://a.example.com", "https://*.b.example.com"]),
        ("VAPI_HOSTS", "api.vapi.ai,*.vapi.ai,127.0.0.1,::1,ws://sandbox:9100,http://[::1]:9100/",
         ["api.vapi.ai", "*.vapi.ai", "127.0.0.1", "::1", "ws://sandbox:9100", "http://[::1]:9100/"]),
        ("SECONDS", "14400", 14_400),
    ],
)  # fmt: skip
def test_it_reads_a_value_by_its_type(name: str, value: str, expected: object) -> None:
    assert read(name, value) == (expected, [])


@pytest.mark.parametrize(
    ("name", "value", "default"),
    [
        ("BOOLEAN", "flase", False), ("BOOLEAN", "on # debug", False),
        ("NUMBER", "ten", 10), ("NUMBER", "0", 10), ("NUMBER", "1e3", 10),
        ("NUMBER", "1_000", 10), ("NUMBER", "١٢", 10), ("NUMBER", "99999999999", 10),
        ("PRICE", "0,004", "0.004"), ("PRICE", "NaN", "0.004"), ("PRICE", "-1", "0.004"),
        ("CHOICE", "yaml", "console"),
        ("REDIS", "redis://127.0.0.1/0?socket_timeout=abc", ""), ("REDIS", "redis://127.0.0.1/0?no=1", ""),
        ("DATABASE", "sqlite:////tmp/a.db?foo=bar", "/tmp/x.sqlite3"),
        ("DATABASE", "sqlite:////tmp/a.db?timeout=abc", "/tmp/x.sqlite3"),
        ("DATABASE", "postgres://u@db/calls?foo=bar", "/tmp/x.sqlite3"),
        ("OUTBOUND", "abc", []), ("OUTBOUND", "4420", []),
        ("REDIS", "nonsense", ""), ("REDIS", "http://secret@host", ""), ("REDIS", "redis://", ""),
        ("REDIS", "redis://:secret@host:99999", ""),
        ("DATABASE", "nonsense", "/tmp/x.sqlite3"),
        ("DATABASE", "mysql://u:secret@db/calls", "/tmp/x.sqlite3"),
        ("DATABASE", "postgres://u:secret@db:port/calls", "/tmp/x.sqlite3"),
        ("DATABASE", "postgres://u:secret@db:99999/calls", "/tmp/x.sqlite3"),
        ("DATABASE", "postgres://u:secret@db", "/tmp/x.sqlite3"),
        ("HOSTS", "https://a.example.com", []), ("HOSTS", "a.example.com:8000", []),
        ("VAPI_HOSTS", "ws://[sandbox", []), ("VAPI_HOSTS", "ws://sandbox:99999", []),
        ("VAPI_HOSTS", "api.vapi.ai:443", []), ("VAPI_HOSTS", "https://api.vapi.ai/call", []),
        ("VAPI_HOSTS", "ftp://api.vapi.ai", []), ("VAPI_HOSTS", "ws://u:secret@sandbox", []),
        ("VAPI_HOSTS", "api vapi.ai", []), ("VAPI_HOSTS", "https://", []), ("VAPI_HOSTS", "*", []),
        ("SECONDS", "14401", 1800), ("SECONDS", "0", 1800),
        ("ORIGINS", "a.example.com", []), ("ORIGINS", "https://a.example.com/x", []),
    ],
)  # fmt: skip
def test_a_wrong_value_is_a_problem_that_names_the_variable(name: str, value: str, default: object) -> None:
    result, (problem,) = read(name, value)
    assert result == default
    assert problem.startswith(name) and "secret" not in problem and "\n" not in problem


def test_all_problems_are_raised_together() -> None:
    env = Environment({"A": "x", "B": "y"}, ["Line 3 of .env must be NAME=value."])
    env.whole_number("A", 1)
    env.boolean("B")
    with pytest.raises(ImproperlyConfigured) as caught:
        env.raise_problems()
    assert [line.partition(" ")[0] for line in str(caught.value).splitlines()] == ["Line", "A", "B"]


def test_every_setting_is_in_the_example_the_readme_and_the_compose_file() -> None:
    folder = Path(settings.BASE_DIR)
    named = set(settings.ENVIRONMENT_NAMES)
    example = set(parse_file((folder / ".env.example").read_text())[0])
    table = "\n".join(
        line.split("|")[1]
        for line in (folder / "README.md").read_text().splitlines()
        if line.startswith("| `")
    )
    readme = set(re.findall(r"`([A-Z][A-Z_]+)`", table))
    compose = dict(re.findall(r"^    ([A-Z_]+): (.*)$", (folder / "docker-compose.yml").read_text(), re.M))
    assert example == named
    assert readme == named
    assert set(compose) >= named
    # Of all others, a value in .env reaches the container.
    fixed = {name for name in named if f"${{{name}:-" not in compose[name]}
    assert fixed == {"DJANGO_DEBUG", "DATABASE_URL", "REDIS_URL"}
