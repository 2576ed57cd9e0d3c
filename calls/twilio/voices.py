"""The values of `language` and `voice` that `<Say>` accepts. Pure.

Twilio logs a warning (13511, 13512) for others, and may say nothing. Source:
https://www.twilio.com/docs/voice/twiml/say/text-speech
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

DEFAULT_LANGUAGE = "en-US"  # Twilio's, where no language is given

LANGUAGES = frozenset({
    "af-ZA", "ar-AE", "ar-XA", "arb", "bg-BG", "bn-IN", "ca-ES", "cmn-CN", "cmn-TW", "cs-CZ", "cy-GB",
    "da-DK", "de-AT", "de-DE", "el-GR", "en-AU", "en-CA", "en-GB", "en-GB-WLS", "en-IE", "en-IN", "en-NZ",
    "en-US", "en-ZA", "es-ES", "es-MX", "es-US", "eu-ES", "fi-FI", "fil-PH", "fr-BE", "fr-CA", "fr-FR",
    "gl-ES", "gu-IN", "he-IL", "hi-IN", "hu-HU", "id-ID", "is-IS", "it-IT", "ja-JP", "kn-IN", "ko-KR",
    "lt-LT", "lv-LV", "ml-IN", "mr-IN", "ms-MY", "nb-NO", "nl-BE", "nl-NL", "pa-IN", "pl-PL", "pt-BR",
    "pt-PT", "ro-RO", "ru-RU", "sk-SK", "sr-RS", "sv-SE", "ta-IN", "te-IN", "th-TH", "tr-TR", "uk-UA",
    "vi-VN", "yue-CN", "yue-HK", "zh-CN", "zh-HK", "zh-TW",
})  # fmt: skip

# Twilio's own voices, and the languages that they speak.
_BASIC_VOICES = {
    "man": ("en", "es", "fr", "de", "it"),
    "woman": ("en", "es", "fr", "de", "it"),
    "alice": (
        "ca", "da", "de", "en", "es", "fi", "fr", "it", "ja", "ko", "nb", "nl", "pl", "pt", "ru", "sv", "zh",
    ),
}  # fmt: skip

_POLLY = re.compile(r"Polly\.[A-Z][a-z]+(-Neural|-Generative)?")
_GOOGLE = re.compile(r"Google\.([a-z]{2,3}-[A-Z]{2})-[A-Za-z0-9]+-[A-Za-z0-9]+")

# Polly's voices by language. Others are not checked, because the list grows.
_POLLY_NAMES = {
    "ar": "Zeina Hala Zayd", "ca": "Arlet", "cs": "Jitka", "cy": "Gwyneth", "da": "Naja Mads Sofie",
    "de": "Marlene Vicki Hans Daniel Hannah",
    "en": "Amy Brian Emma Geraint Ivy Joanna Joey Justin Kendra Kevin Kimberly Matthew Nicole Olivia Raveena "
    "Russell Ruth Salli Stephen",
    "es": "Conchita Lucia Enrique Mia Lupe Penelope Miguel Andres Sergio Pedro",
    "fi": "Suvi", "fr": "Celine Lea Mathieu Remi Chantal Gabrielle Liam Isabelle", "is": "Dora Karl",
    "it": "Carla Bianca Giorgio Adriano", "ja": "Mizuki Takumi Kazuha Tomoko", "ko": "Seoyeon Jihye",
    "nb": "Liv Ida", "nl": "Lotte Ruben Laura Lisa", "pl": "Ewa Maja Jacek Jan Ola",
    "pt": "Camila Vitoria Ricardo Thiago Ines Cristiano", "ro": "Carmen", "ru": "Tatyana Maxim",
    "sv": "Astrid Elin", "tr": "Filiz Burcu", "yue": "Hiujin", "zh": "Zhiyu",
}  # fmt: skip
_POLLY_LANGUAGES = {name: language for language, names in _POLLY_NAMES.items() for name in names.split()}


@dataclass(frozen=True, slots=True)
class Voice:
    """How `<Say>` speaks. Empty: Twilio's default, and for a language the account's voice for it."""

    language: str = ""
    name: str = ""


def normalize_language(text: str) -> str:
    """The language as Twilio writes it, whatever its case and separator; unknown ones unchanged."""
    wanted = text.strip().replace("_", "-")
    return next((known for known in LANGUAGES if known.lower() == wanted.lower()), wanted)


def base_language(language: str) -> str:
    """`de` of `de-AT`. Codes of one language are one: `cmn` and `zh`, `arb` and `ar`."""
    base = (language or DEFAULT_LANGUAGE).partition("-")[0]
    return {"cmn": "zh", "arb": "ar"}.get(base, base)


# The languages that are written in a script, by the first word of its characters' Unicode names.
_SCRIPTS = {
    "CJK": ("zh", "yue", "ja", "ko"), "HIRAGANA": ("ja",), "KATAKANA": ("ja",), "HANGUL": ("ko",),
    "CYRILLIC": ("bg", "ru", "sr", "uk"), "GREEK": ("el",), "HEBREW": ("he",), "ARABIC": ("ar",),
    "DEVANAGARI": ("hi", "mr"), "BENGALI": ("bn",), "GUJARATI": ("gu",), "GURMUKHI": ("pa",),
    "KANNADA": ("kn",), "MALAYALAM": ("ml",), "TAMIL": ("ta",), "TELUGU": ("te",), "THAI": ("th",),
}  # fmt: skip


def describe_foreign_script(text: str, language: str) -> str:
    """A sentence that says that a voice of the language cannot read the text; empty if it can."""
    letters = [char for char in text if char.isalpha()]
    foreign = sum(
        base_language(language) not in _SCRIPTS[script]
        for char in letters
        if (script := unicodedata.name(char, "").partition(" ")[0]) in _SCRIPTS
    )
    if 2 * foreign <= len(letters):  # a name or a word in another script does no harm
        return ""
    return f"Twilio's voice for {language or DEFAULT_LANGUAGE} cannot read this script. Set the language."


def describe_voice_problem(voice: Voice) -> str:
    """Why Twilio would not accept the voice, as a sentence; empty if it would."""
    if voice.language and voice.language not in LANGUAGES:
        return (
            f"“{voice.language[:64]}” is not a language of Twilio's voices. Enter one such as de-DE or zh-CN."
        )
    if not voice.name:
        return ""
    language = base_language(voice.language)
    if voice.name in _BASIC_VOICES:
        speaks: tuple[str, ...] = _BASIC_VOICES[voice.name]
    elif _POLLY.fullmatch(voice.name):
        name = re.split(r"[.-]", voice.name)[1]
        # Aditi and Kajal speak English and Hindi.
        speaks = ("en", "hi") if name in ("Aditi", "Kajal") else (_POLLY_LANGUAGES.get(name, language),)
    elif match := _GOOGLE.fullmatch(voice.name):
        speaks = (base_language(match[1]),)
    else:
        return (
            f"“{voice.name[:64]}” is not one of Twilio's voices. Enter one such as Polly.Vicki, "
            "Polly.Vicki-Neural or Google.de-DE-Standard-A."
        )
    if language not in speaks:
        return f"{voice.name} does not speak {voice.language or DEFAULT_LANGUAGE}."
    return ""
