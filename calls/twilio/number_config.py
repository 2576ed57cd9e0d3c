"""The configuration of a phone number at Twilio: what it must be, what it is, and how to restore it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Field of Twilio's IncomingPhoneNumber -> its label in Twilio's console.
FIELDS = {
    "voice_url": "A call comes in",
    "voice_method": "A call comes in, method",
    "voice_fallback_url": "Primary handler fails",
    "voice_fallback_method": "Primary handler fails, method",
    "status_callback": "Call status changes",
    "status_callback_method": "Call status changes, method",
    "voice_application_sid": "TwiML app (overrides the above)",
}
MAX_FILE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field of a number that is to change."""

    field: str
    before: str
    after: str

    @property
    def label(self) -> str:
        return FIELDS[self.field]


def build_config(public_url: str, fallback_url: str = "") -> dict[str, str]:
    """The fields that send a number's calls to this server. Without a `fallback_url`, that field stays."""
    config = {
        "voice_url": f"{public_url}/twilio/voice",
        "voice_method": "POST",
        "status_callback": f"{public_url}/twilio/status",
        "status_callback_method": "POST",
        "voice_application_sid": "",
    }
    if fallback_url:
        config |= {"voice_fallback_url": fallback_url, "voice_fallback_method": "POST"}
    return config


def read_config(number: Any) -> dict[str, str]:
    """The fields of `FIELDS`, of a number as Twilio's client returns it."""
    return {field: str(getattr(number, field, None) or "") for field in FIELDS}


def find_changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[FieldChange]:
    """The fields in which `before` differs from `after`."""
    return [
        FieldChange(field, before.get(field, ""), after[field])
        for field in FIELDS
        if field in after and after[field] != before.get(field, "")
    ]


class SavedConfig:
    """A number's configuration before our first change, in a file of its own."""

    def __init__(self, folder: Path, number: str) -> None:
        self.path = folder / f"{number.lstrip('+')}.json"

    def save_once(self, config: Mapping[str, str]) -> None:
        """Does nothing when there is a file already: only the configuration before ours matters.

        The file is readable by its owner only.
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return
        with open(handle, "w", encoding="utf-8") as file:
            json.dump(dict(config), file, indent=1)

    def load(self) -> dict[str, str] | None:
        """None when nothing was saved, or the file is unreadable."""
        try:
            with self.path.open(encoding="utf-8") as file:
                config = json.loads(file.read(MAX_FILE_BYTES))
        except (OSError, ValueError):
            return None
        if not isinstance(config, dict):
            return None
        return {field: value for field, value in config.items() if field in FIELDS and isinstance(value, str)}

    def delete(self) -> None:
        self.path.unlink(missing_ok=True)
