"""All settings, read once from the environment, and from `.env` next to `manage.py` if it exists.

A fresh checkout runs without any variable set: SQLite, the in-memory channel layer, no keys.
What a server needs before it takes real calls is checked in `calls/requirements.py`, so that `migrate` and
other commands run anywhere. A value that can never be right raises `ImproperlyConfigured`, at the end of this
module, together with all others.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.core.management.utils import get_random_secret_key
from django.templatetags.static import static
from django.urls import reverse_lazy
from redis import Redis

from calls.twilio import sentences, voices
from voiceai import find_release
from voiceai.environment import Environment, bracketed, load_file, spellings

BASE_DIR = Path(__file__).resolve().parent.parent
VAR_DIR = BASE_DIR / "var"

# Tests, and the processes that they start, read no file: their result must not depend on it.
_file_problems = [] if "PYTEST_VERSION" in os.environ else load_file(BASE_DIR / ".env", os.environ)
env = Environment(os.environ, _file_problems)

# --- Django ---------------------------------------------------------------------------------------

DEBUG = env.boolean("DJANGO_DEBUG")

SECRET_KEY_IS_SET = bool(env.text("DJANGO_SECRET_KEY"))
# Without a key, and with debug off, each process makes its own. That is enough for `migrate`. Another process
# cannot read its sessions and tickets, so a server refuses to start.
SECRET_KEY = env.text("DJANGO_SECRET_KEY") or (
    "insecure-key-for-development-only-do-not-use-elsewhere" if DEBUG else get_random_secret_key()
)

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")
COMPOSE_HOSTS = ("web", "sandbox")  # services of the development compose file; never public host names

# Hosts, origins and TwiML use the normalized spelling. Twilio signs the URL as its console has it, which may
# be the other.
PUBLIC_URL_AS_WRITTEN = env.text("PUBLIC_URL").rstrip("/")
PUBLIC_URL = env.origin(
    "PUBLIC_URL", "http://127.0.0.1:8000", plain_http_hosts=LOOPBACK_HOSTS + COMPOSE_HOSTS
)
PUBLIC_URL_SPELLINGS = spellings(PUBLIC_URL, PUBLIC_URL_AS_WRITTEN)
_public = urlsplit(PUBLIC_URL)
_public_host = bracketed(_public.hostname or "")

ALLOWED_HOSTS = list(
    dict.fromkeys([*env.hosts("ALLOWED_HOSTS"), _public_host, "localhost", "127.0.0.1", "[::1]"])
)
CSRF_TRUSTED_ORIGINS = list(dict.fromkeys([*env.origins("CSRF_TRUSTED_ORIGINS"), PUBLIC_URL]))

INSTALLED_APPS = [
    "calls",  # before Daphne, whose `runserver` it extends
    "daphne",  # before the static files, whose `runserver` it replaces by an ASGI server
    "unfold",  # before the admin, because it overrides its templates
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "bridge",
    "sandbox",
]

MIDDLEWARE = [
    # First, so that webhooks bypass all others: see its docstring.
    "calls.middleware.WebhookBypassMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "csp.middleware.CSPMiddleware",
    "calls.middleware.StaticFiles",
    "calls.middleware.ViewerTimeZone",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "voiceai.urls"
ASGI_APPLICATION = "voiceai.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
LOGIN_URL = "admin:login"
CSRF_FAILURE_VIEW = "calls.staff.pages.csrf_failure"
LOGIN_REDIRECT_URL = "dashboard"

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_I18N = True
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Secure cookies only with an https PUBLIC_URL: over http on loopback, staff could not log in with them.
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _public.scheme == "https"
SESSION_COOKIE_HTTPONLY = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        # Only for Alpine.js in the admin theme, which evaluates expressions in HTML attributes.
        "script-src": ["'self'", "'unsafe-eval'"],
        # The admin theme writes colors into a style element, and positions into style attributes.
        "style-src": ["'self'", "'unsafe-inline'"],
        "img-src": ["'self'", "data:"],
        "object-src": ["'none'"],
        "base-uri": ["'none'"],
        "form-action": ["'self'"],
        "frame-ancestors": ["'none'"],
    }
}

# --- Database, Redis and what workers share ---------------------------------------------------------


def database() -> dict[str, Any]:
    """SQLite is enough for one process in production; several processes need PostgreSQL."""
    config: dict[str, Any] = env.database("DATABASE_URL", f"sqlite:///{VAR_DIR / 'db.sqlite3'}")
    options = config.setdefault("OPTIONS", {})
    if config["ENGINE"] == "django.db.backends.sqlite3":
        if config["NAME"] != ":memory:":
            config["NAME"] = str(BASE_DIR / config["NAME"])  # a relative name is relative to the project
            with contextlib.suppress(OSError):  # SQLite reports the missing folder itself
                Path(config["NAME"]).parent.mkdir(parents=True, exist_ok=True)
        options.setdefault("timeout", 5)
        # A deferred transaction that reads and then writes fails immediately, without regard to the timeout,
        # when another connection wrote in between.
        options.setdefault("transaction_mode", "IMMEDIATE")
        options.setdefault("init_command", "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL")
        # Tests use a file, too: with several threads, an in-memory database locks differently.
        config["TEST"] = {"NAME": str(Path(tempfile.gettempdir()) / f"voiceai-test-{os.getpid()}.sqlite3")}
    elif config["ENGINE"] == "django.db.backends.postgresql":
        config["ENGINE"] = "voiceai.postgresql"
        # Under ASGI persistent connections leak, one for each thread that ever ran. The pool does not leak.
        config["CONN_MAX_AGE"] = 0
        options.setdefault("connect_timeout", 3)
        options.setdefault("pool", {"min_size": 0, "max_size": 10, "timeout": 3})
    return config


DATABASES = {"default": database()}


def open_redis(url: str) -> None:
    """Raise `ValueError` or `TypeError` for a wrong option. Opens no connection."""
    Redis.from_url(url).connection_pool.make_connection()


REDIS_URL = env.url("REDIS_URL", ("redis", "rediss", "unix"), check=open_redis)
if REDIS_URL:
    CHANNEL_LAYERS: dict[str, Any] = {
        "default": {
            "BACKEND": "channels_redis.core.RedisChannelLayer",
            # With a socket timeout of 5 s, every consumer that waits longer than that would be closed.
            "CONFIG": {"hosts": [{"address": REDIS_URL, "socket_timeout": None}]},
        }
    }
    CACHES: dict[str, Any] = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": REDIS_URL,
            "OPTIONS": {"socket_timeout": 1, "socket_connect_timeout": 1},
        }
    }
else:
    CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}

# --- Static files ----------------------------------------------------------------------------------

STATIC_URL = "/static/"
WHITENOISE_USE_FINDERS = True  # serves from the installed packages: no collectstatic, no build step
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}

# --- Release: kept with each call ----------------------------------------------------------------------

RELEASE = env.text("RELEASE", find_release(BASE_DIR))[:64]

# --- Twilio and Vapi (`bridge_settings.py` passes these to the bridge) -------------------------------

TWILIO_ACCOUNT_SID = env.text("TWILIO_ACCOUNT_SID")
TWILIO_BASE_URL = env.url(  # or a simulator's
    "TWILIO_BASE_URL", ("https", "http"), "https://api.twilio.com"
).rstrip("/")
TWILIO_AUTH_TOKENS = env.items("TWILIO_AUTH_TOKEN")  # more than one while it is rotated
TWILIO_PHONE_NUMBER = env.text("TWILIO_PHONE_NUMBER")  # the caller ID of outbound calls
# In dollars. Twilio bills media streams separately and reports no price for a single stream, so take it from
# your account's price list.
TWILIO_STREAM_PRICE_PER_MINUTE = env.price("TWILIO_STREAM_PRICE_PER_MINUTE", "0.004")
OUTBOUND_ALLOWED = env.phone_prefixes("OUTBOUND_ALLOWED")  # numbers or prefixes; empty: no outbound calls

VAPI_API_KEY = env.text("VAPI_API_KEY")
VAPI_ASSISTANT_ID = env.text("VAPI_ASSISTANT_ID")
VAPI_BASE_URL = env.url("VAPI_BASE_URL", ("https", "http"), "https://api.vapi.ai").rstrip("/")
VAPI_WEBHOOK_SECRET = env.text("VAPI_WEBHOOK_SECRET")
VAPI_SOCKET_URL = env.url("VAPI_SOCKET_URL", ("wss", "ws"))
# Servers of the socket dialect use mu-law; Vapi's documented transport uses linear PCM at 16 kHz.
VAPI_AUDIO_FORMAT = env.choice(
    "VAPI_AUDIO_FORMAT", ("pcm_s16le", "mulaw"), "mulaw" if VAPI_SOCKET_URL else "pcm_s16le"
)
VAPI_ALLOWED_HOSTS = env.vapi_hosts("VAPI_ALLOWED_HOSTS") or ["api.vapi.ai", "*.vapi.ai"]
VAPI_PING_SECONDS = env.whole_number("VAPI_PING_SECONDS", 10, minimum=1)
VAPI_ENDPOINTING_MS = env.whole_number("VAPI_ENDPOINTING_MS", 300)

MAX_CONCURRENT_CALLS = env.whole_number("MAX_CONCURRENT_CALLS", 50, minimum=1)
MAX_CALL_SECONDS = env.whole_number(
    "MAX_CALL_SECONDS", 1800, minimum=1, maximum=14_400
)  # four hours at Twilio
HOLD_BUFFER_MS = env.whole_number("HOLD_BUFFER_MS", 7000)
# How long running calls may go on after SIGTERM (`./manage.py serve`).
DRAIN_SECONDS = env.whole_number("DRAIN_SECONDS", 30, maximum=14_400)
# HTTP connections of one server process. Websockets are not among them.
MAX_CONNECTIONS = env.whole_number("MAX_CONNECTIONS", 1000, minimum=16)
MAX_CONNECTIONS_PER_ADDRESS = env.whole_number("MAX_CONNECTIONS_PER_ADDRESS", 100, minimum=1)
# Addresses or networks of reverse proxies whose X-Forwarded-For is believed.
TRUSTED_PROXIES = env.networks("TRUSTED_PROXIES")
LATENCY_TARGET_MS = env.whole_number("LATENCY_TARGET_MS", 1200, minimum=1)
# By Vapi. Announce it to callers where the law requires it.
RECORD_CALLS = env.boolean("RECORD_CALLS")
FALLBACK_NUMBER = env.text("FALLBACK_NUMBER")
# How Twilio's voice speaks. Blank: its default, which is en-US.
SAY_LANGUAGE = voices.normalize_language(env.text("SAY_LANGUAGE"))
SAY_VOICE = env.text("SAY_VOICE")
if problem := voices.describe_voice_problem(voices.Voice(SAY_LANGUAGE, SAY_VOICE)):
    env.problems.append(f"SAY_LANGUAGE and SAY_VOICE: {problem}")
    SAY_LANGUAGE = SAY_VOICE = ""
AI_DISCLOSURE_LINE = sentences.DISCLOSURE
AI_DISCLOSURE = env.text("AI_DISCLOSURE", AI_DISCLOSURE_LINE)  # the first thing that callers hear
if AI_DISCLOSURE.lower() == "off":
    AI_DISCLOSURE = ""
JOURNAL_DIR = BASE_DIR / env.text("JOURNAL_DIR", "var/journal")

# --- Logs: one line for each record ------------------------------------------------------------------

LOG_FORMAT = env.choice("LOG_FORMAT", ("console", "json"), "console")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "console": {"()": "voiceai.logs.ConsoleLine"},
        "json": {"()": "voiceai.logs.JsonLine"},
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": LOG_FORMAT}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {
        "bridge": {"level": "INFO"},
        "calls": {"level": "INFO"},
        "sandbox": {"level": "INFO"},
        "voiceai": {"level": "INFO"},
        # Without this, Django's own handlers would log everything a second time.
        "django": {"handlers": [], "level": "INFO", "propagate": True},
        # A warning for each failed attempt; errors of the database are reported where it is used.
        "psycopg.pool": {"level": "ERROR"},
        # Scanners send wrong Host headers and get a 400. A traceback for each would flood the log.
        "django.security.DisallowedHost": {"level": "CRITICAL"},
        "django.server": {"handlers": [], "level": "INFO", "propagate": True},
    },
}

# --- Staff pages ---------------------------------------------------------------------------------------

UNFOLD = {
    "SITE_TITLE": "voiceai",
    "SITE_HEADER": "voiceai",
    "SITE_SUBHEADER": "calls of your voice assistant",
    "SITE_URL": "/",
    "SITE_SYMBOL": "call",
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("calls/favicon.svg")}
    ],
    "SHOW_VIEW_ON_SITE": False,
    "STYLES": [lambda request: static("calls/calls.css")],
    "SCRIPTS": [lambda request: static("calls/page.js")],
    "SIDEBAR": {
        "show_search": False,
        "navigation": [
            {
                "items": [
                    {
                        "title": "Dashboard",
                        "icon": "monitoring",
                        "link": reverse_lazy("dashboard"),
                        # By default an item is active for all paths that begin with its link.
                        "active": lambda request: request.path == "/",
                        "permission": lambda request: request.user.has_perm("calls.view_call"),
                    },
                    {
                        "title": "Calls",
                        "icon": "call",
                        "link": reverse_lazy("call_list"),
                        "active": lambda request: request.path.startswith(("/calls/", "/admin/calls/call/")),
                        "permission": lambda request: request.user.has_perm("calls.view_call"),
                    },
                    {
                        "title": "Numbers",
                        "icon": "dialpad",
                        "link": reverse_lazy("admin:calls_phonenumber_changelist"),
                        "permission": lambda request: request.user.has_perm("calls.view_phonenumber"),
                    },
                    {
                        "title": "Setup",
                        "icon": "stethoscope",
                        "link": reverse_lazy("set_up"),
                        "permission": lambda request: request.user.has_perm("calls.view_call"),
                    },
                    {
                        "title": "Staff",
                        "icon": "group",
                        "link": reverse_lazy("admin:auth_user_changelist"),
                        "permission": lambda request: request.user.has_perm("auth.view_user"),
                    },
                ],
            },
        ],
    },
}

# --- Problems ------------------------------------------------------------------------------------------

ENVIRONMENT_NAMES = frozenset(env.names)
SETTING_PROBLEMS = env.problems
env.raise_problems()
