"""At the assistant's door: any chunking gives the same bytes, and nothing is lost inside a sample."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import measure_audio
from bridge.audio import g711
from bridge.audio.resample import DELAY
from bridge.audio.transcode import PassThrough, Pcm16k, transcoder_for
from bridge.config import AudioFormat

SPEECHLIKE = g711.encode(measure_audio.multi_tone(8000))


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [*pieces, data]


def test_it_chooses_by_the_audio_format() -> None:
    assert isinstance(transcoder_for(AudioFormat.PCM_16K), Pcm16k)
    assert isinstance(transcoder_for(AudioFormat.MULAW), PassThrough)


def test_it_refuses_a_format_that_nobody_taught_it() -> None:
    with pytest.raises(AssertionError):
        transcoder_for("opus")  # type: ignore[arg-type]


def test_it_passes_mulaw_through_untouched() -> None:
    door = PassThrough()
    assert door.to_assistant(b"\x00\x7f\xff") == b"\x00\x7f\xff"
    assert door.to_caller(b"\x00\x7f\xff") == b"\x00\x7f\xff"


def test_it_makes_four_bytes_of_one() -> None:
    assert len(Pcm16k().to_assistant(SPEECHLIKE[:160])) == 640


def test_it_makes_one_byte_of_four() -> None:
    assert len(Pcm16k().to_caller(bytes(640))) == 160


def test_it_speaks_little_endian() -> None:
    pcm_16k = np.frombuffer(Pcm16k().to_assistant(b"\x8f" * 200), "<i2")
    assert pcm_16k[-1] == 16764


def test_it_keeps_silence_silent() -> None:
    door = Pcm16k()
    assert door.to_assistant(bytes([g711.SILENCE]) * 160) == bytes(640)
    assert door.to_caller(bytes(640)) == bytes([g711.SILENCE]) * 160


def test_it_makes_nothing_of_nothing() -> None:
    door = Pcm16k()
    assert door.to_assistant(b"") == b""
    assert door.to_caller(b"") == b""


def test_it_waits_for_the_other_half_of_a_sample() -> None:
    door = Pcm16k()
    assert door.to_caller(b"\x01") == b""
    assert len(door.to_caller(b"\x02")) == 1


def test_it_forgets_half_a_sample_when_the_assistant_was_cut_off() -> None:
    door, fresh = Pcm16k(), Pcm16k()
    door.to_caller(b"\x01")
    door.interrupted()
    answer = measure_audio.multi_tone(16000, 0.25).astype("<i2").tobytes()
    assert door.to_caller(answer) == fresh.to_caller(answer)


def test_it_has_nothing_to_forget_where_a_byte_is_a_sample() -> None:
    door = PassThrough()
    door.interrupted()
    assert door.to_caller(b"\x01") == b"\x01"


def test_it_keeps_the_phase_after_an_odd_sample() -> None:
    door = Pcm16k()
    assert [len(door.to_caller(bytes(2))) for _ in range(4)] == [1, 0, 1, 0]


@settings(deadline=None, max_examples=60)
@given(sizes=st.lists(st.integers(0, 700), max_size=12))
def test_it_does_not_show_how_the_assistants_audio_was_cut(sizes: list[int]) -> None:
    chunk = measure_audio.multi_tone(16000, 0.25).astype("<i2").tobytes()
    door = Pcm16k()
    assert b"".join(map(door.to_caller, cut(chunk, sizes))) == Pcm16k().to_caller(chunk)


@settings(deadline=None, max_examples=60)
@given(sizes=st.lists(st.integers(0, 200), max_size=12))
def test_it_does_not_show_how_the_callers_audio_was_cut(sizes: list[int]) -> None:
    door = Pcm16k()
    assert b"".join(map(door.to_assistant, cut(SPEECHLIKE, sizes))) == Pcm16k().to_assistant(SPEECHLIKE)


def test_it_brings_a_voice_there_and_back() -> None:
    door = Pcm16k()
    back = door.to_caller(door.to_assistant(SPEECHLIKE))
    assert len(back) == len(SPEECHLIKE)
    # Both filters together delay by DELAY samples at 8 kHz; what differs is one more quantisation.
    assert measure_audio.snr_db(g711.decode(back), g711.decode(SPEECHLIKE), DELAY) > 30


def test_it_keeps_calls_apart() -> None:
    one, other = transcoder_for(AudioFormat.PCM_16K), transcoder_for(AudioFormat.PCM_16K)
    one.to_assistant(SPEECHLIKE)
    one.to_caller(b"\x01\x02\x03")
    assert other.to_assistant(SPEECHLIKE) == Pcm16k().to_assistant(SPEECHLIKE)
    assert len(other.to_caller(bytes(4))) == 1
