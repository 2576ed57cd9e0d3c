"""Reads the environment and `.env`: each variable by its type, with all problems in one list.

A value that can never be right does not raise where it is read: it becomes a line in `Environment.problems`,
and the default applies. `settings.py` ends with `raise_problems()`, so that one run names every wrong
variable. `manage.py doctor` tolerates the problems, and reports them together with all that it checks.
"""

from __future__ import annotations

import codecs
import contextlib
import re
import sqlite3
from collections.abc import Callable, Collection, Mapping, MutableMapping
from decimal import Decimal, InvalidOperation
from ipaddress import IPv6Address, ip_network
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import environ
import idna
from django.core.exceptions import ImproperlyConfigured
from psycopg import ProgrammingError
from psycopg.conninfo import make_conninfo

TRUE, FALSE = ("on", "true", "yes", "1"), ("off", "false", "no", "0")
DEFAULT_PORTS = {"http": 80, "https": 443}
VAPI_SCHEMES = ("http", "https", "ws", "wss")
DATABASE_SCHEMES = ("postgres", "postgresql", "sqlite")
MAX_NUMBER = 1_000_000_000
# What copying from a web page or a chat adds at the ends of a value, and nobody sees: a byte order mark,
# zero-width characters, marks of the writing direction.
INVISIBLE = "\ufeff\u200b\u200c\u200d\u200e\u200f\u2060\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_ENDS = re.compile(rf"^[\s{INVISIBLE}]+|[\s{INVISIBLE}]+$")
_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")
_QUOTED = re.compile(r"""(?:"([^"]*)"|'([^']*)')(?:\s+#.*)?""")
_QUOTES = "\"'“”„‘’«»"  # the typographic ones come from word processors
_NEXT_PAIR = re.compile(r"(?:\s+|;\s*(?=[A-Z_]{2}))([A-Za-z_][A-Za-z0-9_]*)=")
_HOST = re.compile(r"(?=.{1,253}$)(?:(?!-)[a-z0-9_-]{1,63}(?<!-)\.)*(?!-)[a-z0-9_-]{1,63}(?<!-)")
_PHONE_PREFIX = re.compile(r"\+[0-9]{1,15}")
_ENCODINGS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip

T = TypeVar("T")

_is_tolerant = False


def tolerate_problems() -> None:
    """From now on, problems are listed in the settings and do not stop this process. For the doctor."""
    global _is_tolerant
    _is_tolerant = True


class Environment:
    """The variables of one process. A blank one, such as `REDIS_URL=`, counts as not set."""

    def __init__(self, variables: Mapping[str, str], problems: Collection[str] = ()) -> None:
        stripped = {name: _ENDS.sub("", value) for name, value in variables.items()}
        self._values = {name: value for name, value in stripped.items() if value}
        self.problems = list(problems)
        self.names: set[str] = set()  # the variables that were asked for

    def raise_problems(self) -> None:
        """Raise `ImproperlyConfigured` with a line for each problem, unless they are tolerated."""
        if self.problems and not _is_tolerant:
            raise ImproperlyConfigured("\n".join(self.problems))

    def text(self, name: str, default: str = "") -> str:
        """A value as written."""
        self.names.add(name)
        return self._values.get(name, default)

    def items(self, name: str, default: str = "") -> list[str]:
        """The items of a comma-separated value, without spaces around them and without empty ones."""
        items = (_ENDS.sub("", item) for item in self.text(name, default).split(","))
        return [item for item in items if item]

    def boolean(self, name: str, *, default: bool = False) -> bool:
        def parse(text: str) -> bool:
            if text.lower() not in TRUE + FALSE:
                raise ValueError(f"{name} must be on or off, not {text!r}.")
            return text.lower() in TRUE

        return self._parse(name, parse, default)

    def choice(self, name: str, choices: tuple[str, ...], default: str) -> str:
        def parse(text: str) -> str:
            if text.lower() not in choices:
                raise ValueError(f"{name} must be {' or '.join(choices)}, not {text!r}.")
            return text.lower()

        return self._parse(name, parse, default)

    def whole_number(self, name: str, default: int, *, minimum: int = 0, maximum: int = MAX_NUMBER) -> int:
        def parse(text: str) -> int:
            if not re.fullmatch(r"-?[0-9]{1,18}", text):
                raise ValueError(f"{name} must be a whole number, not {text!r}.")
            value = int(text)
            if not minimum <= value <= maximum:
                raise ValueError(f"{name} must be from {minimum} to {maximum}, not {value}.")
            return value

        return self._parse(name, parse, default)

    def price(self, name: str, default: str) -> Decimal:
        """An amount in dollars, from 0 to 100."""

        def parse(text: str) -> Decimal:
            try:
                value = Decimal(text)
            except InvalidOperation:
                raise ValueError(
                    f"{name} must be an amount in dollars such as {default}, not {text!r}."
                ) from None
            if not value.is_finite() or not 0 <= value < 100:
                raise ValueError(f"{name} must be between 0 and 100 dollars, not {text}.")
            return value

        return self._parse(name, parse, Decimal(default))

    def url(
        self,
        name: str,
        schemes: tuple[str, ...],
        default: str = "",
        *,
        check: Callable[[str], object] | None = None,
    ) -> str:
        """A URL as written, which `check` accepts: otherwise it raises `ValueError` or `TypeError`.

        The value is never part of a problem: it may contain a password.
        """

        def parse(text: str) -> str:
            if not _is_url(text, schemes):
                raise ValueError(f"{name} must be a URL that begins with {_or(schemes)}.")
            try:
                if check is not None:
                    check(text)
            except (ValueError, TypeError):
                raise ValueError(f"{name} has an option that is not known or not valid.") from None
            return text

        return self._parse(name, parse, default)

    def origin(self, name: str, default: str, *, plain_http_hosts: Collection[str]) -> str:
        """An origin as `normalize_origin` writes it. Plain http is allowed for these hosts only."""

        def parse(text: str) -> str:
            try:
                origin = normalize_origin(text)
            except ValueError as error:
                raise ValueError(f"{name} {error}") from None
            parts = urlsplit(origin)
            if parts.scheme == "http" and parts.hostname not in plain_http_hosts:
                raise ValueError(
                    f"{name} must be an https address, not {text!r}. Plain http is allowed on loopback and "
                    "in the development compose file only."
                )
            return origin

        return self._parse(name, parse, default)

    def origins(self, name: str) -> list[str]:
        """Comma-separated origins. A host may begin with `*.`."""

        def parse(text: str) -> str:
            try:
                return normalize_origin(text, allow_wildcard=True)
            except ValueError as error:
                raise ValueError(f"{name}: each item {error}") from None

        return self._parse_items(name, parse)

    def hosts(self, name: str) -> list[str]:
        """Comma-separated host names, as `ALLOWED_HOSTS` has them: `.example.com` includes subdomains."""

        def parse(text: str) -> str:
            if "/" in text or re.search(r"[^\]]:\d+$", text):
                raise ValueError(
                    f"{name}: {text!r} must be a host name, without https:// and without a port."
                )
            if text == "*" or text.startswith("["):
                return text
            try:
                return ("." if text.startswith(".") else "") + normalize_host(text.removeprefix("."))
            except ValueError:
                raise ValueError(f"{name}: {text!r} is not a host name.") from None

        return self._parse_items(name, parse)

    def vapi_hosts(self, name: str) -> list[str]:
        """Comma-separated entries for `bridge.allowed_hosts`, such as `*.vapi.ai` and `ws://sandbox:9100`."""

        def parse(text: str) -> str:
            try:
                if "://" in text:
                    parts = urlsplit(text.lower())
                    is_origin = parts.scheme in VAPI_SCHEMES and parts.port != 0
                    if not is_origin or parts.path.strip("/") or parts.query or "@" in parts.netloc:
                        raise ValueError
                    normalize_host(parts.hostname or "")
                elif text != "::1":
                    normalize_host(text.removeprefix("*."))
            except ValueError:
                raise ValueError(
                    f"{name}: {_without_password(text)!r} must be a host such as *.vapi.ai, or "
                    "an origin such as ws://sandbox:9100."
                ) from None
            return text

        return self._parse_items(name, parse)

    def networks(self, name: str) -> list[str]:
        """Comma-separated IP addresses or networks, such as `10.0.0.0/8`."""

        def parse(text: str) -> str:
            try:
                return str(ip_network(text))
            except ValueError:
                raise ValueError(
                    f"{name}: {text!r} must be an IP address or a network such as 10.0.0.0/8."
                ) from None

        return self._parse_items(name, parse)

    def database(self, name: str, default: str) -> dict[str, Any]:
        """Django's configuration of a database, from its URL."""

        def parse(text: str) -> dict[str, Any]:
            scheme = text.partition(":")[0].lower()
            config: dict[str, Any] = {}
            with contextlib.suppress(ValueError, ImproperlyConfigured):
                if scheme in DATABASE_SCHEMES:
                    config = environ.Env.db_url_config(text)
            if not config.get("NAME") or int(config.get("PORT") or 0) > 65535:
                # Without the value, which contains a password.
                raise ValueError(f"{name} must be postgres://user:password@host:5432/name or sqlite:///path.")
            if not _are_options(config["ENGINE"], config.get("OPTIONS", {})):
                raise ValueError(f"{name} has an option that is not known or not valid.")
            return config

        return self._parse(name, parse, parse(default))

    def phone_prefixes(self, name: str) -> list[str]:
        """Comma-separated phone numbers or their first digits, with + and the country code."""

        def parse(text: str) -> str:
            if not _PHONE_PREFIX.fullmatch(text):
                raise ValueError(f"{name}: {text!r} must be + and digits, such as +4420 or +15551234567.")
            return text

        return self._parse_items(name, parse)

    def _parse(self, name: str, parse: Callable[[str], T], default: T) -> T:
        text = self.text(name)
        if not text:
            return default
        try:
            return parse(text)
        except ValueError as error:
            self.problems.append(str(error))
            return default

    def _parse_items(self, name: str, parse: Callable[[str], str]) -> list[str]:
        parsed = []
        for item in self.items(name):
            try:
                parsed.append(parse(item))
            except ValueError as error:
                self.problems.append(str(error))
        return parsed


def normalize_origin(text: str, *, allow_wildcard: bool = False) -> str:
    """An origin as browsers write it: lower case, no default port, an international name in ASCII.

    Raises `ValueError`, whose message continues a sentence that begins with the setting's name.
    """
    expected = "must be an origin such as https://voice.example.com, without a path or credentials"
    try:
        parts = urlsplit(text.rstrip("/?#"))
        host, port = parts.hostname or "", parts.port
        has_more = bool(parts.path or parts.query or parts.fragment or parts.username or parts.password)
        wildcard = "*." if allow_wildcard and host.startswith("*.") else ""
        host = wildcard + normalize_host(host.removeprefix(wildcard))
    except ValueError:
        raise ValueError(f"{expected}, not {_without_password(text)!r}.") from None
    if parts.scheme not in DEFAULT_PORTS or has_more or port == 0:
        raise ValueError(f"{expected}, not {_without_password(text)!r}.")
    suffix = "" if port in (None, DEFAULT_PORTS[parts.scheme]) else f":{port}"
    return urlunsplit((parts.scheme, bracketed(host) + suffix, "", "", ""))


def normalize_host(host: str) -> str:
    """A host name in lower case and ASCII. Raises `ValueError` if it is none."""
    host = host.lower().rstrip(".")
    if ":" in host:
        return str(IPv6Address(host))
    if not host.isascii():
        host = idna.encode(host, uts46=True).decode()  # IDNAError is a ValueError
    if not _HOST.fullmatch(host):
        raise ValueError
    return host


def spellings(origin: str, written: str) -> tuple[str, ...]:
    """The ways in which a normalized origin may be written elsewhere, such as in Twilio's console."""
    parts = urlsplit(origin)
    found = [origin, written.rstrip("/"), written.rstrip("/").lower()]
    if parts.port is None and parts.scheme in DEFAULT_PORTS:
        found.append(f"{origin}:{DEFAULT_PORTS[parts.scheme]}")
    if "xn--" in parts.netloc:
        with contextlib.suppress(ValueError):
            found.append(origin.replace(parts.hostname or "", idna.decode(parts.hostname or "")))
    return tuple(dict.fromkeys(filter(None, found)))


def bracketed(host: str) -> str:
    """The host as it is written in URLs and in the Host header: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def load_file(path: Path, variables: MutableMapping[str, str]) -> list[str]:
    """Add the variables of a `.env` file to those that are not there yet. Returns what is wrong with it."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        return [f"{path.name} cannot be read: {error.strerror}."]
    try:
        text = data.decode(next((name for bom, name in _ENCODINGS if data.startswith(bom)), "utf-8"))
    except UnicodeDecodeError:
        return [f"{path.name} is not a UTF-8 text file. Save it as UTF-8."]
    if "\0" in text:
        return [f"{path.name} is not a UTF-8 text file. Save it as UTF-8."]
    values, problems = parse_file(text, path.name)
    for name, value in values.items():
        variables.setdefault(name, value)
    return problems


def parse_file(text: str, file_name: str = ".env") -> tuple[dict[str, str], list[str]]:
    """The variables of a `.env` file, and a problem for each line that is not `NAME=value`.

    Of a name that appears more than once, the last value that is not blank counts: the example file has each
    name with a blank value, and others are pasted below. A value may be quoted. Outside quotes a comment
    begins with a blank and `#`.
    """
    values: dict[str, str] = {}
    problems: list[str] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = _ENDS.sub("", raw)
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            problems.append(f"Line {number} of {file_name} must be NAME=value.")
            continue
        name, value = match.groups()
        if quoted := _QUOTED.fullmatch(value):
            value = quoted[1] or quoted[2] or ""
        else:
            value = re.split(r"(?:^|\s)#", value, maxsplit=1)[0].strip()
            if other := _NEXT_PAIR.search(value):
                problems.append(
                    f"Line {number} of {file_name} contains {name} and {other[1]}: write one on each line, "
                    "or put the value in quotes."
                )
                continue
            if value and value[0] in _QUOTES:
                problems.append(
                    f"Line {number} of {file_name}: the value of {name} must be in plain quotes, or in none."
                )
                continue
        if value or name not in values:
            values[name] = value
    return values, problems


def _is_url(text: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(text)
        has_place = bool(parts.hostname) or (parts.scheme == "unix" and bool(parts.path))
        return parts.scheme in schemes and has_place and (parts.port or 1) > 0 and not re.search(r"\s", text)
    except ValueError:
        return False


def _are_options(engine: str, options: Mapping[str, Any]) -> bool:
    """Whether the database's driver knows these connection options. Opens no connection."""
    try:
        if engine.endswith("sqlite3"):
            sqlite3.connect(":memory:", **options).close()
        else:
            make_conninfo(**options)
    except (TypeError, ValueError, ProgrammingError, sqlite3.Error):
        return False
    return True


def _or(schemes: tuple[str, ...]) -> str:
    return " or ".join(f"{scheme}://" for scheme in schemes)


def _without_password(text: str) -> str:
    return re.sub(r"//[^/@]*@", "//***@", text)
