"""Full-text search in transcripts, also with untrusted input."""

from __future__ import annotations

import unicodedata
from functools import partial
from importlib import import_module
from itertools import permutations
from types import SimpleNamespace
from typing import Any
from unittest import mock

from django.apps import apps
from django.db import connection
from django.test import SimpleTestCase, TestCase

from bridge.journal import CallOffered, CarrierReported, UtteranceSpoken
from calls.ingest import upsert
from calls.models import Call, Utterance
from calls.search_text import build_search_text, normalize
from calls.staff import search
from calls.staff.search import find_hits, highlight, search_calls
from calls.tests import builders
from calls.viewer import Viewer

ALL = Viewer(can_view_calls=True, can_view_numbers=True)


def find_call_ids(text: str, **options: Any) -> list[int]:
    """In all calls. A search in a list of calls must find the same."""
    call_ids, _ = search.find_call_ids(text, **options)
    if not options:
        in_calls = list(Call.objects.values_list("pk", flat=True))
        assert search.find_call_ids(text, in_calls)[0] == call_ids
    return call_ids


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
        newest = [calls[4].pk, calls[3].pk]
        self.assertEqual(search.find_call_ids("hello", max_lines=2), (newest, True))
        self.assertFalse(search.find_call_ids("hello", max_lines=6)[1])

    def test_a_search_in_a_filtered_list_is_complete(self) -> None:
        """However many newer calls have the same words."""
        older = self.make_call("what is the price")
        noted = builders.make_call(assistant_id="other", note="asked for the price")
        Call.objects.filter(pk=older.pk).update(assistant_id="other")
        for _ in range(5):
            self.make_call("the price is low")
        everything, filtered = Call.objects.all(), Call.objects.filter(assistant_id="other")
        with mock.patch("calls.staff.search.find_call_ids", partial(search.find_call_ids, max_lines=2)):
            found = search_calls(filtered, "price", ALL)
            self.assertEqual(set(found.calls), {older, noted})
            self.assertEqual(search_calls(everything, "price", ALL).calls.count(), 3)  # two, and the note
            self.assertTrue(search_calls(everything, "price", ALL).is_capped)
            self.assertFalse(search_calls(everything, "absent", ALL).is_capped)
            self.assertFalse(
                search_calls(Call.objects.filter(assistant_id="no"), "price", ALL).calls.exists()
            )
            with mock.patch("calls.staff.search.MAX_SEARCHED_CALLS", 1):
                self.assertEqual(set(search_calls(filtered, "price", ALL).calls), {noted})

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
                self.assertEqual(find_call_ids("wor", max_lines=4), newest_first[:4])
                self.assertEqual(find_call_ids("many", max_lines=2), newest_first[:4:2])
                self.assertEqual(find_call_ids("word 001"), [calls[1].pk])
                self.assertEqual(find_call_ids("absent"), [])


class ScriptTests(TestCase):
    """Scripts without blanks between words, and characters that can be written in more than one way."""

    SENTENCES = (
        # language, what was said, what finds it, what does not
        ("Chinese", "我想预订一张明天晚上的桌子", ["预订", "明天晚上", "订", "预订 桌子"], ["订预"]),
        ("Japanese", "明日の夜にテーブルを予約したいです。", ["予約", "テーブル", "ーブル"], ["約予"]),
        ("Thai", "ฉันต้องการจองโต๊ะสำหรับคืนพรุ่งนี้", ["จอง", "โต๊ะ", "พรุ่งนี้", "ต้องการจอง"], ["วันนี้"]),
        ("Korean", "내일 저녁에 예약을 하고 싶어요", ["예약", "저녁", "내일 예약"], ["약예"]),
        ("Khmer", "ខ្ញុំចង់កក់តុសម្រាប់យប់ស្អែក", ["កក់តុ", "ស្អែក"], ["ម្សិលមិញ"]),
        ("Lao", "ຂ້ອຍຢາກຈອງໂຕະສຳລັບຄືນມື້ອື່ນ", ["ຈອງ", "ໂຕະ"], ["ມື້ນີ້"]),
        ("Burmese", "မနက်ဖြန်ညအတွက် စားပွဲတစ်လုံး ကြိုတင်မှာချင်ပါတယ်", ["စားပွဲ", "ကြိုတင်"], ["မနေ့က"]),
        ("mixed", "请查一下订单K3693，谢谢", ["K3693", "k3693", "订单k3693", "订单 谢谢"], ["K3694"]),
        ("Hindi", "मैं कल शाम के लिए मेज़ बुक करना चाहता हूँ", ["शाम", "मेज़"], ["सुबह"]),
        ("Arabic", "أريد حجز طاولة لمساء الغد", ["حجز", "طاولة"], ["اليوم"]),
        ("full-width", "注文Ｋ３６９３です", ["K3693", "Ｋ３６９３"], ["K9999"]),
        ("full-width letters", "ＡＢＣ １２３", ["abc", "123", "ＡＢＣ"], ["ab1"]),
        ("ligature", "the oﬃce number", ["office"], ["officer x"]),
        ("half-width kana", "ﾃｰﾌﾞﾙを予約", ["テーブル", "ﾃｰﾌﾞﾙ"], ["イス"]),
    )  # fmt: skip

    def test_words_are_found_anywhere_in_a_sentence(self) -> None:
        for language, text, found, absent in self.SENTENCES:
            call = builders.make_call()
            builders.make_utterance(call, text=text)
            for query in found:
                with self.subTest(language, query=query):
                    self.assertEqual(find_call_ids(query), [call.pk])
                    hit = find_hits([call.pk], query).get(call.pk)
                    assert hit is not None
                    self.assertIn(normalize(hit.match)[:2], normalize(query))
            for query in absent:
                with self.subTest(language, query=query):
                    self.assertEqual(find_call_ids(query), [])
            call.delete()

    def test_marks_that_are_typed_apart_are_the_same(self) -> None:
        for composed in ("köln", "ñandú", "Ångström", "mẫu", "が", "훈민"):
            for said, query in permutations((composed, unicodedata.normalize("NFD", composed)), 2):
                call = builders.make_call()
                Utterance.objects.bulk_create([Utterance(call=call, index=0, speaker="caller", text=said)])
                with self.subTest(composed, said=len(said)):
                    self.assertEqual(find_call_ids(query), [call.pk])
                call.delete()

    def test_changed_and_deleted_text_is_no_longer_found(self) -> None:
        call = builders.make_call()
        utterance = builders.make_utterance(call, text="我想预订")
        for text, found in (("我想取消", "取消"), ("windmill", "windmill"), ("我想预订", "预订")):
            utterance.text = text
            utterance.save()
            self.assertEqual(find_call_ids(found), [call.pk])
            for other in {"取消", "windmill", "预订"} - {found}:
                self.assertEqual(find_call_ids(other), [], other)
        call.delete()
        self.assertEqual(find_call_ids("预订"), [])

    def test_the_writer_indexes_them(self) -> None:
        sid = builders.call_sid()
        upsert.apply_entries([UtteranceSpoken(sid, 0, "caller", "我想预订")])
        upsert.apply_entries([UtteranceSpoken(sid, 0, "caller", "我想取消")])
        self.assertEqual(find_call_ids("取消"), [Call.objects.get().pk])
        self.assertEqual(find_call_ids("预订"), [])

    def test_only_texts_that_need_it_are_indexed_twice(self) -> None:
        for text, expected in (
            ("I need to move my appointment.", None), ("Grüße aus Köln, спасибо", None), ("", None),
            ("It costs 3.50… now", None), ("预订a b", "预 订 a b"), ("ＡＢＣ", "abc"), ("ที่นี่", "ที่ นี่"),
        ):  # fmt: skip
            self.assertEqual(build_search_text(text), expected, text)

    def test_the_migration_indexes_earlier_rows(self) -> None:
        texts = [sentence[1] for sentence in self.SENTENCES] + ["plain", "Ko\u0308ln"]
        call = builders.make_call()
        for text in texts:
            builders.make_utterance(call, text=text)
        expected = list(Utterance.objects.values_list("search_text", flat=True))
        Utterance.objects.update(search_text=None)
        Call.objects.update(from_reversed=None, to_reversed=None)
        migration = import_module("calls.migrations.0008_search_columns")
        with mock.patch.object(migration, "BATCH", 3), connection.cursor() as cursor:
            editor = SimpleNamespace(connection=connection, execute=cursor.execute)
            migration.fill_texts(apps, editor)
            migration.fill_numbers(apps, editor)
        self.assertEqual(list(Utterance.objects.values_list("search_text", flat=True)), expected)
        self.assertEqual(find_call_ids("预订"), [call.pk])
        call.refresh_from_db()
        self.assertEqual(call.from_reversed, call.from_number[:0:-1])
        self.assertEqual(call.to_reversed, call.to_number[:0:-1])


class NumberTests(TestCase):
    """Phone numbers in any dress: as they are written down, said, pasted, or remembered."""

    def setUp(self) -> None:
        self.calls = {
            "us": builders.make_call(from_number="+15551230001", to_number="+15559870000"),
            "uk": builders.make_call(
                direction="outbound-api", from_number="+15559870000", to_number="+442079460018"
            ),
            "de": builders.make_call(from_number="+4930901820", to_number="+15559870000"),
            "sip": builders.make_call(from_number="sip:desk7@pbx.example.com", to_number="+15559870000"),
        }

    def search(self, text: str, *, can_view_numbers: bool = True) -> set[str]:
        viewer = Viewer(can_view_calls=True, can_view_numbers=can_view_numbers)
        found = set(search_calls(Call.objects.all(), text, viewer).calls)
        return {name for name, call in self.calls.items() if call in found}

    def test_a_number_is_found_however_it_is_written(self) -> None:
        for text, expected in (
            ("+15551230001", "us"), ("(555) 123-0001", "us"), ("5551230001", "us"), ("0001", "us"),
            ("1 555 123 0001", "us"), ("15551230001", "us"), ("001 555 123 0001", "us"), ("+1555123", "us"),
            ("555.123.0001", "us"), ("123-0001", "us"), ("tel:+1-555-123-0001", "us"), ("1555123", "us"),
            ("\u202a+1 555\u00a0123\u20110001\u202c", "us"), ("（５５５）１２３－０００１", "us"),  # noqa: RUF001
            ("٥٥٥١٢٣٠٠٠١", "us"), ("+１５５５１２３０００１", "us"),
            ("+442079460018", "uk"), ("+44 (0)20 7946 0018", "uk"), ("020 7946 0018", "uk"),
            ("00 44 20 7946 0018", "uk"), ("0044 (0) 20 7946 0018", "uk"), ("7946 0018", "uk"),
            ("0018", "uk"), ("44 20 7946 0018", "uk"), ("+44 20", "uk"),
            ("030 901820", "de"), ("030/901820", "de"), ("901820", "de"), ("1820", "de"), ("+49 30", "de"),
            ("+1 555 987 0000", "us uk de sip"), ("9870000", "us uk de sip"),
            ("sip:desk7", "sip"), ("sip:desk7@pbx.example.com", "sip"),
            ("5551230002", ""), ("0019", ""), ("+33", ""), ("12", ""), ("sip:desk8", ""), ("client:", ""),
        ):  # fmt: skip
            with self.subTest(text):
                self.assertEqual(self.search(text), set(expected.split()))

    def test_masked_numbers_cannot_be_searched_for(self) -> None:
        for text in ("+15551230001", "0001", "5551230001", "+44 20", "sip:desk7", "030/901820"):
            self.assertEqual(self.search(text, can_view_numbers=False), set(), text)

    def test_digits_that_are_no_number_here_are_words(self) -> None:
        builders.make_utterance(self.calls["de"], text="It is invoice 4711 of 2026-11-24.")
        for text in ("4711", "2026-11-24", "4711 2026"):
            self.assertEqual(self.search(text), {"de"}, text)
        builders.make_utterance(self.calls["us"], text="My number ends in 1820.")
        self.assertEqual(self.search("1820"), {"de"}, "a number comes before words")

    def test_ids_are_found_by_their_start(self) -> None:
        call = self.calls["us"]
        Call.objects.filter(pk=call.pk).update(vapi_call_id="0198c5d1-7777-4000")
        for text in ("0198c5d1", "0198c5d1-7777", call.call_sid, call.call_sid[:33]):
            self.assertIn("us", self.search(text, can_view_numbers=False), text)

    def test_the_end_of_a_number_follows_the_number(self) -> None:
        sid = builders.call_sid()
        upsert.apply_entries([CarrierReported(sid, 1.0, status="completed")])
        upsert.apply_entries([CallOffered(sid, 1.0, "+491711234567", "+15559870000")])
        call = Call.objects.get(call_sid=sid)
        self.assertEqual(list(search_calls(Call.objects.all(), "0171 1234567", ALL).calls), [call])


class NoteTests(TestCase):
    def test_outcome_and_note_are_searched(self) -> None:
        noted = builders.make_call(note="Wants a refund, call back on Friday", outcome="complaint")
        spoken = builders.make_call(outcome="booked")
        builders.make_utterance(spoken, text="I want a refund.")
        builders.make_call()
        chinese = builders.make_call(note="客人想退款")
        for text, expected in (
            ("refund", {noted, spoken}), ("REFUND friday", {noted}), ("complaint", {noted}),
            ("booked", {spoken}), ("refund booked", set()), ("退款", {chinese}), ("%", set()), ("_", set()),
        ):  # fmt: skip
            with self.subTest(text):
                self.assertEqual(set(search_calls(Call.objects.all(), text, ALL).calls), expected)

    def test_the_index_of_noted_calls_is_used(self) -> None:
        """SQLite uses a partial index only if its condition is in the query, word for word."""
        no_ids = {"and_in_calls": ""}
        with connection.cursor() as cursor:
            if connection.vendor == "sqlite":
                cursor.execute("ANALYZE")
                statement = search._NOTED.format(
                    contains="note LIKE %s", hint="INDEXED BY call_noted", **no_ids
                )
                cursor.execute(f"EXPLAIN QUERY PLAN {statement}", ["%x%", 10])
            else:
                statement = search._NOTED.format(contains="note LIKE %s", hint="", **no_ids)
                cursor.execute("SET LOCAL enable_seqscan = off")
                cursor.execute("SET LOCAL enable_bitmapscan = off")
                cursor.execute(f"EXPLAIN {statement}", ["%x%", 10])
            self.assertIn("call_noted", str(cursor.fetchall()))


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
