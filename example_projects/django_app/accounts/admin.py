"""The admin of the users, and of the read-only audit trail of their logins."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.http import HttpRequest

from accounts.models import Login, User


@admin.register(User)
class EnvoyouUserAdmin(UserAdmin):
    list_display = ("username", "email", "first_name", "last_name", "is_verified", "is_active", "is_staff")
    list_filter = (*UserAdmin.list_filter, "is_verified")
    search_fields = (*UserAdmin.search_fields, "envoyou_id")
    fieldsets = (*UserAdmin.fieldsets, ("EnvoyOU", {"fields": ("envoyou_id", "is_verified")}))
    readonly_fields = ("envoyou_id", "is_verified")


@admin.register(Login)
class LoginAdmin(admin.ModelAdmin):
    list_display = ("at", "user", "succeeded", "ip_address", "country")
    list_filter = ("succeeded", "country")
    list_select_related = ("user",)
    date_hierarchy = "at"

    def has_add_permission(self, request: HttpRequest, *_: Any) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False
