"""The three staff roles and what each may see and change."""

from __future__ import annotations

from io import StringIO

import pytest
from django.contrib.auth.models import Group, User
from django.core.management import CommandError, call_command
from django.test import TestCase

from calls.tests.builders import make_staff
from calls.viewer import Viewer


class RoleTests(TestCase):
    def make_viewer(self, role: str) -> Viewer:
        user = make_staff()
        call_command("create_roles", user=user.username, role=role, stdout=StringIO())
        return Viewer.for_user(User.objects.get(pk=user.pk))

    def test_a_viewer_sees_calls_and_masked_numbers(self) -> None:
        viewer = self.make_viewer("viewer")
        self.assertEqual(viewer, Viewer(can_view_calls=True))
        self.assertEqual(viewer.display_number("+15550100134"), "+1 555 …0134")

    def test_an_operator_may_do_everything_except_administration(self) -> None:
        operator = self.make_viewer("operator")
        self.assertEqual(
            operator,
            Viewer(
                can_view_calls=True,
                can_view_numbers=True,
                can_annotate=True,
                can_export=True,
                can_act=True,
                can_place_test_calls=True,
                can_view_recordings=True,
            ),
        )
        self.assertEqual(operator.display_number("+15550100134"), "+15550100134")

    def test_an_admin_may_view_the_audit_log(self) -> None:
        self.assertTrue(self.make_viewer("admin").can_view_audit_log)

    def test_a_user_who_is_not_staff_may_do_nothing(self) -> None:
        user = make_staff("view_call", is_staff=False)
        self.assertEqual(Viewer.for_user(user), Viewer())

    def test_it_is_idempotent_and_resets_a_changed_group(self) -> None:
        first = StringIO()
        call_command("create_roles", stdout=first)
        permissions = Group.objects.get(name="operator").permissions
        expected = set(permissions.values_list("codename", flat=True))
        permissions.clear()
        second = StringIO()
        call_command("create_roles", stdout=second)
        self.assertEqual(first.getvalue(), second.getvalue())
        self.assertTrue(expected)
        self.assertEqual(set(permissions.values_list("codename", flat=True)), expected)
        self.assertEqual(Group.objects.count(), 3)

    def test_a_new_role_replaces_the_old_one(self) -> None:
        user = make_staff(is_staff=False)
        for role in ("admin", "viewer"):
            call_command("create_roles", user=user.username, role=role, stdout=StringIO())
        user = User.objects.get(pk=user.pk)
        self.assertEqual([group.name for group in user.groups.all()], ["viewer"])
        self.assertTrue(user.is_staff)

    def test_it_rejects_a_missing_user_or_role(self) -> None:
        with pytest.raises(CommandError, match="no user 'nobody'"):
            call_command("create_roles", user="nobody", role="viewer", stdout=StringIO())
        with pytest.raises(CommandError, match="both --user and --role"):
            call_command("create_roles", user="nobody", stdout=StringIO())
