"""The comparisons of audio find one wrong frame in five hundred, and accept transcoded audio."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import pytest

from bridge.audio.transcode import PassThrough, Pcm16k
from calls.demo.audio_compare import (
    compare_bytes,
    compare_downsampled,
    compare_upsampled,
    join_without_cut_tail,
    resample,
)
from sandbox.speech import audio as sound

Tamper: TypeAlias = Callable[[list[bytes]], list[bytes]]

RESAMPLERS = ["soxr", "FFT"]
FRAMES = 500


def make_noise_frames(count: int = FRAMES, seed: int = 7) -> list[bytes]:
    ulaw = sound.ulaw_encode(sound.line_noise(seed, 160 * count))
    return [ulaw[at : at + 160] for at in range(0, len(ulaw), 160)]


def upsample_with_bridge(frames: Sequence[bytes]) -> bytes:
    transcoder = Pcm16k()
    return b"".join(transcoder.to_assistant(frame) for frame in frames)


def make_speech_16k() -> bytes:
    clips = sound.load_clips()
    pcm = np.concatenate([clips[name].pcm_8k for name in ("greeting", "which_day")])
    return sound.to_16k(pcm).astype("<i2").tobytes()


def split_at_random(audio: bytes, seed: int = 3) -> list[bytes]:
    """Chunks of random lengths, also odd ones."""
    rng, pieces = random.Random(seed), []
    while audio:
        size = rng.randrange(1, 3000)
        pieces.append(audio[:size])
        audio = audio[size:]
    return pieces


def drop_frame(frames: list[bytes]) -> list[bytes]:
    return frames[:249] + frames[250:]


def swap_frames(frames: list[bytes]) -> list[bytes]:
    return [*frames[:249], frames[250], frames[249], *frames[251:]]


def repeat_frame(frames: list[bytes]) -> list[bytes]:
    return [*frames[:250], *frames[249:]]


def replace_frame(frames: list[bytes]) -> list[bytes]:
    """The same number of frames: one lost, the next one duplicated."""
    return [*frames[:249], frames[250], *frames[250:]]


# How to tamper with frame 250 or 251 of 500, and what the comparison must report: of bytes, of samples.
REPLACED = "frame 250 of 500 differs from the sent frame (frame 251 in place of 250)"
REPEATED = "frame 251 of 500 differs from the sent frame (frame 250 in place of 251)"
DIFFERS = "{} frames of 20 ms differ from the sent audio, the first is 250"
LENGTH = "320640 bytes were received, not a whole number of the 500 sent frames"
TAMPERED = [
    (drop_frame, REPLACED, DIFFERS.format("249 of 498")),
    (swap_frames, REPLACED, DIFFERS.format("2 of 499")),
    (repeat_frame, REPEATED, LENGTH),
    (replace_frame, REPLACED, DIFFERS.format("1 of 499")),
]


# mu-law to mu-law


def test_equal_bytes_have_no_fault() -> None:
    frames = make_noise_frames(20)
    assert compare_bytes(frames, b"".join(frames)).fault == ""
    assert compare_bytes(frames, b"".join(frames[:17])).frames == 17
    assert "20 frames, byte for byte" in str(compare_bytes(frames, b"".join(frames)))


@pytest.mark.parametrize(("tamper", "fault", "_"), TAMPERED)
def test_one_frame_in_five_hundred_is_found_in_bytes(tamper: Tamper, fault: str, _: str) -> None:
    frames = make_noise_frames()
    assert compare_bytes(frames, b"".join(tamper(frames))).fault == fault


def test_extra_and_missing_bytes_are_found() -> None:
    frames = make_noise_frames(20)
    assert (
        "3 bytes were received that were never sent" in compare_bytes(frames, b"".join(frames) + b"abc").fault
    )
    assert "differs from the sent frame" in compare_bytes(frames, b"".join(frames)[:-1]).fault


# 8 kHz to 16 kHz


@pytest.mark.parametrize("resampler", RESAMPLERS)
def test_upsampled_noise_has_no_fault(resampler: str) -> None:
    frames = make_noise_frames()
    match = compare_upsampled(frames, upsample_with_bridge(frames), resampler=resampler)
    assert match.fault == "" and match.frames == FRAMES
    assert match.snr_db >= 30 and 0 < match.lag_ms <= 3


@pytest.mark.parametrize("resampler", RESAMPLERS)
@pytest.mark.parametrize(("tamper", "_", "fault"), TAMPERED)
def test_one_frame_in_five_hundred_is_found_in_upsampled_noise(
    tamper: Tamper, _: str, fault: str, resampler: str
) -> None:
    frames = make_noise_frames()
    received = upsample_with_bridge(tamper(frames))
    assert compare_upsampled(frames, received, resampler=resampler).fault == fault


def test_whole_frames_may_be_missing_at_the_end_but_no_part_of_one() -> None:
    frames = make_noise_frames(50)
    received = upsample_with_bridge(frames)
    assert compare_upsampled(frames, received[: -3 * 640]).frames == 47
    assert "not a whole number" in compare_upsampled(frames, received[:-4]).fault
    assert "not a whole number" in compare_upsampled(frames, received[:-1]).fault
    assert "not a whole number" in compare_upsampled(frames, received + received).fault


def test_no_audio_is_a_fault() -> None:
    assert compare_upsampled(make_noise_frames(50), b"").fault == "no audio was received"
    assert compare_downsampled(b"", b"").fault == "no audio was received"


def test_other_noise_of_the_same_level_is_a_fault() -> None:
    frames = make_noise_frames()
    other = upsample_with_bridge(make_noise_frames(seed=8))
    expected = "499 of 499 frames of 20 ms differ from the sent audio, the first is 1"
    assert compare_upsampled(frames, other).fault == expected


# 16 kHz to 8 kHz


@pytest.mark.parametrize("resampler", RESAMPLERS)
@pytest.mark.parametrize("missing", [0, 1, 2, 3])
def test_speech_in_odd_chunks_has_no_fault(resampler: str, missing: int) -> None:
    sent = make_speech_16k()
    sent = sent[: len(sent) - missing]
    transcoder = Pcm16k()
    received = b"".join(transcoder.to_caller(piece) for piece in split_at_random(sent))
    match = compare_downsampled(sent, received, resampler=resampler)
    assert match.fault == "" and match.snr_db >= 30


def test_a_missing_sample_is_found() -> None:
    sent = make_speech_16k()
    received = Pcm16k().to_caller(sent)
    expected = f"{len(received) - 1} samples were received, expected {len(received)}"
    assert compare_downsampled(sent, received[:-1]).fault == expected


def test_a_lost_chunk_is_found_although_the_length_is_right() -> None:
    sent = make_speech_16k()
    transcoder, pieces = Pcm16k(), [sent[at : at + 640] for at in range(0, len(sent), 640)]
    received = b"".join(transcoder.to_caller(piece) for piece in [*pieces[:40], pieces[41], *pieces[41:]])
    expected = "1 of 263 frames of 20 ms differ from the sent audio, the first is 41"
    assert compare_downsampled(sent, received).fault == expected


def test_coarse_quantization_is_found_in_frames() -> None:
    sent = make_speech_16k()
    coarse = bytes(byte & 0xFC for byte in Pcm16k().to_caller(sent))
    assert "of 263 frames of 20 ms differ from the sent audio" in compare_downsampled(sent, coarse).fault


def test_a_lower_level_is_found_in_the_whole_signal() -> None:
    """Each frame is similar enough to be the right one, but the signal-to-noise ratio is too low."""
    sent = make_speech_16k()
    quieter = (0.9 * np.frombuffer(sent, "<i2")).astype("<i2").tobytes()
    fault = compare_downsampled(sent, Pcm16k().to_caller(quieter)).fault
    assert re.fullmatch(r"SNR (19|20)\.\d dB, expected at least 30 dB", fault), fault


@pytest.mark.parametrize("transcoder", [Pcm16k(), PassThrough()])
def test_a_reply_cut_off_inside_a_sample_does_not_corrupt_the_next(transcoder: Pcm16k | PassThrough) -> None:
    """Half a sample remains; the next reply starts with a whole one."""
    speech = make_speech_16k()
    first = transcoder.to_caller(speech[:20_001])
    transcoder.interrupt()
    received = first + transcoder.to_caller(speech[30_000:])
    if isinstance(transcoder, Pcm16k):
        assert compare_downsampled(speech[:20_000] + speech[30_000:], received).fault == ""
    else:
        assert received == speech[:20_001] + speech[30_000:]


def test_both_reference_resamplers_agree() -> None:
    """soxr and the Fourier transform are independent of each other and of the bridge."""
    pcm = np.frombuffer(make_speech_16k()[:-2], "<i2").astype(np.int16)
    assert len(pcm) % 2
    for rate, to_rate in ((16_000, 8_000), (8_000, 16_000)):
        by_soxr, by_fft = (
            resample(pcm, rate, to_rate, resampler=resampler).astype(np.float64) for resampler in RESAMPLERS
        )
        assert len(by_soxr) == len(by_fft)
        error = np.mean((by_soxr - by_fft) ** 2)
        assert 10 * np.log10(np.mean(by_soxr**2) / error) > 40


def test_only_a_single_reply_that_was_cut_off_may_lack_its_end() -> None:
    assert join_without_cut_tail([(b"abc", True), (b"de", False)], 2) == b"ade"
    assert join_without_cut_tail([(b"abc", True), (b"de", True)], 0) == b"abcde"
    for pieces in ([(b"abc", False)], [(b"abc", True), (b"de", True)], [(b"a", True)]):
        with pytest.raises(ValueError, match="no interruption explains it"):
            join_without_cut_tail(pieces, 2)
