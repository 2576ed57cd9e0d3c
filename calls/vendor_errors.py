"""The error that a request to Twilio or Vapi ends with, whatever went wrong."""

from __future__ import annotations


class VendorError(Exception):
    """A request to a vendor failed. The message is a sentence that staff pages and commands show as it is."""

    def __init__(self, sentence: str, *, may_have_happened: bool = False, status: int | None = None) -> None:
        super().__init__(sentence)
        # The answer was lost or late: the vendor may have done what was asked.
        self.may_have_happened = may_have_happened
        self.status = status  # the vendor's HTTP status, None without an answer
