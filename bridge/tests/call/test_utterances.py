"""When words were spoken, by what crossed the bridge."""

from __future__ import annotations

from bridge.call.utterances import SpeechTimes, Utterances


def test_the_callers_words_lie_where_the_detector_heard_them() -> None:
    assert Utterances().of_caller(1.0, 2.5) == SpeechTimes(1.0, 2.5)


def test_a_second_final_of_the_same_speech_has_no_times() -> None:
    utterances = Utterances()
    utterances.of_caller(1.0, 2.5)
    assert utterances.of_caller(1.0, 2.5) == SpeechTimes(None, None)
    assert utterances.of_caller(3.0, 4.0) == SpeechTimes(3.0, 4.0)


def test_words_of_a_caller_whom_nobody_heard_have_no_times() -> None:
    assert Utterances().of_caller(None, None) == SpeechTimes(None, None)


def test_the_assistants_words_begin_where_its_audio_is_heard() -> None:
    utterances = Utterances()
    utterances.assistant_plays(5.0, answer=True)
    assert utterances.of_assistant(plays_until=7.0, now=9.0) == SpeechTimes(5.0, 7.0)


def test_words_that_are_still_playing_end_now() -> None:
    utterances = Utterances()
    utterances.assistant_plays(5.0, answer=True)
    assert utterances.of_assistant(plays_until=20.0, now=9.0) == SpeechTimes(5.0, 9.0)


def test_words_without_audio_have_no_times() -> None:
    utterances = Utterances()
    utterances.assistant_plays(5.0, answer=True)
    utterances.of_assistant(7.0, 9.0)
    assert utterances.of_assistant(7.0, 9.0) == SpeechTimes(None, None)


def test_a_pause_between_two_sentences_begins_no_utterance() -> None:
    utterances = Utterances()
    utterances.assistant_plays(5.0, answer=True)
    utterances.assistant_plays(6.0, answer=False)
    assert utterances.of_assistant(7.0, 9.0) == SpeechTimes(5.0, 7.0)


def test_an_answer_begins_one() -> None:
    utterances = Utterances()
    utterances.assistant_plays(5.0, answer=True)
    utterances.assistant_plays(6.0, answer=True)
    assert utterances.of_assistant(7.0, 9.0) == SpeechTimes(6.0, 7.0)


def test_words_that_were_cut_off_say_so_once() -> None:
    utterances = Utterances()
    utterances.assistant_plays(5.0, answer=True)
    utterances.interrupted()
    assert utterances.of_assistant(6.0, 9.0) == SpeechTimes(5.0, 6.0, interrupted=True)
    assert utterances.of_assistant(6.0, 9.0) == SpeechTimes(None, None)


def test_audio_after_a_cut_begins_an_utterance_that_is_whole() -> None:
    utterances = Utterances()
    utterances.assistant_plays(5.0, answer=True)
    utterances.interrupted()
    utterances.assistant_plays(8.0, answer=False)
    assert utterances.of_assistant(9.0, 10.0) == SpeechTimes(8.0, 9.0)


def test_audio_that_was_thrown_away_counts_for_the_words_that_were_cut_off() -> None:
    utterances = Utterances()
    utterances.assistant_plays(5.0, answer=True)
    utterances.interrupted(1.5)
    assert utterances.of_assistant(6.0, 9.0) == SpeechTimes(5.0, 6.0, interrupted=True, unheard=1.5)
    utterances.assistant_plays(8.0, answer=True)
    assert utterances.of_assistant(9.0, 10.0) == SpeechTimes(8.0, 9.0)
