"""Imports the admin classes, which Django looks for in this module."""

from calls.staff.admin import accounts, calls, numbers

__all__ = ["accounts", "calls", "numbers"]
