"""The back office: everything that can be looked at, little that can be changed."""

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.http import HttpRequest

from kb.models import (
    ApiToken,
    Collection,
    Document,
    EmbeddingSpace,
    Feedback,
    Job,
    Membership,
    ModelDeployment,
    User,
)

admin.site.site_header = admin.site.site_title = "Tacit"
admin.site.register(User, UserAdmin)


class LookOnly(admin.ModelAdmin):
    """Rows that journeys write; people look, and use the pages to change them."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class MembershipInline(admin.TabularInline):
    model = Membership
    extra = 0
    autocomplete_fields = ("user",)


@admin.register(Collection)
class CollectionAdmin(admin.ModelAdmin):
    list_display = ("name", "is_public", "created_by", "created_at")
    search_fields = ("name",)
    list_filter = ("is_public",)
    list_select_related = ("created_by",)
    inlines = (MembershipInline,)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # the collection's page deletes its files with it


@admin.register(Document)
class DocumentAdmin(LookOnly):
    list_display = ("name", "collection", "state", "page_count", "chunk_count", "updated_at")
    search_fields = ("name", "title")
    list_filter = ("state", "media_type", "language")
    list_select_related = ("collection",)
    show_full_result_count = False


@admin.register(Job)
class JobAdmin(LookOnly):
    list_display = ("id", "kind", "state", "stage", "attempts", "created_at", "finished_at")
    list_filter = ("kind", "state")
    show_full_result_count = False


@admin.register(ApiToken)
class ApiTokenAdmin(LookOnly):
    list_display = ("name", "prefix", "user", "scopes", "expires_at", "last_used_at", "revoked_at")
    list_select_related = ("user",)
    exclude = ("digest",)


@admin.register(Feedback)
class FeedbackAdmin(LookOnly):
    """Judgements without the conversation around them, which stays its person's own."""

    list_display = ("id", "user", "value", "reason", "created_at")
    list_filter = ("value",)
    list_select_related = ("user",)


@admin.register(EmbeddingSpace)
class EmbeddingSpaceAdmin(LookOnly):
    list_display = ("model_name", "dimensions", "state", "created_at")


@admin.register(ModelDeployment)
class ModelDeploymentAdmin(LookOnly):
    list_display = ("__str__", "share", "created_by", "created_at", "reason")
    list_select_related = ("created_by",)
