"""DTMF tones of the telephone keypad, as ITU-T Q.23 defines them: two sine waves for each key.

Twilio's media stream carries audio only towards the phone line, no digits. Keys that the assistant presses
are therefore played as tones.

Pure: numpy only.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from bridge.audio.g711 import SAMPLE_RATE, SILENCE, encode

TONE_MS, PAUSE_MS = 100, 80  # at least twice what Q.24 requires receivers to detect
WAIT_MS = 500  # a `w`, which is how Twilio writes a pause

_AMPLITUDE = 0.25 * 32767  # of each wave; together about -9 dBm0, well below clipping
_LOW = (697, 770, 852, 941)
_HIGH = (1209, 1336, 1477, 1633)
_KEYS = "123A456B789C*0#D"


def tones(keys: str) -> bytes:
    """Mu-law audio of keys such as `1w42#`: 0-9, A-D, *, #, and w for a pause. Raises `KeyError`."""
    return b"".join(_SOUNDS[key] for key in keys)


def _silence(ms: int) -> bytes:
    return bytes([SILENCE]) * (SAMPLE_RATE * ms // 1000)


def _sound(row: int, column: int) -> bytes:
    seconds = np.arange(SAMPLE_RATE * TONE_MS // 1000) / SAMPLE_RATE
    waves = np.sin(2 * np.pi * _LOW[row] * seconds) + np.sin(2 * np.pi * _HIGH[column] * seconds)
    return encode((_AMPLITUDE * waves).astype(np.int16)) + _silence(PAUSE_MS)


_SOUNDS: Final = {key: _sound(*divmod(index, 4)) for index, key in enumerate(_KEYS)} | {
    "w": _silence(WAIT_MS)
}
