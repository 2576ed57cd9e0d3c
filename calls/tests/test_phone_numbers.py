"""Phone numbers as people write them, and the codes of carriers for withheld numbers."""

from __future__ import annotations

import pytest
from django.core.exceptions import ValidationError

from calls.masking import mask_number
from calls.phone_numbers import choose_caller_id, is_allowed, is_e164, is_withheld, parse_e164
from calls.viewer import Viewer

OURS = "+15559870000"
WITHHELD = [
    "+266696687", "266696687", "+7378742833", "+2562533", "+8656696", "+86282452253", "+7748283",
    "+94844353", "anonymous", "Anonymous", "RESTRICTED", "unavailable", "Unknown", "withheld", "private",
    "blocked", "sip:anonymous@anonymous.invalid", "sip:+anonymous@example.com", "sips:anonymous@example.com",
    "sip:restricted@pbx.example.com;transport=tls", "sip:anonymous.invalid",
]  # fmt: skip
ADDRESSES = [
    "sip:desk7@pbx.example.com",
    "client:desk_7",
    "sips:+15550100134@example.com",
    "whatsapp:+15550100134",
]
SHORT = ["", "112", "40404", "desk7", "+0123456789", "+1555", "+1234567890123456", "+15550100134 ", "+٣٣٣"]
NUMBERS = ["+15550100134", "+442079460018", "+4930123456", "+266696687123", "+73787428331", "+2562533123"]


@pytest.mark.parametrize("number", WITHHELD)
def test_a_withheld_number_is_shown_as_withheld(number: str) -> None:
    assert is_withheld(number)
    assert mask_number(number) == "withheld"
    for can_view_numbers in (True, False):
        assert Viewer(can_view_numbers=can_view_numbers).display_number(number) == "Withheld"


@pytest.mark.parametrize("number", [number for number in WITHHELD if number[0] in "+2"])
def test_a_withheld_number_cannot_be_called(number: str) -> None:
    with pytest.raises(ValidationError):
        parse_e164(number)


@pytest.mark.parametrize("number", [*ADDRESSES, *SHORT, *NUMBERS])
def test_any_other_number_is_not_withheld(number: str) -> None:
    assert not is_withheld(number)


@pytest.mark.parametrize("number", [*WITHHELD, *ADDRESSES, *SHORT])
def test_a_caller_without_a_valid_number_gets_ours_as_caller_id(number: str) -> None:
    assert not is_e164(number)
    assert choose_caller_id(number, OURS) == OURS


@pytest.mark.parametrize("number", NUMBERS)
def test_a_caller_with_a_valid_number_keeps_it_as_caller_id(number: str) -> None:
    assert is_e164(number)
    assert choose_caller_id(number, OURS) == ""


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("+15550100134", "+15550100134"),
        ("+1 (555) 010-0134", "+15550100134"),
        ("+1.555.010.0134", "+15550100134"),
        ("tel:+15550100134", "+15550100134"),
        ("+44 (0)20 7946 0018", "+442079460018"),
        ("+44(0) 20 7946 0018", "+442079460018"),
        ("0044 20 7946 0018", "+442079460018"),
        ("+49 (0) 30 / 123 456", "+4930123456"),
        ("+49\u201330\u2013123456", "+4930123456"),
        ("+39 06 1234 5678", "+390612345678"),
        ("\u202a+442079460018\u202c", "+442079460018"),
        ("\ufeff+44\u200b20\u00a07946\u00ad0018\u200e", "+442079460018"),
        ("\uff0b\uff14\uff142079460018", "+442079460018"),
        ("+١٥٥٥٩٨٧٠٠٠٠", "+15559870000"),
        ("  +442079460018\n", "+442079460018"),
    ],
)
def test_it_parses_a_number_in_every_common_notation(text: str, number: str) -> None:
    assert parse_e164(text) == number
    assert is_allowed(number, [text])


@pytest.mark.parametrize(
    "text",
    ["", "+", "020 7946 0018", "5550100134", "+1555", "+15550100134 ext. 5", "+15550100134;ext=5",
     "+0123456789", "sip:desk7@pbx.example.com", "client:desk_7", "+1555010013455555", "call me",
     "+44 20 7946 0018 / 19"],
)  # fmt: skip
def test_it_rejects_text_that_is_not_exactly_one_number(text: str) -> None:
    with pytest.raises(ValidationError):
        parse_e164(text)
