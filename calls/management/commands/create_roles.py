"""`./manage.py create_roles [--user NAME --role ROLE]`: create the staff groups, assign a role."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import CommandError, CommandParser

from calls.management.database import DatabaseCommand
from calls.staff.roles import ROLES, assign_role, create_roles


class Command(DatabaseCommand):
    help = (
        "Creates the groups viewer (masked numbers), operator (full numbers, recordings, export, notes, live "
        "actions, outbound calls) and admin, or resets their permissions. With --user and --role, assigns a "
        "role to a user."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--user", help="name of an existing user")
        parser.add_argument("--role", choices=ROLES)

    def handle(self, *args: Any, user: str | None, role: str | None, **options: Any) -> None:
        if bool(user) != bool(role):
            raise CommandError("Give both --user and --role, or neither.")
        for name, count in create_roles().items():
            self.stdout.write(f"{name}: {count} permissions")
        if user and role:
            account = User.objects.filter(username=user).first()
            if account is None:
                raise CommandError(
                    f"There is no user {user!r}. Create it on the Staff page, or with "
                    "`./manage.py createsuperuser`."
                )
            assign_role(account, role)
            self.stdout.write(f"{user} now has the role {role}.")
