"""Django looks for admin classes here; they are in `calls/staff/admin/`."""

from calls.staff.admin import calls, numbers

__all__ = ["calls", "numbers"]
