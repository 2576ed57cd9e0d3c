"""Sample messages of both wire protocols, one real message per file. `sent/` has those that we send."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent


def sample(name: str) -> str:
    """The text of a sample message, by its path without the suffix, such as `twilio/media`."""
    return (_FOLDER / f"{name}.json").read_text(encoding="utf-8").strip()


# Every `endedReason` that Vapi has published.
ENDED_REASONS = tuple((_FOLDER / "vapi" / "ended_reasons.txt").read_text().split())
