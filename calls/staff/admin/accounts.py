"""Users, groups and the audit log in the admin. Pages call users “Staff”."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import AbstractBaseUser, Group, User
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.forms import (
    AdminPasswordChangeForm,
    AuthenticationForm,
    UserChangeForm,
    UserCreationForm,
)
from unfold.widgets import UnfoldAdminSelectWidget

from calls.models import AuditEntry
from calls.staff.admin.readonly import ReadOnlyMixin
from calls.staff.paginator import CappedPaginator
from calls.staff.roles import ADMIN, OPERATOR, ROLES, VIEWER, assign_role, get_role
from calls.templatetags.call_format import timestamp

# Registered by django.contrib.auth, without Unfold's forms.
admin.site.unregister(User)
admin.site.unregister(Group)


ROLE_CHOICES = (
    (VIEWER, "Viewer: sees calls, with masked numbers"),
    (
        OPERATOR,
        "Operator: also sees full numbers and recordings, exports, acts on live calls, places calls",
    ),
    (ADMIN, "Admin: also changes numbers and users"),
)
CUSTOM_CHOICE = ("", "None of these: staff status, groups and permissions as set below")


class LoginForm(AuthenticationForm):  # type: ignore[misc]
    """Tells apart a wrong password and an account without access."""

    def confirm_login_allowed(self, user: AbstractBaseUser) -> None:
        if user.is_active and not getattr(user, "is_staff", False):
            raise ValidationError(
                "This account has no access to the staff pages. Ask an admin to give it a role.",
                code="no_access",
            )
        super().confirm_login_allowed(user)


admin.site.login_form = LoginForm


class NewUserForm(UserCreationForm):  # type: ignore[misc]
    role = forms.ChoiceField(choices=(("", "Choose a role"), *ROLE_CHOICES), widget=UnfoldAdminSelectWidget)


class UserForm(UserChangeForm):  # type: ignore[misc]
    role = forms.ChoiceField(
        choices=(*ROLE_CHOICES, CUSTOM_CHOICE), required=False, widget=UnfoldAdminSelectWidget
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "role" in self.fields and self.instance.pk:
            self.fields["role"].initial = get_role(self.instance)


@admin.register(User)
class UserAdmin(DjangoUserAdmin, ModelAdmin):  # type: ignore[misc, type-arg]
    form = UserForm
    add_form = NewUserForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("username", "role", "email", "logged_in", "is_active")
    add_fieldsets = ((None, {"fields": ("username", "role", "usable_password", "password1", "password2")}),)
    fieldsets = (
        (None, {"fields": ("username", "password", "role")}),
        *DjangoUserAdmin.fieldsets[1:],  # type: ignore[index]
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        users: QuerySet[User] = super().get_queryset(request)
        return users.prefetch_related("groups")

    @admin.display(description="role")
    def role(self, user: User) -> str:
        names = [group.name for group in user.groups.all() if group.name in ROLES]
        role = names[0].capitalize() if len(names) == 1 else ""
        return role or ("All permissions" if user.is_superuser else "None of the roles")

    @admin.display(description="last login", ordering="last_login")
    def logged_in(self, user: User) -> str:
        return timestamp(user.last_login, "short")

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """Assign a chosen role after the groups. It includes staff status, which the login page requires."""
        super().save_related(request, form, formsets, change)
        role = form.cleaned_data.get("role")
        if role and "role" in form.changed_data:
            assign_role(form.instance, role)


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, ModelAdmin):  # type: ignore[misc]
    pass


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyMixin, ModelAdmin):  # type: ignore[misc]
    list_display = ("at", "username", "action", "call_sid", "detail")
    list_display_links = None
    search_fields = ("call_sid__startswith", "username__startswith")
    search_help_text = "Start of a CallSid or username"
    show_full_result_count = False
    paginator = CappedPaginator
    ordering = ("-at", "-id")
    list_per_page = 50
    list_max_show_all = 0
