"""One frame in five hundred: what the comparisons of sound find, and what they let pass."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from bridge.audio.transcode import PassThrough, Pcm16k
from calls.demo.audio_compare import downsampled, resampled, same_bytes, upsampled, without_cut_tail
from sandbox.speech import audio as sound

REFERENCES = ["soxr", "FFT"]
FRAMES = 500


def noise_frames(count: int = FRAMES, seed: int = 7) -> list[bytes]:
    ulaw = sound.ulaw_encode(sound.line_noise(seed, 160 * count))
    return [ulaw[at : at + 160] for at in range(0, len(ulaw), 160)]


def upsampled_by_us(frames: Sequence[bytes]) -> bytes:
    door = Pcm16k()
    return b"".join(door.to_assistant(frame) for frame in frames)


def speech_16k() -> bytes:
    clips = sound.load_clips()
    pcm = np.concatenate([clips[name].pcm_8k for name in ("greeting", "which_day")])
    return sound.to_16k(pcm).astype("<i2").tobytes()


def in_pieces(audio: bytes, seed: int = 3) -> list[bytes]:
    """Chunks of any length, odd ones too."""
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
    """As many frames as before: one lost, one doubled."""
    return [*frames[:249], frames[250], *frames[250:]]


TAMPERED = [dropped, swapped, repeated, one_for_another]


# mu-law to mu-law


def test_the_same_bytes_are_the_same() -> None:
    frames = noise_frames(20)
    assert same_bytes(frames, b"".join(frames)).fault == ""
    assert same_bytes(frames, b"".join(frames[:17])).frames == 17
    assert "20 frames, byte for byte" in str(same_bytes(frames, b"".join(frames)))


@pytest.mark.parametrize("tamper", TAMPERED)
def test_one_frame_in_five_hundred_is_found_byte_by_byte(
    tamper: Callable[[list[bytes]], list[bytes]],
) -> None:
    frames = noise_frames()
    match = same_bytes(frames, b"".join(tamper(frames)))
    assert "is not what was sent" in match.fault
    assert "(in place of 250 came 251)" in match.fault or tamper is repeated


def test_bytes_that_were_never_sent_are_found() -> None:
    frames = noise_frames(20)
    assert "3 bytes came that were never sent" in same_bytes(frames, b"".join(frames) + b"abc").fault
    assert "is not what was sent" in same_bytes(frames, b"".join(frames)[:-1]).fault


# 8 kHz to 16 kHz


@pytest.mark.parametrize("by", REFERENCES)
def test_noise_alone_is_enough_to_tell_that_all_is_well(by: str) -> None:
    frames = noise_frames()
    match = upsampled(frames, upsampled_by_us(frames), by=by)
    assert match.fault == "" and match.frames == FRAMES
    assert match.snr_db >= 30 and 0 < match.lag_ms <= 3


@pytest.mark.parametrize("by", REFERENCES)
@pytest.mark.parametrize("tamper", TAMPERED)
def test_one_frame_in_five_hundred_is_found_in_noise_alone(
    tamper: Callable[[list[bytes]], list[bytes]], by: str
) -> None:
    frames = noise_frames()
    assert upsampled(frames, upsampled_by_us(tamper(frames)), by=by).fault


def test_it_says_where_frames_were_swapped() -> None:
    frames = noise_frames()
    fault = upsampled(frames, upsampled_by_us(swapped(frames))).fault
    assert fault == "2 of 499 stretches of 20 ms are not what was sent, first 250"


def test_a_tail_of_whole_frames_may_be_missing_and_no_part_of_one() -> None:
    frames = noise_frames(50)
    came = upsampled_by_us(frames)
    assert upsampled(frames, came[: -3 * 640]).frames == 47
    assert "no whole number" in upsampled(frames, came[:-4]).fault
    assert "no whole number" in upsampled(frames, came[:-1]).fault
    assert "no whole number" in upsampled(frames, came + came).fault


def test_nothing_is_not_taken_for_everything() -> None:
    assert upsampled(noise_frames(50), b"").fault == "nothing came"
    assert downsampled(b"", b"").fault == "nothing came"


def test_noise_of_the_same_loudness_is_no_speech() -> None:
    frames = noise_frames()
    other = noise_frames(seed=8)
    assert "500 stretches" in upsampled(frames, upsampled_by_us(other)).fault.replace("499", "500")


# 16 kHz to 8 kHz


@pytest.mark.parametrize("by", REFERENCES)
@pytest.mark.parametrize("missing", [0, 1, 2, 3])
def test_speech_in_odd_chunks_arrives(by: str, missing: int) -> None:
    sent = speech_16k()
    sent = sent[: len(sent) - missing]
    door = Pcm16k()
    came = b"".join(door.to_caller(piece) for piece in in_pieces(sent))
    match = downsampled(sent, came, by=by)
    assert match.fault == "" and match.snr_db >= 30


def test_a_sample_too_few_is_found() -> None:
    sent = speech_16k()
    came = Pcm16k().to_caller(sent)
    expected = f"{len(came) - 1} samples came to the caller, {len(came)} were expected"
    assert downsampled(sent, came[:-1]).fault == expected


def test_a_lost_chunk_is_found_even_if_the_length_is_right() -> None:
    sent = speech_16k()
    door, pieces = Pcm16k(), [sent[at : at + 640] for at in range(0, len(sent), 640)]
    came = b"".join(door.to_caller(piece) for piece in [*pieces[:40], pieces[41], *pieces[41:]])
    assert "not what was sent" in downsampled(sent, came).fault


def test_a_bad_resampler_is_found() -> None:
    sent = speech_16k()
    came = sound.ulaw_encode(np.frombuffer(sent, "<i2")[::2].astype(np.int16))
    rough = bytes(byte & 0xFC for byte in came)
    assert "SNR" in downsampled(sent, rough).fault or "not what was sent" in downsampled(sent, rough).fault


@pytest.mark.parametrize("door", [Pcm16k(), PassThrough()])
def test_an_answer_cut_off_inside_a_sample_does_not_garble_the_next(door: Pcm16k | PassThrough) -> None:
    """Half a sample was left over; what follows begins with a whole one."""
    speech = speech_16k()
    first = door.to_caller(speech[:20_001])
    door.cut_off()
    came = first + door.to_caller(speech[30_000:])
    if isinstance(door, Pcm16k):
        assert downsampled(speech[:20_000] + speech[30_000:], came).fault == ""
    else:
        assert came == speech[:20_001] + speech[30_000:]


def test_two_references_agree() -> None:
    """soxr and the Fourier transform: neither knows the other, or us."""
    pcm = np.frombuffer(speech_16k()[:-2], "<i2").astype(np.int16)
    assert len(pcm) % 2
    for rate, to_rate in ((16_000, 8_000), (8_000, 16_000)):
        by_soxr, by_fft = (resampled(pcm, rate, to_rate, by=by).astype(np.float64) for by in REFERENCES)
        assert len(by_soxr) == len(by_fft)
        error = np.mean((by_soxr - by_fft) ** 2)
        assert 10 * np.log10(np.mean(by_soxr**2) / error) > 40


def test_only_one_cut_answer_may_miss_its_end() -> None:
    assert without_cut_tail([(b"abc", True), (b"de", False)], 2) == b"ade"
    assert without_cut_tail([(b"abc", True), (b"de", True)], 0) == b"abcde"
    for pieces in ([(b"abc", False)], [(b"abc", True), (b"de", True)], [(b"a", True)]):
        with pytest.raises(ValueError, match="no cut accounts for them"):
            without_cut_tail(pieces, 2)
