"""Energy and the speech detector, with synthetic callers: tones as speech, noise and clicks on the line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bridge.audio import g711
from bridge.audio.energy import EndOfSpeech, Onset, SpeechDetector, first_audible, is_audible

Sound = NDArray[np.float64]
Changes = list[Onset | EndOfSpeech]
SILENCE = bytes([g711.SILENCE])


def tone(dbfs: float, seconds: float, hertz: float = 440.0) -> Sound:
    t = np.arange(round(seconds * 8000)) / 8000
    return np.asarray(32768 * 10 ** (dbfs / 20) * np.sqrt(2) * np.sin(2 * np.pi * hertz * t))


def noise(dbfs: float, seconds: float, seed: int = 1) -> Sound:
    return np.random.default_rng(seed).normal(0, 32768 * 10 ** (dbfs / 20), round(seconds * 8000))


def silence(seconds: float) -> Sound:
    return np.zeros(round(seconds * 8000))


def click(milliseconds: float = 5) -> Sound:
    return noise(-10, milliseconds / 1000)


def line_audio(*sounds: Sound, noise_dbfs: float = -96.0, seed: int = 2) -> bytes:
    """The sounds in sequence, with noise added to all of them, as mu-law."""
    pcm = np.concatenate(sounds)
    pcm = pcm + noise(noise_dbfs, len(pcm) / 8000, seed)
    return g711.encode(np.rint(pcm).clip(-32768, 32767).astype(np.int16))


def detect(
    ulaw: bytes, detector: SpeechDetector | None = None, frame: int = 160, begin: float = 0.0
) -> Changes:
    """Feed frames to a detector and return the changes. A frame arrives when its last sample was spoken."""
    detector = detector or SpeechDetector()
    changes = []
    for start in range(0, len(ulaw), frame):
        piece = ulaw[start : start + frame]
        change = detector.feed(piece, begin + (start + len(piece)) / 8000)
        if change is not None:
            changes.append(change)
    return changes


def about(seconds: float, within_ms: float = 21) -> Any:
    return pytest.approx(seconds, abs=within_ms / 1000)


# Level and audibility


def test_speech_is_audible_and_comfort_noise_is_not() -> None:
    # Quiet on average: only the first 10 ms are loud.
    assert is_audible(line_audio(tone(-44, 0.01)) + SILENCE * 720)
    # The energy of one loud window, spread over so many that none is loud.
    assert not is_audible(line_audio(noise(-55, 0.1)))
    assert is_audible(line_audio(tone(-30, 0.02)))
    assert not any(is_audible(line_audio(noise(-55, 1.0, seed))) for seed in range(5))
    assert not is_audible(SILENCE * 1600)
    assert first_audible(SILENCE * 1600) is None
    assert not is_audible(b"")


def test_the_first_audible_sample_is_found_after_silence_in_a_chunk() -> None:
    chunk = line_audio(silence(0.5), tone(-30, 0.02))
    assert is_audible(chunk)
    assert first_audible(chunk) == 4000


def test_a_long_chunk_of_faint_noise_is_not_audible() -> None:
    # In total more energy than one audible window, but each window is judged alone.
    assert first_audible(line_audio(noise(-55, 2.0))) is None


def test_speech_in_a_chunk_shorter_than_a_window_is_audible() -> None:
    assert first_audible(line_audio(tone(-30, 0.005))) == 0


def test_speech_after_the_last_whole_window_is_audible() -> None:
    assert first_audible(line_audio(silence(0.02), tone(-20, 0.005))) == 160


# Onset and end


def test_it_detects_nothing_on_a_silent_line() -> None:
    detector = SpeechDetector()
    assert detect(SILENCE * 16000, detector) == []
    assert (detector.speaking, detector.onset_at, detector.last_loud_at, detector.loud_ms) == (
        False,
        None,
        None,
        0,
    )


def test_it_reports_the_onset_and_the_end_of_speech() -> None:
    detector = SpeechDetector()
    changes = detect(line_audio(silence(0.5), tone(-20, 1.0), silence(1.0)), detector)
    assert changes == [Onset(about(0.52, 1)), EndOfSpeech(about(1.5, 1))]
    assert detector.loud_ms == 1000
    assert detector.onset_at == about(0.52, 1)
    assert detector.last_loud_at == about(1.5, 1)
    assert not detector.speaking


def test_it_detects_speech_that_starts_with_the_first_frame() -> None:
    changes = detect(line_audio(tone(-20, 0.5), silence(0.5)))
    assert changes == [Onset(about(0.02, 1)), EndOfSpeech(about(0.5, 1))]


def test_an_onset_is_confirmed_after_sixty_milliseconds() -> None:
    detector = SpeechDetector()
    frames = [line_audio(tone(-20, 0.02))] * 3
    assert [detector.feed(frame, n * 0.02) for n, frame in enumerate(frames)] == [None, None, Onset(0.0)]
    assert detector.speaking
    assert detector.loud_ms == 60


def test_the_end_of_speech_is_reported_after_the_hangover() -> None:
    detector = SpeechDetector(hangover_ms=200)
    detect(line_audio(tone(-20, 0.5)), detector)
    changes = [detector.feed(SILENCE * 160, 0.5 + n * 0.02) for n in range(1, 12)]
    assert changes[8] is None
    assert changes[9] == EndOfSpeech(0.5)
    assert changes[10] is None


def test_a_pause_between_words_does_not_end_speech() -> None:
    words = line_audio(tone(-20, 0.4), silence(0.2), tone(-20, 0.4), silence(0.5))
    assert detect(words) == [Onset(about(0.02, 1)), EndOfSpeech(about(1.0, 1))]


def test_speech_after_the_hangover_is_a_new_segment() -> None:
    detector = SpeechDetector()
    changes = detect(line_audio(tone(-20, 0.4), silence(0.5), tone(-20, 0.2), silence(0.5)), detector)
    assert [type(change) for change in changes] == [Onset, EndOfSpeech, Onset, EndOfSpeech]
    assert changes[2].at == about(0.92, 1)
    assert detector.loud_ms == 200


def test_speech_that_resumes_as_the_hangover_ends_is_detected() -> None:
    changes = detect(line_audio(tone(-20, 0.4), silence(0.28), tone(-20, 0.4), silence(0.5)))
    assert changes[-1] == EndOfSpeech(about(1.08, 1))
    assert changes[-2] == Onset(about(0.70, 1))


@pytest.mark.parametrize("decay_db_per_second", [100, 300, 1000])
def test_a_fading_end_of_speech_is_detected_at_the_threshold(decay_db_per_second: int) -> None:
    fade = tone(-20, 0.6) * 10 ** (-decay_db_per_second * np.arange(4800) / 8000 / 20)
    quiet_from = 0.5 + 25 / decay_db_per_second  # here the tone falls below -45 dBFS
    detector = SpeechDetector()
    detect(line_audio(tone(-20, 0.5), fade, silence(0.5)), detector)
    assert detector.last_loud_at == about(quiet_from, 25)


@pytest.mark.parametrize("seconds", [1, 3, 10])
def test_a_steady_tone_is_speech_for_its_whole_length(seconds: int) -> None:
    changes = detect(line_audio(tone(-20, seconds), silence(0.5)))
    assert changes == [Onset(about(0.02, 1)), EndOfSpeech(about(seconds, 1))]


def test_the_soft_ending_of_fluent_speech_is_detected_on_a_quiet_line() -> None:
    # Syllables without pauses, only with short dips: the dips must not count as line noise.
    syllables = [part for n in range(12) for part in (tone(-20, 0.18), tone(-36 - n % 4 * 4, 0.06))]
    detector = SpeechDetector()
    detect(line_audio(silence(0.5), *syllables, tone(-42, 0.1), silence(0.5)), detector)
    assert detector.last_loud_at == about(0.5 + 12 * 0.24 + 0.1)


# Sounds that are not speech


@pytest.mark.parametrize("dbfs", [-60, -50, -46])
def test_faint_noise_is_not_speech(dbfs: float) -> None:
    for seed in range(3):
        assert detect(line_audio(silence(10), noise_dbfs=dbfs, seed=seed)) == []


@pytest.mark.parametrize("dbfs", [-42, -38])
def test_it_adapts_to_a_noisy_line_within_a_second(dbfs: float) -> None:
    changes = detect(line_audio(silence(10), noise_dbfs=dbfs))
    assert changes == [Onset(about(0.02)), EndOfSpeech(about(1.0))]


def test_it_adapts_to_any_steady_sound_after_some_seconds() -> None:
    detector = SpeechDetector()
    detect(line_audio(tone(-28, 14)), detector)
    assert not detector.speaking
    assert detector.last_loud_at == about(11.0)


@pytest.mark.parametrize("hertz", [50, 60])
def test_mains_hum_is_not_speech(hertz: int) -> None:
    assert detect(line_audio(tone(-25, 5, hertz))) == []


def test_a_dc_offset_is_not_speech() -> None:
    assert detect(line_audio(np.full(16000, 1500.0))) == []


@pytest.mark.parametrize("milliseconds", [1, 5, 20])
def test_clicks_are_not_speech(milliseconds: int) -> None:
    clicks = [part for n in range(30) for part in (click(milliseconds), silence(0.1 + 0.0071 * n))]
    assert detect(line_audio(*clicks)) == []


def test_clicks_after_speech_do_not_move_its_end() -> None:
    detector = SpeechDetector()
    changes = detect(
        line_audio(tone(-20, 0.5), silence(0.15), click(), silence(0.1), click(), silence(0.5)), detector
    )
    assert changes == [Onset(about(0.02, 1)), EndOfSpeech(about(0.5, 1))]
    assert detector.loud_ms == 500


def test_repeated_clicks_do_not_delay_the_end_of_speech() -> None:
    detector = SpeechDetector()
    detect(line_audio(tone(-20, 0.5), *[silence(0.115), click()] * 6), detector)
    assert not detector.speaking
    assert detector.last_loud_at == about(0.5, 1)


@pytest.mark.parametrize("lead", [0.0, 0.3, 1.0, 3.0])
def test_the_end_of_speech_is_detected_over_noise(lead: float) -> None:
    for seed in range(5):
        detector = SpeechDetector()
        detect(line_audio(silence(lead), tone(-25, 1.5), silence(1.0), noise_dbfs=-45, seed=seed), detector)
        assert detector.last_loud_at == about(lead + 1.5)
        assert not detector.speaking


def test_soft_speech_is_detected_as_soon_as_noise_stops() -> None:
    # Soft speech after a loud fan: the noise floor falls at once.
    detector = SpeechDetector()
    detect(line_audio(noise(-40, 3), silence(0.1), tone(-42, 0.3), silence(0.5)), detector)
    assert detector.last_loud_at == about(3.4)


def test_lost_packets_do_not_lower_the_noise_floor() -> None:
    # One window of digital silence a second is a lost packet, not a quiet line.
    noisy = [part for n in range(4) for part in (noise(-40, 0.7, n), silence(0.02), noise(-40, 0.28, n))]
    assert (
        len(detect(line_audio(*noisy))) == 2
    )  # an onset and an end in the first second, as on any noisy line


# Frames and the clock


def speech() -> bytes:
    return line_audio(silence(0.33), tone(-20, 0.7), silence(0.2), tone(-30, 0.25), silence(0.6))


@pytest.mark.parametrize("frame", [1, 80, 100, 240, 480, 1000])
def test_frames_of_any_length_give_the_same_result(frame: int) -> None:
    detector = SpeechDetector()
    changes = detect(speech(), detector, frame)
    assert [type(change) for change in changes] == [Onset, EndOfSpeech]
    assert changes == [Onset(about(0.34, 1)), EndOfSpeech(about(1.48, 1))]
    assert detector.loud_ms == 980  # 36 and 13 windows that contain speech


@settings(deadline=None, max_examples=40)
@given(sizes=st.lists(st.integers(0, 3000), max_size=15))
def test_chunking_does_not_change_the_detected_speech(sizes: list[int]) -> None:
    detector, ulaw, fed = SpeechDetector(), speech(), 0
    for size in [*sizes, len(ulaw)]:
        piece = ulaw[fed : fed + size]
        fed += len(piece)
        detector.feed(piece, fed / 8000)
    assert detector.onset_at == about(0.34, 1)
    assert detector.last_loud_at == about(1.48, 1)
    assert not detector.speaking


def test_an_empty_frame_changes_nothing() -> None:
    assert SpeechDetector().feed(b"", 1.0) is None


def test_the_last_of_several_changes_in_one_frame_is_returned() -> None:
    detector = SpeechDetector()
    assert detector.feed(speech(), 10.0) == EndOfSpeech(about(10 - 0.6, 21))


def test_late_frames_in_a_burst_do_not_end_speech() -> None:
    detector = SpeechDetector()
    frames = [line_audio(tone(-20, 0.02))] * 30
    arrivals = [n * 0.02 for n in range(10)] + [0.78] * 20
    changes = [detector.feed(frame, at) for frame, at in zip(frames, arrivals, strict=True)]
    assert [change for change in changes if change] == [Onset(0.0)]
    assert detector.last_loud_at == 0.78


def test_a_burst_of_silence_ends_speech_by_its_length() -> None:
    detector = SpeechDetector()
    detect(line_audio(tone(-20, 0.2)), detector)
    changes = [detector.feed(SILENCE * 160, 0.8) for _ in range(15)]
    assert EndOfSpeech(0.2) in changes


def test_missing_frames_end_speech_by_the_clock() -> None:
    detector = SpeechDetector()
    detect(line_audio(tone(-20, 0.2)), detector)
    assert detector.feed(SILENCE * 160, 3.0) == EndOfSpeech(0.2)


def test_a_reported_time_is_never_before_an_earlier_frame() -> None:
    # Two long frames at the same time: audio of the second did not arrive before the first.
    detector = SpeechDetector()
    detector.feed(SILENCE * 1600, 5.0)
    assert detector.feed(line_audio(tone(-20, 0.2)), 5.0) == Onset(5.0)
