"""Every setting, read once from the environment (and from `.env` beside `manage.py`, if there is one).

A fresh checkout loads this without any variable set: SQLite, the in-memory channel layer, no keys.
What a server needs before it may take real calls is checked elsewhere (`calls/apps.py`), so that
`migrate` and its like run anywhere. A value that cannot be right stops the process here, by name.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured
from django.core.management.utils import get_random_secret_key
from django.templatetags.static import static
from django.urls import reverse_lazy

BASE_DIR = Path(__file__).resolve().parent.parent
VAR_DIR = BASE_DIR / "var"

environ.Env.read_env(BASE_DIR / ".env")


class Environment(environ.Env):  # type: ignore[misc]
    """The environment as we read it: a blank variable counts as not set, as in `REDIS_URL=` in a `.env`."""

    ENVIRON = {name: value.strip() for name, value in os.environ.items() if value.strip()}


env = Environment()


def words(name: str, default: str = "") -> list[str]:
    """A comma-separated variable, blanks and empty items left out."""
    return [word.strip() for word in env.ENVIRON.get(name, default).split(",") if word.strip()]


def secret(name: str) -> str:
    """A secret exactly as written. `env()` would take a leading `$` for another variable's name."""
    return env.ENVIRON.get(name, "")


def number(name: str, default: int, *, least: int = 0) -> int:
    text = env.ENVIRON.get(name, str(default))
    try:
        value = int(text)
    except ValueError:
        raise ImproperlyConfigured(f"{name} must be a whole number, not {text!r}.") from None
    if value < least:
        raise ImproperlyConfigured(f"{name} must be at least {least}, not {value}.")
    return value


def price(name: str, default: str) -> Decimal:
    text = env.ENVIRON.get(name, default)
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ImproperlyConfigured(f"{name} must be an amount such as {default}, not {text!r}.") from None
    if not value.is_finite() or not 0 <= value < 100:
        raise ImproperlyConfigured(f"{name} must be between 0 and 100 dollars, not {text}.")
    return value


# --- Django ---------------------------------------------------------------------------------------

DEBUG = env.bool("DJANGO_DEBUG", default=False)

SECRET_KEY_IS_SET = bool(secret("DJANGO_SECRET_KEY"))
# Without a key and without debug each process has its own: enough for `migrate`, useless for a
# session or a ticket that another process must read, so a server refuses to start.
SECRET_KEY = secret("DJANGO_SECRET_KEY") or (
    "insecure-key-for-development-only-do-not-use-elsewhere" if DEBUG else get_random_secret_key()
)

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")
COMPOSE_HOSTS = ("web", "sandbox")  # the dev compose file's names; nothing outside can be called so

PUBLIC_URL = env.ENVIRON.get("PUBLIC_URL", "http://127.0.0.1:8000").rstrip("/")
try:
    _public = urlsplit(PUBLIC_URL)
    _public_host = (_public.hostname or "").lower()
    _public_is_origin = bool(_public_host) and not (_public.path or _public.query or _public.fragment)
    _ = _public.port
except ValueError:
    raise ImproperlyConfigured(f"PUBLIC_URL is not a URL: {PUBLIC_URL!r}.") from None
if not _public_is_origin or _public.username or _public.password:
    raise ImproperlyConfigured(
        "PUBLIC_URL must be an origin such as https://voice.example.com, without a path."
    )
if _public.scheme != "https" and not (
    _public.scheme == "http" and _public_host in LOOPBACK_HOSTS + COMPOSE_HOSTS
):
    raise ImproperlyConfigured(
        f"PUBLIC_URL must be https ({PUBLIC_URL!r} is not): Twilio sends calls only there. "
        "Plain http is for loopback and the development compose file."
    )

ALLOWED_HOSTS = list(
    dict.fromkeys([*words("ALLOWED_HOSTS"), _public_host, "localhost", "127.0.0.1", "[::1]"])
)
CSRF_TRUSTED_ORIGINS = list(dict.fromkeys([*words("CSRF_TRUSTED_ORIGINS"), PUBLIC_URL]))

INSTALLED_APPS = [
    "daphne",  # first: it replaces runserver by one that speaks ASGI
    "unfold",  # before the admin, whose templates it overrides
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "calls",
    "bridge",
    "sandbox",
]

MIDDLEWARE = [
    # First, and alone on the path of a webhook: see its docstring.
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
LOGIN_REDIRECT_URL = "dashboard"

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_I18N = True
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Cookies travel over https only where staff come by https; on loopback they could not log in else.
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _public.scheme == "https"
SESSION_COOKIE_HTTPONLY = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        # The admin theme's Alpine evaluates the expressions in its attributes; nothing else needs that.
        "script-src": ["'self'", "'unsafe-eval'"],
        # The theme writes its colours into a style element, and positions into style attributes.
        "style-src": ["'self'", "'unsafe-inline'"],
        "img-src": ["'self'", "data:"],
        "object-src": ["'none'"],
        "base-uri": ["'none'"],
        "form-action": ["'self'"],
        "frame-ancestors": ["'none'"],
    }
}

# --- Rows and what workers share -------------------------------------------------------------------


def database() -> dict[str, Any]:
    """One process with SQLite is a legal production set-up; many want PostgreSQL."""
    found: dict[str, Any] = env.db_url("DATABASE_URL", default=f"sqlite:///{VAR_DIR / 'db.sqlite3'}")
    options = found.setdefault("OPTIONS", {})
    if found["ENGINE"] == "django.db.backends.sqlite3":
        if found["NAME"] != ":memory:":
            found["NAME"] = str(BASE_DIR / found["NAME"])  # a relative name is relative to the project
            with contextlib.suppress(OSError):  # the database itself says it better
                Path(found["NAME"]).parent.mkdir(parents=True, exist_ok=True)
        options.setdefault("timeout", 5)
        # A deferred transaction that reads and then writes fails at once when another one wrote in
        # between, whatever the timeout says.
        options.setdefault("transaction_mode", "IMMEDIATE")
        options.setdefault("init_command", "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL")
        # Tests on a file too: an in-memory database has other locks once a second thread comes.
        found["TEST"] = {"NAME": str(Path(tempfile.gettempdir()) / f"voiceai-test-{os.getpid()}.sqlite3")}
    elif found["ENGINE"] == "django.db.backends.postgresql":
        # Persistent connections leak under ASGI, one for each thread that ever ran; the pool does not.
        found["CONN_MAX_AGE"] = 0
        options.setdefault("connect_timeout", 3)
        options.setdefault("pool", {"min_size": 0, "max_size": 10, "timeout": 3})
    return found


DATABASES = {"default": database()}

REDIS_URL = secret("REDIS_URL")
if REDIS_URL:
    CHANNEL_LAYERS: dict[str, Any] = {
        "default": {
            "BACKEND": "channels_redis.core.RedisChannelLayer",
            # A socket timeout would tear down every consumer that waits quietly for five seconds.
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
WHITENOISE_USE_FINDERS = True  # straight from the installed packages: no collectstatic, no build step
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}

# --- Telephone and assistant (units are in the names; `bridge_settings.py` hands them to the bridge) ----

TWILIO_ACCOUNT_SID = secret("TWILIO_ACCOUNT_SID")
TWILIO_BASE_URL = env.ENVIRON.get("TWILIO_BASE_URL", "https://api.twilio.com").rstrip("/")  # a stand-in's
TWILIO_AUTH_TOKENS = words("TWILIO_AUTH_TOKEN")  # more than one while a token is being rotated
TWILIO_PHONE_NUMBER = env.ENVIRON.get("TWILIO_PHONE_NUMBER", "")  # ours, and shown to whom we call
# Dollars. Twilio bills media streams apart and names no price for one: check your account's price list.
TWILIO_STREAM_PRICE_PER_MINUTE = price("TWILIO_STREAM_PRICE_PER_MINUTE", "0.004")
OUTBOUND_ALLOWED = words("OUTBOUND_ALLOWED")  # numbers, or their beginnings; none: nobody is called

VAPI_API_KEY = secret("VAPI_API_KEY")
VAPI_ASSISTANT_ID = secret("VAPI_ASSISTANT_ID")
VAPI_BASE_URL = env.ENVIRON.get("VAPI_BASE_URL", "https://api.vapi.ai").rstrip("/")
VAPI_WEBHOOK_SECRET = secret("VAPI_WEBHOOK_SECRET")
VAPI_SOCKET_URL = secret("VAPI_SOCKET_URL")
# The tutorial's own socket servers speak mu-law; Vapi's documented transport takes linear 16 kHz.
VAPI_AUDIO_FORMAT = env.ENVIRON.get("VAPI_AUDIO_FORMAT", "mulaw" if VAPI_SOCKET_URL else "pcm_s16le").lower()
if VAPI_AUDIO_FORMAT not in ("pcm_s16le", "mulaw"):
    raise ImproperlyConfigured(f"VAPI_AUDIO_FORMAT must be pcm_s16le or mulaw, not {VAPI_AUDIO_FORMAT!r}.")
VAPI_ALLOWED_HOSTS = words("VAPI_ALLOWED_HOSTS", "api.vapi.ai,*.vapi.ai")
VAPI_PING_SECONDS = number("VAPI_PING_SECONDS", 10, least=1)
VAPI_ENDPOINTING_MS = number("VAPI_ENDPOINTING_MS", 300)

MAX_CONCURRENT_CALLS = number("MAX_CONCURRENT_CALLS", 50, least=1)
MAX_CALL_SECONDS = number("MAX_CALL_SECONDS", 1800, least=1)
HOLD_BUFFER_MS = number("HOLD_BUFFER_MS", 7000)
LATENCY_TARGET_MS = number("LATENCY_TARGET_MS", 1200, least=1)
RECORD_CALLS = env.bool("RECORD_CALLS", default=False)  # by Vapi; announce it where the law asks for it
FALLBACK_NUMBER = env.ENVIRON.get("FALLBACK_NUMBER", "")
AI_DISCLOSURE_LINE = "You are speaking with an AI assistant."
AI_DISCLOSURE = env.ENVIRON.get("AI_DISCLOSURE", AI_DISCLOSURE_LINE)  # spoken before all else
if AI_DISCLOSURE.lower() == "off":  # for numbers without a row; a row says it for itself
    AI_DISCLOSURE = ""
JOURNAL_DIR = BASE_DIR / env.ENVIRON.get("JOURNAL_DIR", "var/journal")

# --- Logs: one line a record -------------------------------------------------------------------------

LOG_FORMAT = env.ENVIRON.get("LOG_FORMAT", "console").lower()
if LOG_FORMAT not in ("console", "json"):
    raise ImproperlyConfigured(f"LOG_FORMAT must be console or json, not {LOG_FORMAT!r}.")
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
        # Django's own handlers would say everything twice.
        "django": {"handlers": [], "level": "INFO", "propagate": True},
        # A scanner with a wrong Host header gets its 400; a traceback for each would hide the rest.
        "django.security.DisallowedHost": {"level": "CRITICAL"},
        "django.server": {"handlers": [], "level": "INFO", "propagate": True},
    },
}

# --- The look of the staff pages -----------------------------------------------------------------------

UNFOLD = {
    "SITE_TITLE": "voiceai",
    "SITE_HEADER": "voiceai",
    "SITE_SUBHEADER": "calls and the assistant that answers them",
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
                        # Every path begins with that of the dashboard.
                        "active": lambda request: request.path == "/",
                    },
                    {"title": "Calls", "icon": "call", "link": reverse_lazy("admin:calls_call_changelist")},
                    {
                        "title": "Numbers",
                        "icon": "dialpad",
                        "link": reverse_lazy("admin:calls_phonenumber_changelist"),
                    },
                    {"title": "Set-up", "icon": "stethoscope", "link": reverse_lazy("set_up")},
                    {"title": "Staff", "icon": "group", "link": reverse_lazy("admin:auth_user_changelist")},
                ],
            },
        ],
    },
}
