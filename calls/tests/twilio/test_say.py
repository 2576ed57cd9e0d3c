"""The language and the voice in which callers hear Twilio, from the settings or the number's row."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC
from xml.etree import ElementTree

import pytest
from django.test import TestCase, override_settings

from bridge.config import BridgeConfig
from bridge.opening_hours import OpeningHours
from bridge.routes import Route
from calls.models import PhoneNumber
from calls.routes import read_routes
from calls.staff.admin.numbers import NumberForm
from calls.tests.test_settings import read
from calls.tests.twilio.test_webhooks import make_route
from calls.tests.webhook_client import OURS, WebhookClient, make_bridge
from calls.twilio import sentences, twiml, voices
from calls.twilio.sentences import SENTENCES, translate
from calls.twilio.voices import Voice
from sandbox.twilio import twiml as twilio

ENGLISH = sentences.DISCLOSURE
CLOSED = OpeningHours((), UTC)


def spoken(document: bytes | str) -> list[tuple[str, str, str]]:
    """The text, language and voice of each `<Say>`, none of which Twilio warns of."""
    text = document.decode() if isinstance(document, bytes) else document
    verbs, warnings = twilio.parse(text)
    assert [str(warning) for warning in warnings] == []
    return [(say.text, say.language, say.voice) for say in verbs if isinstance(say, twilio.SayVerb)]


@pytest.mark.parametrize(
    ("language", "voice", "greeting", "heard"),
    [
        ("", "", "Hello.", [(ENGLISH, "", ""), ("Hello.", "", "")]),
        ("", "Polly.Joanna", "Hello.", [(ENGLISH, "", "Polly.Joanna"), ("Hello.", "", "Polly.Joanna")]),
        ("en-GB", "Polly.Amy", "Hi.", [(ENGLISH, "en-GB", "Polly.Amy"), ("Hi.", "en-GB", "Polly.Amy")]),
        ("zh-CN", "", "您好。", [("您正在与人工智能助理通话。", "zh-CN", ""), ("您好。", "zh-CN", "")]),
        (
            "cmn-CN", "Polly.Zhiyu", "您好。",
            [("您正在与人工智能助理通话。", "cmn-CN", "Polly.Zhiyu"), ("您好。", "cmn-CN", "Polly.Zhiyu")],
        ),
        ("zh-TW", "", "您好。", [("您正在與人工智慧助理通話。", "zh-TW", ""), ("您好。", "zh-TW", "")]),
        (
            "de-AT", "", "Hallo.",
            [("Sie sprechen mit einem KI-Assistenten.", "de-AT", ""), ("Hallo.", "de-AT", "")],
        ),
        # There is no translation: our sentence is English, the number's own text is not.
        ("fi-FI", "Polly.Suvi", "Hei.", [(ENGLISH, "en-US", ""), ("Hei.", "fi-FI", "Polly.Suvi")]),
    ],
)  # fmt: skip
async def test_twilio_speaks_in_the_language_of_the_number(
    language: str, voice: str, greeting: str, heard: list[tuple[str, str, str]]
) -> None:
    route = make_route(
        id="desk", number=OURS, say_language=language, say_voice=voice, disclosure=ENGLISH, greeting=greeting
    )
    response = await WebhookClient(make_bridge([route])).twilio("/twilio/voice")
    assert spoken(response.content)[:2] == heard


NUMBER = Route(id="desk", number=OURS, say_language="zh-CN", say_voice="Polly.Zhiyu")


@pytest.mark.parametrize(
    ("route", "path", "sentence"),
    [
        (NUMBER, "/twilio/voice", sentences.UNAVAILABLE),
        (replace(NUMBER, max_concurrent_calls=0), "/twilio/voice", sentences.BUSY),
        (replace(NUMBER, hours=CLOSED), "/twilio/voice", sentences.CLOSED),
        (NUMBER, "/twilio/after?dialed=1", sentences.NOBODY_THERE),
        (NUMBER, "/twilio/whisper?about=&language=zh-CN&voice=Polly.Zhiyu", sentences.WHISPER),
    ],
)
async def test_each_of_our_sentences_is_translated(route: Route, path: str, sentence: str) -> None:
    response = await WebhookClient(make_bridge([route])).twilio(path)
    assert spoken(response.content)[-1] == (translate(sentence, "zh-CN"), "zh-CN", "Polly.Zhiyu")


@pytest.mark.parametrize(
    ("language", "heard"),
    [
        ("", [(f"{sentences.WHISPER} Zahn", "")]),
        ("de-DE", [("Dieser Anruf wurde an Sie weitergeleitet. Zahn", "de-DE")]),
        ("fi-FI", [(sentences.WHISPER, "en-US"), ("Zahn", "fi-FI")]),
        ("xx-XX", [(f"{sentences.WHISPER} Zahn", "")]),  # only a forged URL
    ],
)
async def test_the_whisper_of_a_transfer_is_in_the_language_of_the_number(
    language: str, heard: list[tuple[str, str]]
) -> None:
    document = twiml.dial_with_whisper("", "+15550101111", "Zahn", voice=Voice(language))
    number = ElementTree.fromstring(str(document)).find("Dial/Number")
    assert number is not None
    response = await WebhookClient().twilio(str(number.get("url")))
    assert [(text, spoken_in) for text, spoken_in, _ in spoken(response.content)] == heard


@pytest.mark.parametrize("language", sorted(voices.LANGUAGES))
def test_every_language_is_one_of_twilios_and_has_all_sentences_or_none(language: str) -> None:
    found = [translate(sentence, language) for sentence in SENTENCES]
    assert None not in found or set(found) == {None}
    for sentence in SENTENCES:
        ((text, spoken_in, _),) = spoken(str(twiml.say_and_hang_up(sentence, Voice(language))))
        assert (text, spoken_in) == (
            translate(sentence, language) or sentence,
            language if any(found) else "en-US",
        )


@pytest.mark.parametrize("nothing", ["", "  ", "\x0b", "\n\x00 "])
async def test_a_text_of_which_nothing_can_be_spoken_is_left_out(nothing: str) -> None:
    route = make_route(id="desk", number=OURS, disclosure=nothing, greeting=nothing)
    response = await WebhookClient(make_bridge([route])).twilio("/twilio/voice")
    assert [text for text, _, _ in spoken(response.content)] == [sentences.UNAVAILABLE]


@pytest.mark.parametrize(
    ("text", "language", "can_read"),
    [
        ("Hello.", "", True), ("Grüß Gott, où êtes-vous?", "", True), ("12345 !?", "zh-CN", True),
        ("您好。", "", False), ("您好。", "en-US", False), ("您好。", "zh-CN", True),
        ("您好。", "cmn-CN", True),
        ("您好。", "yue-HK", True), ("東京です", "ja-JP", True), ("こんにちは", "zh-CN", False),
        ("안녕하세요", "ko-KR", True), ("안녕하세요", "", False), ("Здравствуйте", "de-DE", False),
        ("Здравствуйте", "uk-UA", True), ("مرحبا", "arb", True), ("مرحبا", "ar-AE", True),
        ("שלום", "", False),
        ("नमस्ते", "hi-IN", True), ("สวัสดี", "", False), ("Thank you for calling 北京 Dental.", "en-GB", True),
        ("欢迎致电 ABC", "", False), ("", "", True),
    ],
)  # fmt: skip
def test_the_form_refuses_a_text_that_the_voice_cannot_read(text: str, language: str, can_read: bool) -> None:
    assert (voices.describe_foreign_script(text, language) == "") == can_read


BAD_VOICES = [
    ("xx-XX", "", "say_language"), ("Chinese", "", "say_language"), ("zh", "", "say_language"),
    ("zh-CN", "Polly.Joanna", "say_voice"), ("zh-CN", "man", "say_voice"), ("", "Polly.Zhiyu", "say_voice"),
    ("de-DE", "Google.cmn-CN-Standard-A", "say_voice"), ("de-DE", "Vicki", "say_voice"),
    ("de-DE", 'Polly.Vicki"/>', "say_voice"),
]  # fmt: skip


@pytest.mark.parametrize(("language", "voice", "field"), BAD_VOICES)
def test_what_twilio_would_warn_of_is_refused_as_a_setting(language: str, voice: str, field: str) -> None:
    assert "SAY_LANGUAGE and SAY_VOICE" in read(SAY_LANGUAGE=language, SAY_VOICE=voice)
    document = f"<Response><Say language='{language or 'en-US'}' voice='{voice or 'man'}'>x</Say></Response>"
    if '"' not in voice:
        assert twilio.parse(document)[1], document


def test_a_setting_is_normalized() -> None:
    assert read(SAY_LANGUAGE="zh_cn", SAY_VOICE="Polly.Zhiyu")["SAY_LANGUAGE"] == "zh-CN"


def route_of(**row: str) -> Route:
    PhoneNumber.objects.all().delete()
    PhoneNumber.objects.create(number=OURS, **row)
    (values,) = read_routes()
    return Route.resolve(BridgeConfig(), values)


class NumberTests(TestCase):
    def test_the_form_refuses_what_twilio_would_warn_of(self) -> None:
        row = {"number": OURS, "overrides": "{}", "active": "on", "discloses_ai": "true"}
        for language, voice, field in BAD_VOICES:
            form = NumberForm({**row, "say_language": language, "say_voice": voice})
            self.assertEqual(list(form.errors), [field], (language, voice))
        for name in ("greeting", "disclosure", "closed_message"):
            self.assertEqual(list(NumberForm({**row, name: "您好。"}).errors), [name])
            self.assertEqual(NumberForm({**row, name: "您好。", "say_language": "zh-CN"}).errors, {})
        form = NumberForm({**row, "say_language": " DE_de ", "say_voice": " Polly.Vicki-Neural "})
        self.assertEqual(form.errors, {})
        number = form.save()
        self.assertEqual((number.say_language, number.say_voice), ("de-DE", "Polly.Vicki-Neural"))

    def test_a_row_overrides_the_settings_and_what_is_not_valid_is_ignored(self) -> None:
        with override_settings(SAY_LANGUAGE="de-DE", SAY_VOICE="Polly.Vicki"):
            for language, voice, expected in (
                ("", "", ("de-DE", "Polly.Vicki")),
                ("", "Polly.Hans", ("de-DE", "Polly.Hans")),
                ("zh-CN", "", ("zh-CN", "")),  # the setting's voice does not speak it
                ("zh-CN", "Polly.Joanna", ("zh-CN", "")),
                ("Klingon", "", ("de-DE", "Polly.Vicki")),
            ):
                route = route_of(say_language=language, say_voice=voice)
                self.assertEqual((route.say_language, route.say_voice), expected)

    def test_a_number_inherits_the_disclosure_of_its_own_language_only(self) -> None:
        with override_settings(SAY_LANGUAGE="de-DE", AI_DISCLOSURE="Hier spricht eine KI."):
            for language, own, expected in (
                ("", "", "Hier spricht eine KI."),
                ("de-AT", "", "Hier spricht eine KI."),
                ("zh-CN", "", ENGLISH),  # spoken in Chinese
                ("zh-CN", "我是机器人。", "我是机器人。"),
            ):
                self.assertEqual(route_of(say_language=language, disclosure=own).disclosure, expected)
