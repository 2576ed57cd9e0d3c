"""Synthetic callers: tones for speech, noise for the line, clicks for what else a line does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bridge.audio import g711
from bridge.audio.energy import EndOfSpeech, Onset, SpeechDetector, first_audible, is_audible, level

Sound = NDArray[np.float64]
Heard = list[Onset | EndOfSpeech]
SILENCE = bytes([g711.SILENCE])


def tone(dbfs: float, seconds: float, hertz: float = 440.0) -> Sound:
    t = np.arange(round(seconds * 8000)) / 8000
    return np.asarray(32768 * 10 ** (dbfs / 20) * np.sqrt(2) * np.sin(2 * np.pi * hertz * t))


def noise(dbfs: float, seconds: float, seed: int = 1) -> Sound:
    return np.random.default_rng(seed).normal(0, 32768 * 10 ** (dbfs / 20), round(seconds * 8000))


def quiet(seconds: float) -> Sound:
    return np.zeros(round(seconds * 8000))


def click(milliseconds: float = 5) -> Sound:
    return noise(-10, milliseconds / 1000)


def line(*sounds: Sound, hiss: float = -96.0, seed: int = 2) -> bytes:
    """Sounds one after the other, noise under them all, as the carrier sends them."""
    pcm = np.concatenate(sounds)
    pcm = pcm + noise(hiss, len(pcm) / 8000, seed)
    return g711.encode(np.rint(pcm).clip(-32768, 32767).astype(np.int16))


def listen(
    ulaw: bytes, detector: SpeechDetector | None = None, frame: int = 160, begin: float = 0.0
) -> Heard:
    """Feeds frames on the clock; a frame arrives when its last sample was spoken."""
    detector = detector or SpeechDetector()
    heard = []
    for start in range(0, len(ulaw), frame):
        piece = ulaw[start : start + frame]
        change = detector.feed(piece, begin + (start + len(piece)) / 8000)
        if change is not None:
            heard.append(change)
    return heard


def about(seconds: float, within_ms: float = 21) -> Any:
    return pytest.approx(seconds, abs=within_ms / 1000)


# Level and audibility


def test_it_measures_a_tone() -> None:
    assert level(line(tone(-20, 0.1))) == pytest.approx(-20, abs=0.1)


def test_it_measures_silence_as_the_least_there_is() -> None:
    assert level(SILENCE * 160) == -96
    assert level(b"") == -96


def test_it_measures_full_scale_as_nearly_nothing_below() -> None:
    assert level(b"\x00\x80" * 80) == pytest.approx(-0.17, abs=0.01)


def test_it_hears_speech_but_not_comfort_noise() -> None:
    # Quiet on the whole, but for the first 10 ms.
    assert is_audible(line(tone(-44, 0.01)) + SILENCE * 720)
    # As much energy as one loud window has, spread so thin that none is loud.
    assert not is_audible(line(noise(-55, 0.1)))
    assert is_audible(line(tone(-30, 0.02)))
    assert not any(is_audible(line(noise(-55, 1.0, seed))) for seed in range(5))
    assert not is_audible(SILENCE * 1600)
    assert first_audible(SILENCE * 1600) is None
    assert not is_audible(b"")


def test_it_hears_the_beginning_of_speech_after_silence_in_one_chunk() -> None:
    chunk = line(quiet(0.5), tone(-30, 0.02))
    assert is_audible(chunk)
    assert first_audible(chunk) == 4000


def test_it_hears_nothing_in_a_long_chunk_of_faint_noise() -> None:
    # Together more energy than one audible window has: it is the windows that count.
    assert first_audible(line(noise(-55, 2.0))) is None


def test_it_hears_speech_in_a_chunk_shorter_than_a_window() -> None:
    assert first_audible(line(tone(-30, 0.005))) == 0


def test_it_hears_speech_in_the_rest_after_whole_windows() -> None:
    assert first_audible(line(quiet(0.02), tone(-20, 0.005))) == 160


# Onset and end


def test_it_hears_nothing_on_a_silent_line() -> None:
    detector = SpeechDetector()
    assert listen(SILENCE * 16000, detector) == []
    assert (detector.speaking, detector.onset_at, detector.last_loud_at, detector.loud_ms) == (
        False,
        None,
        None,
        0,
    )


def test_it_tells_when_speech_began_and_ended() -> None:
    detector = SpeechDetector()
    heard = listen(line(quiet(0.5), tone(-20, 1.0), quiet(1.0)), detector)
    assert heard == [Onset(about(0.52, 1)), EndOfSpeech(about(1.5, 1))]
    assert detector.loud_ms == 1000
    assert detector.onset_at == about(0.52, 1)
    assert detector.last_loud_at == about(1.5, 1)
    assert not detector.speaking


def test_it_hears_speech_that_begins_with_the_first_frame() -> None:
    heard = listen(line(tone(-20, 0.5), quiet(0.5)))
    assert heard == [Onset(about(0.02, 1)), EndOfSpeech(about(0.5, 1))]


def test_it_is_sure_of_an_onset_after_sixty_milliseconds() -> None:
    detector = SpeechDetector()
    frames = [line(tone(-20, 0.02))] * 3
    assert [detector.feed(frame, n * 0.02) for n, frame in enumerate(frames)] == [None, None, Onset(0.0)]
    assert detector.speaking
    assert detector.loud_ms == 60


def test_it_speaks_of_the_end_when_the_hangover_is_over() -> None:
    detector = SpeechDetector(hangover_ms=200)
    listen(line(tone(-20, 0.5)), detector)
    changes = [detector.feed(SILENCE * 160, 0.5 + n * 0.02) for n in range(1, 12)]
    assert changes[8] is None
    assert changes[9] == EndOfSpeech(0.5)
    assert changes[10] is None


def test_it_takes_a_pause_between_words_for_a_pause() -> None:
    words = line(tone(-20, 0.4), quiet(0.2), tone(-20, 0.4), quiet(0.5))
    assert listen(words) == [Onset(about(0.02, 1)), EndOfSpeech(about(1.0, 1))]


def test_it_begins_a_new_segment_after_the_hangover() -> None:
    detector = SpeechDetector()
    heard = listen(line(tone(-20, 0.4), quiet(0.5), tone(-20, 0.2), quiet(0.5)), detector)
    assert [type(change) for change in heard] == [Onset, EndOfSpeech, Onset, EndOfSpeech]
    assert heard[2].at == about(0.92, 1)
    assert detector.loud_ms == 200


def test_it_does_not_mistake_resumed_speech_for_the_end_when_the_hangover_runs_out_meanwhile() -> None:
    heard = listen(line(tone(-20, 0.4), quiet(0.28), tone(-20, 0.4), quiet(0.5)))
    assert heard[-1] == EndOfSpeech(about(1.08, 1))
    assert heard[-2] == Onset(about(0.70, 1))


@pytest.mark.parametrize("decay_db_per_second", [100, 300, 1000])
def test_it_follows_a_soft_ending_down_to_where_speech_is_lost(decay_db_per_second: int) -> None:
    fade = tone(-20, 0.6) * 10 ** (-decay_db_per_second * np.arange(4800) / 8000 / 20)
    silent_from = 0.5 + 25 / decay_db_per_second  # here the tone passes -45 dBFS
    detector = SpeechDetector()
    listen(line(tone(-20, 0.5), fade, quiet(0.5)), detector)
    assert detector.last_loud_at == about(silent_from, 25)


@pytest.mark.parametrize("seconds", [1, 3, 10])
def test_it_holds_a_steady_tone_for_speech_as_long_as_it_lasts(seconds: int) -> None:
    heard = listen(line(tone(-20, seconds), quiet(0.5)))
    assert heard == [Onset(about(0.02, 1)), EndOfSpeech(about(seconds, 1))]


def test_it_keeps_the_soft_ending_of_fluent_speech_on_a_quiet_line() -> None:
    # Syllables that never pause, only dip in passing, must not pass for noise.
    syllables = [part for n in range(12) for part in (tone(-20, 0.18), tone(-36 - n % 4 * 4, 0.06))]
    detector = SpeechDetector()
    listen(line(quiet(0.5), *syllables, tone(-42, 0.1), quiet(0.5)), detector)
    assert detector.last_loud_at == about(0.5 + 12 * 0.24 + 0.1)


# What is no speech


@pytest.mark.parametrize("dbfs", [-60, -50, -46])
def test_it_does_not_take_noise_for_speech(dbfs: float) -> None:
    for seed in range(3):
        assert listen(line(quiet(10), hiss=dbfs, seed=seed)) == []


@pytest.mark.parametrize("dbfs", [-42, -38])
def test_it_gets_used_to_a_noisy_line_within_a_second(dbfs: float) -> None:
    heard = listen(line(quiet(10), hiss=dbfs))
    assert heard == [Onset(about(0.02)), EndOfSpeech(about(1.0))]


def test_it_gets_used_to_any_steady_sound_in_the_end() -> None:
    detector = SpeechDetector()
    listen(line(tone(-28, 14)), detector)
    assert not detector.speaking
    assert detector.last_loud_at == about(11.0)


@pytest.mark.parametrize("hertz", [50, 60])
def test_it_does_not_take_hum_for_speech(hertz: int) -> None:
    assert listen(line(tone(-25, 5, hertz))) == []


def test_it_does_not_take_an_offset_for_speech() -> None:
    assert listen(line(np.full(16000, 1500.0))) == []


@pytest.mark.parametrize("milliseconds", [1, 5, 20])
def test_it_does_not_take_clicks_for_speech(milliseconds: int) -> None:
    clicks = [part for n in range(30) for part in (click(milliseconds), quiet(0.1 + 0.0071 * n))]
    assert listen(line(*clicks)) == []


def test_it_does_not_let_a_click_after_the_speech_move_its_end() -> None:
    detector = SpeechDetector()
    heard = listen(line(tone(-20, 0.5), quiet(0.15), click(), quiet(0.1), click(), quiet(0.5)), detector)
    assert heard == [Onset(about(0.02, 1)), EndOfSpeech(about(0.5, 1))]
    assert detector.loud_ms == 500


def test_it_ends_in_time_although_clicks_go_on() -> None:
    detector = SpeechDetector()
    listen(line(tone(-20, 0.5), *[quiet(0.115), click()] * 6), detector)
    assert not detector.speaking
    assert detector.last_loud_at == about(0.5, 1)


@pytest.mark.parametrize("lead", [0.0, 0.3, 1.0, 3.0])
def test_it_finds_the_end_of_speech_over_noise(lead: float) -> None:
    for seed in range(5):
        detector = SpeechDetector()
        listen(line(quiet(lead), tone(-25, 1.5), quiet(1.0), hiss=-45, seed=seed), detector)
        assert detector.last_loud_at == about(lead + 1.5)
        assert not detector.speaking


def test_it_hears_the_caller_again_at_once_when_the_noise_stops() -> None:
    # The floor falls at once: soft speech after a loud fan.
    detector = SpeechDetector()
    listen(line(noise(-40, 3), quiet(0.1), tone(-42, 0.3), quiet(0.5)), detector)
    assert detector.last_loud_at == about(3.4)


def test_it_does_not_let_a_lost_packet_hide_the_noise() -> None:
    # One window of digital silence each second is a gap, not a quiet line.
    noisy = [part for n in range(4) for part in (noise(-40, 0.7, n), quiet(0.02), noise(-40, 0.28, n))]
    assert len(listen(line(*noisy))) == 2  # as on any noisy line, in its first second


# Frames and the clock


def speech() -> bytes:
    return line(quiet(0.33), tone(-20, 0.7), quiet(0.2), tone(-30, 0.25), quiet(0.6))


@pytest.mark.parametrize("frame", [1, 80, 100, 240, 480, 1000])
def test_it_takes_frames_of_any_length(frame: int) -> None:
    detector = SpeechDetector()
    heard = listen(speech(), detector, frame)
    assert [type(change) for change in heard] == [Onset, EndOfSpeech]
    assert heard == [Onset(about(0.34, 1)), EndOfSpeech(about(1.48, 1))]
    assert detector.loud_ms == 980  # 36 and 13 windows that hold any of it


@settings(deadline=None, max_examples=40)
@given(sizes=st.lists(st.integers(0, 3000), max_size=15))
def test_it_comes_to_the_same_end_however_the_audio_is_cut(sizes: list[int]) -> None:
    detector, ulaw, fed = SpeechDetector(), speech(), 0
    for size in [*sizes, len(ulaw)]:
        piece = ulaw[fed : fed + size]
        fed += len(piece)
        detector.feed(piece, fed / 8000)
    assert detector.onset_at == about(0.34, 1)
    assert detector.last_loud_at == about(1.48, 1)
    assert not detector.speaking


def test_it_makes_nothing_of_an_empty_frame() -> None:
    assert SpeechDetector().feed(b"", 1.0) is None


def test_it_tells_the_last_of_several_changes_in_one_frame() -> None:
    detector = SpeechDetector()
    assert detector.feed(speech(), 10.0) == EndOfSpeech(about(10 - 0.6, 21))


def test_it_does_not_end_speech_because_frames_came_late_in_a_burst() -> None:
    detector = SpeechDetector()
    frames = [line(tone(-20, 0.02))] * 30
    arrivals = [n * 0.02 for n in range(10)] + [0.78] * 20
    changes = [detector.feed(frame, at) for frame, at in zip(frames, arrivals, strict=True)]
    assert [change for change in changes if change] == [Onset(0.0)]
    assert detector.last_loud_at == 0.78


def test_it_ends_speech_by_what_was_spoken_when_silence_comes_in_a_burst() -> None:
    detector = SpeechDetector()
    listen(line(tone(-20, 0.2)), detector)
    changes = [detector.feed(SILENCE * 160, 0.8) for _ in range(15)]
    assert EndOfSpeech(0.2) in changes


def test_it_ends_speech_by_the_clock_when_frames_stayed_away() -> None:
    detector = SpeechDetector()
    listen(line(tone(-20, 0.2)), detector)
    assert detector.feed(SILENCE * 160, 3.0) == EndOfSpeech(0.2)


def test_it_never_reports_a_time_before_an_earlier_frame() -> None:
    # Two long frames at one instant: what the second holds did not arrive before the first.
    detector = SpeechDetector()
    detector.feed(SILENCE * 1600, 5.0)
    assert detector.feed(line(tone(-20, 0.2)), 5.0) == Onset(5.0)
