"""Users, groups and the audit log in the admin."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User
from unfold.admin import ModelAdmin
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from calls.models import AuditEntry
from calls.staff.admin.readonly import ReadOnlyMixin
from calls.staff.paginator import CappedPaginator

# Registered by django.contrib.auth, without Unfold's forms.
admin.site.unregister(User)
admin.site.unregister(Group)


@admin.register(User)
class UserAdmin(DjangoUserAdmin, ModelAdmin):  # type: ignore[misc, type-arg]
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm


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
