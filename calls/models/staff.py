"""The tables of what staff do: the audit log, and the searches that they saved."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import F
from django.urls import reverse
from django.utils import timezone

from calls.models.call import Call

# By the stored name.
ACTION_LABELS = {
    "opened": "Opened the call",
    "hang-up": "Hung up",
    "say": "Sent a message to the assistant",
    "transfer": "Transferred the caller",
    "note": "Changed outcome or note",
    "export": "Exported calls",
    "test-call": "Placed a test call",
    "call-back": "Called back",
    "drain": "Stopped accepting calls",
    "accept-calls": "Resumed accepting calls",
}


class AuditEntry(models.Model):
    """One entry of the audit log: a user opened a call or acted on it.

    Written by pages, never changed.
    """

    call = models.ForeignKey(Call, models.SET_NULL, null=True, related_name="audit", db_index=False)
    call_sid = models.CharField(max_length=64)  # stays when the call is deleted
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+")
    username = models.CharField(max_length=150)  # stays when the user is deleted
    action = models.CharField(max_length=32)  # a key of `ACTION_LABELS`
    detail = models.CharField(max_length=255, blank=True)
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("-at", "-id")
        verbose_name_plural = "audit entries"
        indexes = [
            models.Index("call", F("at").desc(), name="audit_of_call"),
            models.Index(F("at").desc(), F("id").desc(), name="audit_newest_first"),
        ]

    def __str__(self) -> str:
        return f"{self.username}: {self.action}"

    @property
    def action_label(self) -> str:
        """The action as pages show it. One of another version is shown as stored."""
        return ACTION_LABELS.get(self.action, self.action)


class SavedView(models.Model):
    """A search of the list of calls that a user gave a name. `query` is the list's query string."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+", db_index=False)
    name = models.CharField(max_length=64)
    query = models.CharField(max_length=1024, blank=True)

    class Meta:
        ordering = ("name",)
        constraints = [models.UniqueConstraint(fields=["user", "name"], name="saved_view_once")]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return f"{reverse('call_list')}?{self.query}"
