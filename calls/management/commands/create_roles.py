"""`manage.py create_roles [--user NAME --role ROLE]`: the groups of staff, and who is in them."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError, CommandParser

from calls.staff.roles import ROLES, create_roles, give_role


class Command(BaseCommand):
    help = (
        "Makes the groups viewer (masked numbers), operator (whole numbers, export, notes, live actions) "
        "and admin, or puts them right; with --user gives a role to somebody."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--user", help="whose role to set; the user exists already")
        parser.add_argument("--role", choices=ROLES)

    def handle(self, *args: Any, user: str | None, role: str | None, **options: Any) -> None:
        if bool(user) != bool(role):
            raise CommandError("--user and --role belong together.")
        for name, count in create_roles().items():
            self.stdout.write(f"{name}: {count} permissions")
        if user and role:
            found = User.objects.filter(username=user).first()
            if found is None:
                raise CommandError(
                    f"There is no user {user!r}: make one in the admin, or with `manage.py createsuperuser`."
                )
            give_role(found, role)
            self.stdout.write(f"{user} is {role} now.")
