"""The three roles of staff, as groups of permissions. A group may be changed afterwards: pages ask for
permissions, never for roles."""

from __future__ import annotations

from django.contrib.auth.models import Group, Permission, User
from django.db import transaction

_VIEWER = frozenset({"view_call", "view_utterance", "view_turn", "view_callevent", "view_callflag"})
_OPERATOR = _VIEWER | {
    "view_numbers", "export_call", "act_on_call", "place_test_call", "place_call", "change_call",
    "view_phonenumber",
}  # fmt: skip

VIEWER, OPERATOR, ADMIN = "viewer", "operator", "admin"
ROLES = (VIEWER, OPERATOR, ADMIN)


def permissions_of(role: str) -> list[Permission]:
    """What a role may do; `admin` may do everything with calls, users and roles."""
    every = Permission.objects.select_related("content_type")
    ours = every.filter(content_type__app_label="calls")
    if role == ADMIN:
        accounts = every.filter(content_type__app_label="auth", content_type__model__in=("user", "group"))
        return [*ours, *accounts]
    return list(ours.filter(codename__in=_OPERATOR if role == OPERATOR else _VIEWER))


def create_roles() -> dict[str, int]:
    """Make the groups, or put them right; returns how many permissions each has."""
    counts = {}
    with transaction.atomic():
        for role in ROLES:
            group, _ = Group.objects.get_or_create(name=role)
            found = permissions_of(role)
            group.permissions.set(found)
            counts[role] = len(found)
    return counts


def give_role(user: User, role: str) -> None:
    """This role and none of the other two; who has one may log in to the pages."""
    with transaction.atomic():
        user.groups.remove(*Group.objects.filter(name__in=ROLES))
        user.groups.add(Group.objects.get(name=role))
        user.is_staff = True
        user.save(update_fields=["is_staff"])
