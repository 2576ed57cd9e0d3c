"""Full-text search in transcripts, also with untrusted input."""

from __future__ import annotations

from unittest import mock

from django.test import SimpleTestCase, TestCase

from calls.models import Call
from calls.staff.search import find_call_ids, highlight
from calls.tests import builders


class SearchTests(TestCase):
    def make_call(self, text: str) -> Call:
        call = builders.make_call()
        builders.make_utterance(call, text=text)
        return call

    def test_the_newest_call_comes_first(self) -> None:
        older, newer = self.make_call("my appointment"), self.make_call("an Appointment, please")
        self.make_call("something else")
        self.assertEqual(find_call_ids("appointment"), [newer.pk, older.pk])

    def test_all_words_must_occur_in_one_utterance(self) -> None:
        call = self.make_call("move my appointment to Thursday")
        self.make_call("move it")
        self.make_call("on Thursday")
        self.assertEqual(find_call_ids("thursday move"), [call.pk])

    def test_the_last_word_matches_as_a_prefix(self) -> None:
        call = self.make_call("the appointment book")
        self.assertEqual(find_call_ids("the appoin"), [call.pk])
        self.assertEqual(find_call_ids("appoin the"), [])

    def test_input_is_never_interpreted_as_an_operator(self) -> None:
        call = self.make_call("either this or that not the other")
        self.make_call("that")  # an operator such as OR would find it
        self.make_call("another text")
        for query in ("this or that", "this OR that", 'this" OR "that', "this & !that:*", "'this' that (",
                      "this NEAR that", "this* -that", "text:this"):  # fmt: skip
            with self.subTest(query):
                self.assertLessEqual(set(find_call_ids(query)), {call.pk})
        self.assertEqual(find_call_ids("this or that"), [call.pk])
        for wordless in ("", "  ", "()", "*", "'", '"', "\x00", "-", "%", "_"):
            self.assertEqual(find_call_ids(wordless), [])

    def test_the_number_of_calls_is_limited(self) -> None:
        calls = [self.make_call("hello") for _ in range(5)]
        self.assertEqual(find_call_ids("hello", limit=2), [calls[4].pk, calls[3].pk])

    def test_deleted_and_changed_text_is_no_longer_found(self) -> None:
        deleted, changed = self.make_call("lighthouse"), self.make_call("lighthouse")
        deleted.delete()
        utterance = changed.utterances.get()
        utterance.text = "windmill"
        utterance.save()
        self.assertEqual(find_call_ids("lighthouse"), [])
        self.assertEqual(find_call_ids("windmill"), [changed.pk])

    def test_other_scripts_and_accents_are_words(self) -> None:
        call = self.make_call("Grüße aus Köln, спасибо")
        for query in ("köln", "Grüße", "спасибо"):
            self.assertEqual(find_call_ids(query), [call.pk], query)

    def test_numbers_and_urls_are_found_by_their_parts(self) -> None:
        for text, query in (
            ("My number is 555-0134.", "0134"),
            ("Write to jane@example.com please", "jane please"),
            ("It costs 3.50 now", "3.50 now"),
            ("It is on www.shop.com/sale today", "shop sale today"),
            ("open and/or shut", "and or shut"),
            ("the <script>alert(1)</script> tag", "script alert tag"),
            ("it's o'clock – “noon”", "clock noon"),
            (
                "\u0939\u093f\u0928\u094d\u0926\u0940 \u092e\u0947\u0902",
                "\u0939\u093f\u0928\u094d\u0926\u0940",
            ),
        ):
            call = self.make_call(text)
            with self.subTest(query):
                self.assertEqual(find_call_ids(query), [call.pk])
                call.delete()

    def test_common_and_rare_words_give_the_same_results(self) -> None:
        """PostgreSQL has two query plans to choose from, SQLite one."""
        calls = [self.make_call(f"the word {n:03} of {'many' if n % 2 else 'few'}") for n in range(24)]
        newest_first = [call.pk for call in reversed(calls)]
        for sample_lines, common_hits in ((1, 1), (4, 1), (4, 3), (4, 99), (100, 1)):
            with (
                self.subTest(sample_lines=sample_lines, common_hits=common_hits),
                mock.patch("calls.staff.search._SAMPLE_LINES", sample_lines),
                mock.patch("calls.staff.search._COMMON_HITS", common_hits),
            ):
                self.assertEqual(find_call_ids("wor", limit=4), newest_first[:4])
                self.assertEqual(find_call_ids("many", limit=2), newest_first[:4:2])
                self.assertEqual(find_call_ids("word 001"), [calls[1].pk])
                self.assertEqual(find_call_ids("absent"), [])


class HighlightTests(SimpleTestCase):
    def test_a_hit_has_the_text_before_and_after_the_match(self) -> None:
        self.assertEqual(
            highlight("Can I move my appointment?", "appoint", "caller"),
            ("caller", "Can I move my ", "appointment", "?"),
        )

    def test_a_long_line_is_truncated_on_both_sides(self) -> None:
        hit = highlight("x " * 100 + "needle" + " y" * 100, "needle", "caller")
        assert hit is not None
        self.assertTrue(hit.before.startswith("…") and hit.after.endswith("…"))
        self.assertLess(len("".join(hit)), 140)

    def test_a_line_without_the_word_has_no_hit(self) -> None:
        self.assertIsNone(highlight("another text", "needle", "caller"))
        self.assertIsNone(highlight("another text", "()", "caller"))
