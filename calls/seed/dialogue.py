"""Generates what callers and assistants say in seeded calls.

A few dozen sentences with slots, filled from a vocabulary of a few thousand words. The words' frequencies
follow Zipf's law, as in natural language: a few names and streets are very common, most are rare. That makes
measurements of the search realistic. All randomness comes from the given generator.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import accumulate, product
from random import Random

GREETINGS = (
    "Thanks for calling {town} Dental, how can I help?",
    "Good morning, {town} Veterinary Clinic, what can I do for you?",
    "Hello, this is the {town} service desk. How can I help you today?",
)
CALLER_LINES = (
    "Hi, I need to move my appointment to {day}.",
    "Could I make an appointment with doctor {name} on {day}?",
    "My name is {first} {name}, I have an appointment at {hour}.",
    "I would like to cancel my appointment on {day}, please.",
    "It is {first} {name}, {number} {street}, in {town}.",
    "The reference on the letter is {code}.",
    "Yes, {day} at {hour} would be perfect.",
    "No, {day} does not work for me. Do you have anything later?",
    "Can you tell me what the {thing} would cost?",
    "I am calling about the {thing}, it still has not arrived.",
    "Somebody called {first} left me a message about a {thing}.",
    "Is there parking near {street}?",
    "Could you send that to {first} {name} as well?",
    "Sorry, the line is bad. Could you repeat that?",
    "I have a question about invoice {code}.",
    "Do you open before {hour} on {day}?",
    "My daughter {first} needs to come along, is that all right?",
    "Yes.",
    "No, thank you, that is all.",
    "Great, see you on {day}.",
)
ASSISTANT_LINES = (
    "Of course. What name is it under?",
    "I have you on {day} at {hour}. Would you like me to move it?",
    "Doctor {name} is free on {day} at {hour}. Shall I book that appointment?",
    "Thank you, {first}. Could you spell the surname for me?",
    "Your appointment is confirmed for {day} at {hour}.",
    "Let me check that for you, one moment please.",
    "I can see order {code}; the {thing} leaves our shop on {day}.",
    "We are at {number} {street}, opposite the {town} library.",
    "The {thing} is {number} dollars, and the first visit is free.",
    "I have sent a confirmation to your phone. Is there anything else?",
    "I am sorry, I did not catch that. Could you say it again?",
    "There is parking behind the building, off {street}.",
    "I have noted that for {first} {name}.",
    "We open at {hour} on {day}.",
    "I will ask {first} to call you back before {hour}.",
)
GOODBYE = "Thank you for calling. Goodbye."

# For measuring the search: a word in one of a few lines, one of a few thousand lines, and one of the rarest.
COMMON_WORD, UNCOMMON_WORD, RARE_WORD = "appointment", "wheelchair", "zellercroft"

_DAYS = (
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Monday morning",
    "Friday afternoon",
)
_HOURS = (
    "eight",
    "half past eight",
    "nine",
    "ten",
    "half past ten",
    "eleven",
    "noon",
    "two",
    "three",
    "four",
)
_FIRST = (
    "Anna", "James", "Maria", "David", "Sarah", "Omar", "Emma", "Luis", "Grace", "Peter", "Amina", "Jack",
    "Nina", "Ravi", "Chloe", "Ivan", "Fatima", "Oscar", "Julia", "Kenji", "Ruth", "Mateo", "Elif", "Sean",
    "Ingrid", "Kwame", "Lena", "Pablo", "Mei", "Walter", "Zoe", "Yusuf", "Agnes", "Felix", "Priya", "Dylan",
)  # fmt: skip
_THINGS = (
    "cleaning", "crown", "filling", "check-up", "prescription", "delivery", "bracket", "battery", "charger",
    "leash", "vaccination", "passport", "umbrella", "heater", "compressor", "wheelchair", "trampoline",
    "microscope", "harpsichord", "telescope",
)  # fmt: skip
_HEADS = (
    "Ash", "Brook", "Carl", "Dun", "East", "Fair", "Glen", "Hart", "Kings", "Lang", "Mill", "Nor", "Oak",
    "Pem", "Red", "Stan", "Thorn", "Under", "West", "Wood", "Black", "Cold", "Elder", "Farn", "Gold", "Hazel",
    "Iron", "Lin", "Marsh", "North", "Over", "Queens", "Rock", "Shep", "Tarn", "Ulver", "Whit",
    "Yar", "Zeller",
)  # fmt: skip
_NAME_TAILS = (
    "ley", "ford", "ton", "well", "wood", "man", "son", "field", "er", "worth", "by", "ham", "land", "shaw",
    "stone", "bury", "more", "gate", "ridge", "brook", "combe", "hurst", "wick", "thwaite", "croft",
)  # fmt: skip
_STREET_TAILS = (
    "dale", "view", "side", "mount", "meadow", "haven", "crest", "bank", "grove", "park", "bridge", "church",
    "orchard", "point", "water", "hill", "mead", "fen", "spring", "moor", "cliff", "vale", "garth", "holm",
)  # fmt: skip
_STREET_KINDS = ("Street", "Road", "Lane", "Avenue")

NAMES = tuple(head + tail for tail, head in product(_NAME_TAILS, _HEADS))
STREETS = tuple(head + tail for tail, head in product(_STREET_TAILS, _HEADS))
TOWNS = tuple(head + "haven" for head in _HEADS)

_DRAW_SIZE = 4096  # drawing many words at once is fast
_SLOT = re.compile(r"{(\w+)}")

NextText = Callable[[], str]


class DialogueGenerator:
    """Generates lines without end. Each attribute is a function that returns the next text."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.first = self._words(_FIRST, 0.6)
        self.name = self._words(NAMES, 1.1)
        self._slots: dict[str, Callable[[], object]] = {
            "first": self.first,
            "name": self.name,
            "day": self._words(_DAYS),
            "hour": self._words(_HOURS),
            "street": self._words([f"{name} {kind}" for kind in _STREET_KINDS for name in STREETS], 1.0),
            "town": self._words(TOWNS, 0.8),
            "thing": self._words(_THINGS, 1.4),
            "number": lambda: str(random.randrange(1, 400)),
            "code": lambda: f"{random.choice(string.ascii_uppercase)}{random.randrange(1000, 10_000)}",
        }
        self.greeting = self._lines(GREETINGS)
        self.caller_line = self._lines(CALLER_LINES)
        self.assistant_line = self._lines(ASSISTANT_LINES)

    def _words(self, words: Sequence[str], exponent: float = 0.0) -> NextText:
        """Words by Zipf's law: the n-th word is n ** exponent times rarer than the first."""
        totals = list(accumulate(1 / rank**exponent for rank in range(1, len(words) + 1)))

        def draw() -> Iterator[str]:
            while True:
                yield from self._random.choices(words, cum_weights=totals, k=_DRAW_SIZE)

        drawn: Iterator[str] = draw()
        return partial(next, drawn)

    def _lines(self, sentences: Sequence[str]) -> NextText:
        """Sentences with their slots filled, all equally frequent."""
        prepared = [
            (_SLOT.sub("%s", sentence), [self._slots[name] for name in _SLOT.findall(sentence)])
            for sentence in sentences
        ]

        def next_line() -> str:
            sentence, slots = self._random.choice(prepared)
            return sentence % tuple([slot() for slot in slots])

        return next_line
