"""New users of the staff pages: one choice of a role, and a login that works or says why not."""

from __future__ import annotations

from html import unescape
from typing import Any

from django.contrib.auth.models import Group, User
from django.test import Client, TestCase
from django.urls import reverse

from calls.staff.roles import ROLES, assign_role, get_role
from calls.tests.builders import make_staff
from calls.viewer import Viewer

ADD, LOGIN = "/admin/auth/user/add/", "/admin/login/"
PASSWORD = "correct horse battery"


class RoleFormTests(TestCase):
    def setUp(self) -> None:
        self.admin = make_staff(is_superuser=True)
        self.client.force_login(self.admin)

    def add(self, **form: str) -> Any:
        given = {"username": "new", "password1": PASSWORD, "password2": PASSWORD, "usable_password": "true"}
        return self.client.post(ADD, given | form)

    def change(self, user: User, **form: Any) -> User:
        values = {
            "username": user.username, "is_active": "on", "date_joined_0": "2026-01-01",
            "date_joined_1": "00:00:00", "is_staff": "on" if user.is_staff else "",
            "groups": [group.pk for group in user.groups.all()], "role": get_role(user),
        }  # fmt: skip
        changed = self.client.post(reverse("admin:auth_user_change", args=[user.pk]), values | form)
        self.assertEqual(changed.status_code, 302, changed.content[-3000:])
        return User.objects.get(pk=user.pk)

    def test_a_new_user_of_each_role_can_log_in_and_may_do_what_the_role_allows(self) -> None:
        for role in ROLES:
            with self.subTest(role):
                self.assertEqual(self.add(username=role, role=role).status_code, 302)
                user = User.objects.get(username=role)
                self.assertEqual((user.is_staff, user.is_superuser, get_role(user)), (True, False, role))
                client = Client()
                client.post(f"{LOGIN}?next=/", {"username": role, "password": PASSWORD})
                self.assertEqual(client.get("/").status_code, 200)
                self.assertEqual(Viewer.for_user(user).can_act, role != "viewer")
                self.assertEqual(user.has_perm("auth.add_user"), role == "admin")

    def test_the_list_names_the_role_of_each_user(self) -> None:
        for role in ROLES:
            assign_role(make_staff(username=f"a-{role}"), role)
        both = make_staff(username="two-roles")
        both.groups.set(Group.objects.filter(name__in=ROLES))
        page = unescape(self.client.get(reverse("admin:auth_user_changelist")).content.decode())
        for text in (*(role.capitalize() for role in ROLES), "None of the roles", "All permissions", "Today"):
            self.assertIn(text, page)

    def test_a_role_is_required_and_one_of_three(self) -> None:
        for role in ("", "owner", "Admin"):
            with self.subTest(role):
                self.assertEqual(self.add(role=role).status_code, 200)
                self.assertFalse(User.objects.filter(username="new").exists())

    def test_a_changed_role_replaces_the_old_one(self) -> None:
        other = Group.objects.create(name="night shift")
        user = make_staff(is_staff=False)
        user.groups.add(other)
        for role in ("admin", "viewer"):
            user = self.change(user, role=role)
            self.assertEqual((get_role(user), user.is_staff), (role, True))
            self.assertIn(other, user.groups.all())

    def test_an_unchanged_role_leaves_groups_and_staff_status_as_they_were_set(self) -> None:
        user = make_staff()
        assign_role(user, "viewer")
        user = self.change(user, is_staff="")
        self.assertEqual((get_role(user), user.is_staff), ("viewer", False))
        user = self.change(user, groups=[], first_name="Ada")
        self.assertEqual((get_role(user), user.first_name), ("", "Ada"))


class LoginTests(TestCase):
    def test_the_error_says_what_is_wrong(self) -> None:
        no_access, wrong = "has no access to the staff pages", "correct username and password"
        for name, password, is_staff, is_active, expected in (
            ("right", PASSWORD, True, True, None),
            ("not-staff", PASSWORD, False, True, no_access),
            ("not-staff-and-wrong", "wrong", False, True, wrong),  # the password is needed to learn more
            ("wrong", "wrong", True, True, wrong),
            ("inactive", PASSWORD, True, False, wrong),
        ):
            with self.subTest(name):
                user = make_staff(username=name, is_staff=is_staff, is_active=is_active)
                user.set_password(PASSWORD)
                user.save()
                response = self.client.post(LOGIN, {"username": name, "password": password})
                if expected is None:
                    self.assertEqual(response.status_code, 302)
                    self.client.logout()
                else:
                    self.assertIn(expected, unescape(response.content.decode()))
