"""The three staff roles, as groups of permissions.

Groups can be changed in the admin afterwards: pages check permissions, never roles.
"""

from __future__ import annotations

from django.contrib.auth.models import Group, Permission, User
from django.db import transaction

_VIEWER_CODENAMES = frozenset({"view_call", "view_utterance", "view_turn", "view_callevent", "view_callflag"})
_OPERATOR_CODENAMES = _VIEWER_CODENAMES | {
    "view_numbers", "view_recording", "export_call", "act_on_call", "place_test_call", "place_call",
    "change_call", "view_phonenumber",
}  # fmt: skip

VIEWER, OPERATOR, ADMIN = "viewer", "operator", "admin"
ROLES = (VIEWER, OPERATOR, ADMIN)


def get_permissions(role: str) -> list[Permission]:
    """The permissions of a role. `admin` has all permissions on calls, users and groups."""
    permissions = Permission.objects.select_related("content_type")
    call_permissions = permissions.filter(content_type__app_label="calls")
    if role == ADMIN:
        account_permissions = permissions.filter(
            content_type__app_label="auth", content_type__model__in=("user", "group")
        )
        return [*call_permissions, *account_permissions]
    codenames = _OPERATOR_CODENAMES if role == OPERATOR else _VIEWER_CODENAMES
    return list(call_permissions.filter(codename__in=codenames))


def create_roles() -> dict[str, int]:
    """Create the groups, or reset their permissions. Returns the number of permissions per role."""
    counts = {}
    with transaction.atomic():
        for role in ROLES:
            group, _ = Group.objects.get_or_create(name=role)
            permissions = get_permissions(role)
            group.permissions.set(permissions)
            counts[role] = len(permissions)
    return counts


def get_role(user: User) -> str:
    """The user's role; empty for no role, or more than one."""
    roles = user.groups.filter(name__in=ROLES).values_list("name", flat=True)
    return roles[0] if len(roles) == 1 else ""


def assign_role(user: User, role: str) -> None:
    """Give a user this role instead of any other, and staff status, which the login page requires."""
    with transaction.atomic():
        if not Group.objects.filter(name=role).exists():
            create_roles()
        user.groups.remove(*Group.objects.filter(name__in=ROLES))
        user.groups.add(Group.objects.get(name=role))
        user.is_staff = True
        user.save(update_fields=["is_staff"])
