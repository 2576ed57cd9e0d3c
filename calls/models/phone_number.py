"""The table of our phone numbers."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from calls.masking import mask_number


class PhoneNumber(models.Model):
    """One of our phone numbers and how calls to it are handled. Numbers without a row use the settings."""

    number = models.CharField(max_length=64, unique=True)
    label = models.CharField(max_length=128, blank=True)
    assistant_id = models.CharField(
        max_length=64, blank=True, help_text="Vapi's id of the assistant. Blank: default."
    )
    overrides = models.JSONField(default=dict, blank=True, help_text="Sent to Vapi as assistantOverrides.")
    endpointing_ms = models.PositiveIntegerField(null=True, blank=True)
    say_language = models.CharField(
        "language", max_length=16, blank=True, help_text="Of Twilio's voice, such as zh-CN. Blank: default."
    )
    say_voice = models.CharField(
        "voice", max_length=64, blank=True, help_text="Twilio's voice, such as Polly.Zhiyu. Blank: default."
    )
    # None: the setting's value.
    discloses_ai = models.BooleanField(
        "AI disclosure", null=True, blank=True, help_text="Spoken to callers before anything else."
    )
    disclosure = models.TextField(blank=True, help_text="The words of the disclosure. Blank: default.")
    greeting = models.TextField(
        blank=True, help_text="Spoken before the assistant is connected, such as a consent text."
    )
    hours = models.TextField(
        blank=True,
        help_text="When the assistant answers, such as Mon-Fri 08:00-18:00, Sat 09:00-12:00. Blank: always.",
    )
    time_zone = models.CharField(
        max_length=64,
        blank=True,
        help_text="Time zone of the opening hours, such as Europe/Berlin. Blank: UTC.",
    )
    closed_message = models.TextField(
        blank=True, help_text="Spoken outside the opening hours if there is no fallback number."
    )
    fallback_number = models.CharField(
        max_length=64, blank=True, help_text="Dialed when the assistant fails."
    )
    record_calls = models.BooleanField(null=True, blank=True)  # None: the setting's value
    max_concurrent_calls = models.PositiveIntegerField(null=True, blank=True)
    max_call_seconds = models.PositiveIntegerField(null=True, blank=True)
    active = models.BooleanField(default=True)

    class Meta:
        ordering = ("number",)

    def __str__(self) -> str:
        return f"{self.label} ({mask_number(self.number)})" if self.label else mask_number(self.number)

    @staticmethod
    def fallback_for(number: PhoneNumber | None) -> str:
        """The number that a call to `number` is transferred to, else the setting's; empty: there is none.

        `number` is None where our number has no row.
        """
        own = number.fallback_number if number and number.active else ""
        return own or str(settings.FALLBACK_NUMBER)
