"""What a demo run does: the caller's script and the options of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from sandbox.faults import VapiFaults
from sandbox.speech import audio
from sandbox.twilio.caller import BargeIn, Listen, Press, Say, Step, WaitForHangup

ListenMode: TypeAlias = Literal["auto", "energy", "speech"]

# Vapi accepts calls with this delay, twice, so that the bridge must hold caller audio.
CONNECT_DELAY_SECONDS = 0.25

# Longer than the slowest answer and the longest clip together.
TIMEOUT_SECONDS = 10.0

# Four turns, keys, one barge-in during the longest answer; the assistant hangs up after its goodbye.
SCRIPT: tuple[Step, ...] = (
    Listen(timeout_seconds=TIMEOUT_SECONDS),
    Say("move_appointment"),
    Listen(timeout_seconds=TIMEOUT_SECONDS),
    Press("42#"),
    Listen(timeout_seconds=TIMEOUT_SECONDS),  # the assistant responds to keys as well
    Say("correct"),
    BargeIn("talk_to_person", after_ms=1500, timeout_seconds=TIMEOUT_SECONDS),
    Listen(timeout_seconds=TIMEOUT_SECONDS),
    Say("goodbye"),
    WaitForHangup(timeout_seconds=TIMEOUT_SECONDS),
)
# The same, shorter. The caller speaks first, while the bridge is still connecting to Vapi.
SHORT_TIMEOUT_SECONDS = 6.0
SHORT_SCRIPT: tuple[Step, ...] = (
    Say("book_table"),
    Listen(timeout_seconds=SHORT_TIMEOUT_SECONDS),
    Press("42#"),
    Listen(timeout_seconds=SHORT_TIMEOUT_SECONDS),
    Say("correct"),
    BargeIn("talk_to_person", after_ms=800, timeout_seconds=SHORT_TIMEOUT_SECONDS),
    Listen(timeout_seconds=SHORT_TIMEOUT_SECONDS),
    Say("goodbye"),
    WaitForHangup(timeout_seconds=SHORT_TIMEOUT_SECONDS),
)


@dataclass(frozen=True, slots=True)
class Scenario:
    seed: int = 0
    caller: str = "+15550100134"
    fast: bool = False
    listen: ListenMode = "auto"
    asgi: str = "voiceai.asgi:application"
    dialect: Literal["call", "socket"] = "call"
    audio_format: str = "pcm_s16le"
    environment: Mapping[str, str] = field(default_factory=dict)  # more variables for the server

    @property
    def script(self) -> tuple[Step, ...]:
        return SHORT_SCRIPT if self.fast else SCRIPT

    @property
    def faults(self) -> VapiFaults:
        faults = VapiFaults(
            rest_delay_seconds=CONNECT_DELAY_SECONDS, ws_accept_delay_seconds=CONNECT_DELAY_SECONDS
        )
        return replace(faults, greets=False, delay_ms=(300, 600)) if self.fast else faults


def get_texts(script: Sequence[Step]) -> list[str]:
    """The texts of the caller's clips, in order."""
    clips = audio.load_clips()
    names = [step.clip for step in script if isinstance(step, Say | BargeIn)]
    return [clips[name].text for name in names if isinstance(name, str)]
