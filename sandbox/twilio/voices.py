"""The languages and voices of `<Say>`, as in Twilio's documentation, and the warnings that others cause."""

import re

INVALID_VOICE, INVALID_LANGUAGE = 13511, 13512

# Language -> regions.
REGIONS = {
    "af": "ZA", "ar": "AE XA", "bg": "BG", "bn": "IN", "ca": "ES", "cmn": "CN TW", "cs": "CZ", "cy": "GB",
    "da": "DK", "de": "AT DE", "el": "GR", "en": "AU CA GB GB-WLS IE IN NZ US ZA", "es": "ES MX US",
    "eu": "ES", "fi": "FI", "fil": "PH", "fr": "BE CA FR", "gl": "ES", "gu": "IN", "he": "IL", "hi": "IN",
    "hu": "HU", "id": "ID", "is": "IS", "it": "IT", "ja": "JP", "kn": "IN", "ko": "KR", "lt": "LT",
    "lv": "LV", "ml": "IN", "mr": "IN", "ms": "MY", "nb": "NO", "nl": "BE NL", "pa": "IN", "pl": "PL",
    "pt": "BR PT", "ro": "RO", "ru": "RU", "sk": "SK", "sr": "RS", "sv": "SE", "ta": "IN", "te": "IN",
    "th": "TH", "tr": "TR", "uk": "UA", "vi": "VN", "yue": "CN HK", "zh": "CN HK TW",
}  # fmt: skip
# The languages that man and woman speak have a short form, too.
BASIC = ("en", "en-gb", "es", "fr", "de", "it")
# One voice or more of each language of Polly, enough to notice a voice of another language.
POLLY = {
    "Zhiyu": "zh", "Hiujin": "yue", "Vicki": "de", "Marlene": "de", "Hans": "de", "Celine": "fr", "Lea": "fr",
    "Mathieu": "fr", "Conchita": "es", "Lucia": "es", "Mia": "es", "Lupe": "es", "Carla": "it",
    "Bianca": "it",
    "Mizuki": "ja", "Takumi": "ja", "Seoyeon": "ko", "Camila": "pt", "Ines": "pt", "Lotte": "nl",
    "Amy": "en", "Brian": "en", "Emma": "en", "Joanna": "en", "Matthew": "en", "Salli": "en",
}  # fmt: skip


def voice_problems(language: str, voice: str) -> list[tuple[int, str]]:
    """Error codes and texts; none if Twilio speaks so."""
    base, _, region = language.partition("-")
    is_known = not language or language in ("arb", *BASIC) or region in REGIONS.get(base, "").split()
    problems = [] if is_known else [(INVALID_LANGUAGE, f"<Say> has the invalid language {language!r}")]
    spoken = {"": "en", "cmn": "zh", "arb": "ar"}.get(base, base)
    if not voice:
        return problems
    polly = re.fullmatch(r"Polly\.([A-Z][a-z]+)(?:-Neural|-Generative)?", voice)
    google = re.fullmatch(r"Google\.([a-z]{2,3})-[A-Z]{2}-\w+-\w+", voice)
    if voice in ("man", "woman"):
        speaks = spoken if spoken in BASIC else ""
    elif voice == "alice":
        speaks = spoken
    elif polly:
        speaks = POLLY.get(polly[1], spoken)
    elif google:
        speaks = {"cmn": "zh"}.get(google[1], google[1])
    else:
        return [*problems, (INVALID_VOICE, f"<Say> has the invalid voice {voice!r}")]
    if is_known and speaks != spoken:
        problems.append((INVALID_VOICE, f"<Say> voice {voice!r} does not speak {language or 'en-US'}"))
    return problems
