"""`./manage.py runserver`: Daphne's, which says at once that it cannot listen and ends.

Daphne's own would log one line and keep running without a port.
"""

from __future__ import annotations

from typing import Any

from daphne.management.commands.runserver import Command as DaphneCommand

from calls.management.arguments import require_free_port


class Command(DaphneCommand):  # type: ignore[misc]
    def run(self, **options: Any) -> None:
        require_free_port(self.addr, int(self.port))
        super().run(**options)
