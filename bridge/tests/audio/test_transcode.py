"""Transcoding: results do not depend on chunking, and half samples carry over."""

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

MULTI_TONE = g711.encode(measure_audio.multi_tone(8000))


def split(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [*pieces, data]


def test_the_audio_format_selects_the_transcoder() -> None:
    assert isinstance(transcoder_for(AudioFormat.PCM_16K), Pcm16k)
    assert isinstance(transcoder_for(AudioFormat.MULAW), PassThrough)


def test_an_unknown_audio_format_raises() -> None:
    with pytest.raises(AssertionError):
        transcoder_for("opus")  # type: ignore[arg-type]


def test_mulaw_is_passed_through_unchanged() -> None:
    transcoder = PassThrough()
    assert transcoder.to_assistant(b"\x00\x7f\xff") == b"\x00\x7f\xff"
    assert transcoder.to_caller(b"\x00\x7f\xff") == b"\x00\x7f\xff"


def test_a_byte_of_mulaw_becomes_four_bytes_of_pcm() -> None:
    assert len(Pcm16k().to_assistant(MULTI_TONE[:160])) == 640


def test_four_bytes_of_pcm_become_a_byte_of_mulaw() -> None:
    assert len(Pcm16k().to_caller(bytes(640))) == 160


def test_pcm_is_little_endian() -> None:
    pcm_16k = np.frombuffer(Pcm16k().to_assistant(b"\x8f" * 200), "<i2")
    assert pcm_16k[-1] == 16764


def test_silence_is_transcoded_to_silence() -> None:
    transcoder = Pcm16k()
    assert transcoder.to_assistant(bytes([g711.SILENCE]) * 160) == bytes(640)
    assert transcoder.to_caller(bytes(640)) == bytes([g711.SILENCE]) * 160


def test_empty_input_gives_empty_output() -> None:
    transcoder = Pcm16k()
    assert transcoder.to_assistant(b"") == b""
    assert transcoder.to_caller(b"") == b""


def test_half_a_sample_is_kept_until_the_next_chunk() -> None:
    transcoder = Pcm16k()
    assert transcoder.to_caller(b"\x01") == b""
    assert len(transcoder.to_caller(b"\x02")) == 1


def test_an_interruption_discards_half_a_sample() -> None:
    transcoder, fresh = Pcm16k(), Pcm16k()
    transcoder.to_caller(b"\x01")
    transcoder.interrupt()
    answer = measure_audio.multi_tone(16000, 0.25).astype("<i2").tobytes()
    assert transcoder.to_caller(answer) == fresh.to_caller(answer)


def test_an_interruption_has_no_effect_on_mulaw() -> None:
    transcoder = PassThrough()
    transcoder.interrupt()
    assert transcoder.to_caller(b"\x01") == b"\x01"


def test_an_odd_number_of_samples_keeps_the_phase() -> None:
    transcoder = Pcm16k()
    assert [len(transcoder.to_caller(bytes(2))) for _ in range(4)] == [1, 0, 1, 0]


@settings(deadline=None, max_examples=60)
@given(sizes=st.lists(st.integers(0, 700), max_size=12))
def test_chunking_does_not_change_the_assistants_audio(sizes: list[int]) -> None:
    chunk = measure_audio.multi_tone(16000, 0.25).astype("<i2").tobytes()
    transcoder = Pcm16k()
    assert b"".join(map(transcoder.to_caller, split(chunk, sizes))) == Pcm16k().to_caller(chunk)


@settings(deadline=None, max_examples=60)
@given(sizes=st.lists(st.integers(0, 200), max_size=12))
def test_chunking_does_not_change_the_callers_audio(sizes: list[int]) -> None:
    transcoder = Pcm16k()
    assert b"".join(map(transcoder.to_assistant, split(MULTI_TONE, sizes))) == Pcm16k().to_assistant(
        MULTI_TONE
    )


def test_a_round_trip_preserves_audio_in_the_telephone_band() -> None:
    transcoder = Pcm16k()
    back = transcoder.to_caller(transcoder.to_assistant(MULTI_TONE))
    assert len(back) == len(MULTI_TONE)
    # Both filters together delay by DELAY samples at 8 kHz; the rest of the difference is quantisation.
    assert measure_audio.snr_db(g711.decode(back), g711.decode(MULTI_TONE), DELAY) > 30


def test_transcoders_share_no_state() -> None:
    one, other = transcoder_for(AudioFormat.PCM_16K), transcoder_for(AudioFormat.PCM_16K)
    one.to_assistant(MULTI_TONE)
    one.to_caller(b"\x01\x02\x03")
    assert other.to_assistant(MULTI_TONE) == Pcm16k().to_assistant(MULTI_TONE)
    assert len(other.to_caller(bytes(4))) == 1
