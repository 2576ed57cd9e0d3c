"""What Twilio must know of one of our numbers, what it knows now, and the way back."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FIELDS = {
    "voice_url": "A call comes in",
    "voice_method": "A call comes in, method",
    "voice_fallback_url": "Primary handler fails",
    "voice_fallback_method": "Primary handler fails, method",
    "status_callback": "Call status changes",
    "status_callback_method": "Call status changes, method",
    "voice_application_sid": "TwiML app (wins over the above)",
}
KEPT_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Change:
    """One field of a number at Twilio."""

    field: str
    before: str
    after: str

    @property
    def title(self) -> str:
        return FIELDS[self.field]


def wanted(public_url: str, fallback_url: str = "") -> dict[str, str]:
    """What a number must say so that its calls come to us. Without a fallback, the one there stays."""
    ours = {
        "voice_url": f"{public_url}/twilio/voice",
        "voice_method": "POST",
        "status_callback": f"{public_url}/twilio/status",
        "status_callback_method": "POST",
        "voice_application_sid": "",
    }
    return ours | (
        {"voice_fallback_url": fallback_url, "voice_fallback_method": "POST"} if fallback_url else {}
    )


def settings_of(number: Any) -> dict[str, str]:
    """The fields that we care about, of a number as Twilio's client shows it."""
    return {field: str(getattr(number, field, None) or "") for field in FIELDS}


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[Change]:
    """What of `after` is not so yet."""
    return [
        Change(field, before.get(field, ""), after[field])
        for field in FIELDS
        if field in after and after[field] != before.get(field, "")
    ]


class SavedConfig:
    """What a number said before we changed it, in a file of its own."""

    def __init__(self, folder: Path, number: str) -> None:
        self.path = folder / f"{number.lstrip('+')}.json"

    def keep(self, before: Mapping[str, str]) -> None:
        """Written once: what counts is how it was before we came. Readable by its owner only."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return
        with open(handle, "w", encoding="utf-8") as file:
            json.dump(dict(before), file, indent=1)

    def read(self) -> dict[str, str] | None:
        """None when nothing was kept, or it cannot be read."""
        try:
            with self.path.open(encoding="utf-8") as file:
                found = json.loads(file.read(KEPT_BYTES))
        except (OSError, ValueError):
            return None
        if not isinstance(found, dict):
            return None
        return {field: value for field, value in found.items() if field in FIELDS and isinstance(value, str)}

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)
