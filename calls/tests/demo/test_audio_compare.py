"""The audio comparisons find one wrong frame in five hundred, and accept transcoded audio."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from bridge.audio.transcode import PassThrough, Pcm16k
from calls.demo.audio_compare import (
    compare_bytes,
    compare_downsampled,
    compare_upsampled,
    resample,
    without_cut_tail,
)
from sandbox.speech import audio as sound

REFERENCES = ["soxr", "FFT"]
FRAMES = 500


def noise_frames(count: int = FRAMES, seed: int = 7) -> list[bytes]:
    ulaw = sound.ulaw_encode(sound.line_noise(seed, 160 * count))
    return [ulaw[at : at + 160] for at in range(0, len(ulaw), 160)]


def upsampled_by_bridge(frames: Sequence[bytes]) -> bytes:
    transcoder = Pcm16k()
    return b"".join(transcoder.to_assistant(frame) for frame in frames)


def speech_16k() -> bytes:
    clips = sound.load_clips()
    pcm = np.concatenate([clips[name].pcm_8k for name in ("greeting", "which_day")])
    return sound.to_16k(pcm).astype("<i2").tobytes()


def in_pieces(audio: bytes, seed: int = 3) -> list[bytes]:
    """Chunks of any length, including odd lengths."""
    rng, pieces = random.Random(seed), []
    while audio:
        size = rng.randrange(1, 3000)
        pieces.append(audio[:size])
        audio = audio[size:]
    return pieces


def dropped(frames: list[bytes]) -> list[bytes]:
    return frames[:249] + frames[250:]


def swapped(frames: list[bytes]) -> list[bytes]:
    return [*frames[:249], frames[250], frames[249], *frames[251:]]


def repeated(frames: list[bytes]) -> list[bytes]:
    return [*frames[:250], *frames[249:]]


def one_for_another(frames: list[bytes]) -> list[bytes]:
    """The same number of frames: one lost, one duplicated."""
    return [*frames[:249], frames[250], *frames[250:]]


TAMPERED = [dropped, swapped, repeated, one_for_another]


# mu-law to mu-law


def test_equal_bytes_have_no_fault() -> None:
    frames = noise_frames(20)
    assert compare_bytes(frames, b"".join(frames)).fault == ""
    assert compare_bytes(frames, b"".join(frames[:17])).frames == 17
    assert "20 frames, byte for byte" in str(compare_bytes(frames, b"".join(frames)))


@pytest.mark.parametrize("tamper", TAMPERED)
def test_one_frame_in_five_hundred_is_found_byte_by_byte(
    tamper: Callable[[list[bytes]], list[bytes]],
) -> None:
    frames = noise_frames()
    match = compare_bytes(frames, b"".join(tamper(frames)))
    assert "differs from the sent frame" in match.fault
    assert "(frame 251 in place of 250)" in match.fault or tamper is repeated


def test_extra_and_missing_bytes_are_found() -> None:
    frames = noise_frames(20)
    assert (
        "3 bytes were received that were never sent" in compare_bytes(frames, b"".join(frames) + b"abc").fault
    )
    assert "differs from the sent frame" in compare_bytes(frames, b"".join(frames)[:-1]).fault


# 8 kHz to 16 kHz


@pytest.mark.parametrize("resampler", REFERENCES)
def test_upsampled_noise_has_no_fault(resampler: str) -> None:
    frames = noise_frames()
    match = compare_upsampled(frames, upsampled_by_bridge(frames), resampler=resampler)
    assert match.fault == "" and match.frames == FRAMES
    assert match.snr_db >= 30 and 0 < match.lag_ms <= 3


@pytest.mark.parametrize("resampler", REFERENCES)
@pytest.mark.parametrize("tamper", TAMPERED)
def test_one_frame_in_five_hundred_is_found_in_noise_alone(
    tamper: Callable[[list[bytes]], list[bytes]], resampler: str
) -> None:
    frames = noise_frames()
    assert compare_upsampled(frames, upsampled_by_bridge(tamper(frames)), resampler=resampler).fault


def test_it_reports_where_frames_were_swapped() -> None:
    frames = noise_frames()
    fault = compare_upsampled(frames, upsampled_by_bridge(swapped(frames))).fault
    assert fault == "2 of 499 frames of 20 ms differ from the sent audio, the first is 250"


def test_whole_frames_may_be_missing_at_the_end_but_no_part_of_one() -> None:
    frames = noise_frames(50)
    received = upsampled_by_bridge(frames)
    assert compare_upsampled(frames, received[: -3 * 640]).frames == 47
    assert "not a whole number" in compare_upsampled(frames, received[:-4]).fault
    assert "not a whole number" in compare_upsampled(frames, received[:-1]).fault
    assert "not a whole number" in compare_upsampled(frames, received + received).fault


def test_no_audio_is_a_fault() -> None:
    assert compare_upsampled(noise_frames(50), b"").fault == "no audio was received"
    assert compare_downsampled(b"", b"").fault == "no audio was received"


def test_other_noise_of_the_same_level_is_a_fault() -> None:
    frames = noise_frames()
    other = noise_frames(seed=8)
    assert "500 frames" in compare_upsampled(frames, upsampled_by_bridge(other)).fault.replace("499", "500")


# 16 kHz to 8 kHz


@pytest.mark.parametrize("resampler", REFERENCES)
@pytest.mark.parametrize("missing", [0, 1, 2, 3])
def test_speech_in_odd_chunks_has_no_fault(resampler: str, missing: int) -> None:
    sent = speech_16k()
    sent = sent[: len(sent) - missing]
    transcoder = Pcm16k()
    received = b"".join(transcoder.to_caller(piece) for piece in in_pieces(sent))
    match = compare_downsampled(sent, received, resampler=resampler)
    assert match.fault == "" and match.snr_db >= 30


def test_a_missing_sample_is_found() -> None:
    sent = speech_16k()
    received = Pcm16k().to_caller(sent)
    expected = f"{len(received) - 1} samples were received, expected {len(received)}"
    assert compare_downsampled(sent, received[:-1]).fault == expected


def test_a_lost_chunk_is_found_although_the_length_is_right() -> None:
    sent = speech_16k()
    transcoder, pieces = Pcm16k(), [sent[at : at + 640] for at in range(0, len(sent), 640)]
    received = b"".join(transcoder.to_caller(piece) for piece in [*pieces[:40], pieces[41], *pieces[41:]])
    assert "differ from the sent audio" in compare_downsampled(sent, received).fault


def test_a_bad_resampler_is_found() -> None:
    sent = speech_16k()
    received = sound.ulaw_encode(np.frombuffer(sent, "<i2")[::2].astype(np.int16))
    rough = bytes(byte & 0xFC for byte in received)
    assert (
        "SNR" in compare_downsampled(sent, rough).fault
        or "differ from the sent audio" in compare_downsampled(sent, rough).fault
    )


@pytest.mark.parametrize("transcoder", [Pcm16k(), PassThrough()])
def test_a_reply_cut_off_inside_a_sample_does_not_corrupt_the_next(transcoder: Pcm16k | PassThrough) -> None:
    """Half a sample is left over; the next reply starts with a whole one."""
    speech = speech_16k()
    first = transcoder.to_caller(speech[:20_001])
    transcoder.interrupted()
    received = first + transcoder.to_caller(speech[30_000:])
    if isinstance(transcoder, Pcm16k):
        assert compare_downsampled(speech[:20_000] + speech[30_000:], received).fault == ""
    else:
        assert received == speech[:20_001] + speech[30_000:]


def test_both_reference_resamplers_agree() -> None:
    """soxr and the Fourier transform: independent of each other and of the bridge."""
    pcm = np.frombuffer(speech_16k()[:-2], "<i2").astype(np.int16)
    assert len(pcm) % 2
    for rate, to_rate in ((16_000, 8_000), (8_000, 16_000)):
        by_soxr, by_fft = (
            resample(pcm, rate, to_rate, resampler=resampler).astype(np.float64) for resampler in REFERENCES
        )
        assert len(by_soxr) == len(by_fft)
        error = np.mean((by_soxr - by_fft) ** 2)
        assert 10 * np.log10(np.mean(by_soxr**2) / error) > 40


def test_only_one_reply_that_was_cut_off_may_miss_its_end() -> None:
    assert without_cut_tail([(b"abc", True), (b"de", False)], 2) == b"ade"
    assert without_cut_tail([(b"abc", True), (b"de", True)], 0) == b"abcde"
    for pieces in ([(b"abc", False)], [(b"abc", True), (b"de", True)], [(b"a", True)]):
        with pytest.raises(ValueError, match="no interruption explains it"):
            without_cut_tail(pieces, 2)
