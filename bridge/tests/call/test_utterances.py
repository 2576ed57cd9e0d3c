"""Start and end times of utterances, from the audio that passed through the bridge."""

from __future__ import annotations

from bridge.call.utterances import SpeechTimes, Utterances


def test_a_caller_utterance_has_the_times_of_the_detected_speech() -> None:
    assert Utterances().of_caller(1.0, 2.5) == SpeechTimes(1.0, 2.5)


def test_a_second_final_of_the_same_speech_has_no_times() -> None:
    utterances = Utterances()
    utterances.of_caller(1.0, 2.5)
    assert utterances.of_caller(1.0, 2.5) == SpeechTimes(None, None)
    assert utterances.of_caller(3.0, 4.0) == SpeechTimes(3.0, 4.0)


def test_a_caller_utterance_without_detected_speech_has_no_times() -> None:
    assert Utterances().of_caller(None, None) == SpeechTimes(None, None)


def test_an_assistant_utterance_starts_when_its_audio_plays() -> None:
    utterances = Utterances()
    utterances.assistant_plays(5.0, answer=True)
    assert utterances.of_assistant(plays_until=7.0, now=9.0) == SpeechTimes(5.0, 7.0)


def test_an_assistant_utterance_that_still_plays_ends_now() -> None:
    utterances = Utterances()
    utterances.assistant_plays(5.0, answer=True)
    assert utterances.of_assistant(plays_until=20.0, now=9.0) == SpeechTimes(5.0, 9.0)


def test_an_assistant_utterance_without_audio_has_no_times() -> None:
    utterances = Utterances()
    utterances.assistant_plays(5.0, answer=True)
    utterances.of_assistant(7.0, 9.0)
    assert utterances.of_assistant(7.0, 9.0) == SpeechTimes(None, None)


def test_a_pause_between_two_sentences_does_not_start_an_utterance() -> None:
    utterances = Utterances()
    utterances.assistant_plays(5.0, answer=True)
    utterances.assistant_plays(6.0, answer=False)
    assert utterances.of_assistant(7.0, 9.0) == SpeechTimes(5.0, 7.0)


def test_an_answer_starts_a_new_utterance() -> None:
    utterances = Utterances()
    utterances.assistant_plays(5.0, answer=True)
    utterances.assistant_plays(6.0, answer=True)
    assert utterances.of_assistant(7.0, 9.0) == SpeechTimes(6.0, 7.0)


def test_only_the_utterance_that_was_cut_off_is_interrupted() -> None:
    utterances = Utterances()
    utterances.assistant_plays(5.0, answer=True)
    utterances.interrupt()
    assert utterances.of_assistant(6.0, 9.0) == SpeechTimes(5.0, 6.0, interrupted=True)
    assert utterances.of_assistant(6.0, 9.0) == SpeechTimes(None, None)


def test_audio_after_an_interruption_starts_an_uninterrupted_utterance() -> None:
    utterances = Utterances()
    utterances.assistant_plays(5.0, answer=True)
    utterances.interrupt()
    utterances.assistant_plays(8.0, answer=False)
    assert utterances.of_assistant(9.0, 10.0) == SpeechTimes(8.0, 9.0)


def test_cleared_audio_counts_as_unheard_in_the_interrupted_utterance() -> None:
    utterances = Utterances()
    utterances.assistant_plays(5.0, answer=True)
    utterances.interrupt(1.5)
    assert utterances.of_assistant(6.0, 9.0) == SpeechTimes(5.0, 6.0, interrupted=True, unheard=1.5)
    utterances.assistant_plays(8.0, answer=True)
    assert utterances.of_assistant(9.0, 10.0) == SpeechTimes(8.0, 9.0)
