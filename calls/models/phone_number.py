"""The table of our phone numbers."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from calls.masking import mask_number


class PhoneNumber(models.Model):
    """One of our phone numbers and how calls to it are handled. Numbers without a row use the settings.

    The form of the admin (`staff/admin/numbers.py`) explains each field.
    """

    number = models.CharField(max_length=64, unique=True)
    label = models.CharField(max_length=128, blank=True)
    assistant_id = models.CharField(max_length=64, blank=True)
    overrides = models.JSONField(default=dict, blank=True)
    endpointing_ms = models.PositiveIntegerField(null=True, blank=True)
    say_language = models.CharField("language", max_length=16, blank=True)
    say_voice = models.CharField("voice", max_length=64, blank=True)
    # None: the setting's value.
    discloses_ai = models.BooleanField("AI disclosure", null=True, blank=True)
    disclosure = models.TextField(blank=True)
    greeting = models.TextField(blank=True)
    hours = models.TextField(blank=True)
    time_zone = models.CharField(max_length=64, blank=True)
    closed_message = models.TextField(blank=True)
    fallback_number = models.CharField(max_length=64, blank=True)
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
