"""REST resources of Twilio: the account, its phone numbers and its calls.

Each `to_json` returns one documented resource. Dates are RFC 2822, numbers are strings, and values not yet
known are null. A terminal status never changes.
"""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import format_datetime
from typing import Any

from sandbox.twilio.call_registry import OnCommand, StatusUpdate

VERSION = "2010-04-01"
TERMINAL = frozenset({"completed", "busy", "failed", "no-answer", "canceled"})
STATUSES = TERMINAL | {"queued", "ringing", "in-progress"}
# Dollars for each started minute. The prices are fictitious; the product must use the price it receives.
RATES = {
    "inbound": Decimal("0.0085"),
    "outbound-api": Decimal("0.0140"),
    "outbound-dial": Decimal("0.0140"),
}
E164 = re.compile(r"\+[1-9]\d{6,14}")
DEMO_URL = "https://demo.twilio.com/welcome/voice/"  # the voice URL of a newly bought number


def now_utc() -> datetime:
    return datetime.now(UTC)


def make_sid(prefix: str, name: str) -> str:
    return prefix + hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()


def rfc2822(moment: datetime | None) -> str | None:
    return None if moment is None else format_datetime(moment.astimezone(UTC))


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """A REST request, and the status of its response."""

    method: str
    path: str
    form: Mapping[str, str]
    status: int


@dataclass(slots=True)
class Account:
    sid: str
    token: str
    friendly_name: str = "Sandbox"
    status: str = "active"  # active, suspended, closed
    type: str = "Full"  # or Trial: only verified numbers can be called
    verified: tuple[str, ...] = ()
    created_at: datetime = field(default_factory=now_utc)

    def to_json(self) -> dict[str, Any]:
        path = f"/{VERSION}/Accounts/{self.sid}"
        created = rfc2822(self.created_at)
        return {
            "sid": self.sid,
            "friendly_name": self.friendly_name,
            "status": self.status,
            "type": self.type,
            "owner_account_sid": self.sid,
            "auth_token": "[redacted]",
            "date_created": created,
            "date_updated": created,
            "uri": f"{path}.json",
            "subresource_uris": {
                "calls": f"{path}/Calls.json",
                "incoming_phone_numbers": f"{path}/IncomingPhoneNumbers.json",
            },
        }


@dataclass(slots=True)
class IncomingPhoneNumber:
    """A phone number of the account, and its configuration."""

    account_sid: str
    phone_number: str
    friendly_name: str = ""
    voice_url: str = DEMO_URL
    voice_method: str = "POST"
    voice_fallback_url: str = ""
    voice_fallback_method: str = "POST"
    status_callback: str = ""
    status_callback_method: str = "POST"
    voice_application_sid: str = ""  # overrides the voice URL
    trunk_sid: str = ""
    voice: bool = True  # capability: the number can receive calls
    created_at: datetime = field(default_factory=now_utc)
    updated_at: datetime = field(default_factory=now_utc)
    sid: str = ""

    def __post_init__(self) -> None:
        self.sid = self.sid or make_sid("PN", self.phone_number)

    def to_json(self) -> dict[str, Any]:
        return {
            "sid": self.sid,
            "account_sid": self.account_sid,
            "friendly_name": self.friendly_name or self.phone_number,
            "phone_number": self.phone_number,
            "voice_url": self.voice_url,
            "voice_method": self.voice_method,
            "voice_fallback_url": self.voice_fallback_url,
            "voice_fallback_method": self.voice_fallback_method,
            "voice_caller_id_lookup": False,
            "voice_application_sid": self.voice_application_sid,
            "voice_receive_mode": "voice",
            "status_callback": self.status_callback,
            "status_callback_method": self.status_callback_method,
            "sms_url": "",
            "sms_method": "POST",
            "sms_fallback_url": "",
            "sms_fallback_method": "POST",
            "sms_application_sid": "",
            "trunk_sid": self.trunk_sid or None,
            "address_requirements": "none",
            "address_sid": None,
            "identity_sid": None,
            "bundle_sid": None,
            "emergency_status": "Inactive",
            "emergency_address_sid": None,
            "emergency_address_status": "unregistered",
            "beta": False,
            "capabilities": {"voice": self.voice, "sms": True, "mms": True, "fax": False},
            "origin": "twilio",
            "status": "in-use",
            "api_version": VERSION,
            "date_created": rfc2822(self.created_at),
            "date_updated": rfc2822(self.updated_at),
            "uri": f"/{VERSION}/Accounts/{self.account_sid}/IncomingPhoneNumbers/{self.sid}.json",
        }


@dataclass(slots=True)
class Call:
    sid: str
    account_sid: str
    from_number: str
    to_number: str
    direction: str = "inbound"
    status: str = "queued"
    parent_call_sid: str = ""
    phone_number_sid: str = ""
    created_at: datetime = field(default_factory=now_utc)
    updated_at: datetime = field(default_factory=now_utc)
    started_at: datetime | None = None
    ended_at: datetime | None = None
    duration: int | None = None  # seconds; known at the end
    price: Decimal | None = None  # negative; known some time after the end
    answered_by: str | None = None
    update_forms: list[Mapping[str, str]] = field(default_factory=list)  # forms posted to the call
    on_command: OnCommand | None = None  # of the process that runs the call; None: no process does

    @property
    def is_over(self) -> bool:
        return self.status in TERMINAL

    def apply(self, update: StatusUpdate, at: datetime) -> bool:
        """Set a new status; False if the call was already over."""
        if self.is_over:
            return False
        self.updated_at = at
        self.answered_by = update.answered_by or self.answered_by
        self.status = update.status
        if update.status == "in-progress" and self.started_at is None:
            self.started_at = at
        if self.is_over:
            self.ended_at, self.on_command = at, None
            if update.duration is not None:
                self.duration = update.duration
            elif self.started_at is not None and update.status == "completed":
                self.duration = math.ceil((at - self.started_at).total_seconds())
        return True

    def set_price(self, price: Decimal | str | None = None) -> None:
        """Set this price, or one for each started minute. An unanswered call costs nothing."""
        if price is None:
            minutes = math.ceil((self.duration or 0) / 60)
            price = minutes * RATES.get(self.direction, RATES["outbound-api"])
        self.price = Decimal(0) - abs(Decimal(price))

    def to_json(self) -> dict[str, Any]:
        path = f"/{VERSION}/Accounts/{self.account_sid}/Calls/{self.sid}"
        parts = ("events", "notifications", "payments", "recordings", "siprec", "streams", "transcriptions")
        return {
            "sid": self.sid,
            "account_sid": self.account_sid,
            "parent_call_sid": self.parent_call_sid or None,
            "phone_number_sid": self.phone_number_sid or None,
            "from": self.from_number,
            "from_formatted": self.from_number,
            "to": self.to_number,
            "to_formatted": self.to_number,
            "direction": self.direction,
            "status": self.status,
            "answered_by": self.answered_by,
            "start_time": rfc2822(self.started_at),
            "end_time": rfc2822(self.ended_at),
            "duration": None if self.duration is None else str(self.duration),
            "price": None if self.price is None else f"{self.price:.5f}",
            "price_unit": "USD",
            "queue_time": "0",
            "annotation": None,
            "forwarded_from": None,
            "caller_name": "",
            "group_sid": None,
            "trunk_sid": None,
            "api_version": VERSION,
            "date_created": rfc2822(self.created_at),
            "date_updated": rfc2822(self.updated_at),
            "uri": f"{path}.json",
            "subresource_uris": {part: f"{path}/{part.title()}.json" for part in parts},
        }
