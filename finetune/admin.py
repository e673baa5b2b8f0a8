"""The back office of curation: look at everything; pages and journeys change it, and log it."""

from django.contrib import admin

from finetune.models import (
    AuditEvent,
    Dataset,
    DatasetSnapshot,
    DuplicateCluster,
    InstructionPair,
    KnowledgeGap,
    PairImport,
    PairSource,
    Review,
    TriageItem,
)
from kb.admin import LookOnly


@admin.register(Dataset)
class DatasetAdmin(admin.ModelAdmin):
    list_display = ("name", "collection", "purpose", "reviews_wanted", "created_by", "created_at")
    list_filter = ("purpose", "reviews_wanted")
    list_select_related = ("collection", "created_by")
    search_fields = ("name", "collection__name")
    readonly_fields = ("collection", "queue", "created_by", "created_at")

    def has_add_permission(self, request: object) -> bool:
        return False  # the page makes one in a collection that one curates

    def has_delete_permission(self, request: object, obj: object = None) -> bool:
        return False  # its pairs stand in snapshots


class SourceInline(admin.TabularInline):
    model = PairSource
    extra = 0
    can_delete = False
    fields = ("marker", "document_name", "version_number", "start", "end", "standing", "text")
    readonly_fields = fields


class ReviewInline(admin.TabularInline):
    model = Review
    extra = 0
    can_delete = False
    fields = ("reviewer", "verdict", "was_edited", "reason", "seconds", "undone_at", "created_at")
    readonly_fields = fields


@admin.register(InstructionPair)
class InstructionPairAdmin(LookOnly):
    list_display = (
        "id", "__str__", "dataset", "state", "origin", "language", "word_count", "support",
        "repetition", "is_disputed", "reviewer", "updated_at",
    )  # fmt: skip
    list_filter = ("state", "origin", "is_disputed", "language", "dataset__purpose")
    list_select_related = ("dataset", "reviewer")
    search_fields = ("=id", "instruction", "output")
    raw_id_fields = ("dataset", "message", "pair_import")
    exclude = ("bands",)
    inlines = (SourceInline, ReviewInline)
    # Counting 50,000 rows for every page tells nobody anything.
    show_full_result_count = False


@admin.register(Review)
class ReviewAdmin(LookOnly):
    list_display = (
        "id", "pair", "reviewer", "verdict", "was_edited", "reason", "seconds", "undone_at",
        "created_at",
    )  # fmt: skip
    list_filter = ("verdict", "was_edited", "is_void")
    list_select_related = ("pair", "reviewer")
    search_fields = ("=pair__id", "reviewer__username", "reason")
    show_full_result_count = False


@admin.register(AuditEvent)
class AuditEventAdmin(LookOnly):
    list_display = ("created_at", "username", "action", "subject_kind", "subject_id", "collection")
    list_filter = ("action", "subject_kind")
    list_select_related = ("collection",)
    search_fields = ("=subject_id", "username")
    show_full_result_count = False


@admin.register(PairImport)
class PairImportAdmin(LookOnly):
    list_display = (
        "name", "dataset", "format", "row_count", "imported_count", "problem_count", "created_at",
    )  # fmt: skip
    list_filter = ("format", "container")
    list_select_related = ("dataset",)
    search_fields = ("name",)


@admin.register(DatasetSnapshot)
class DatasetSnapshotAdmin(LookOnly):
    list_display = ("__str__", "state", "counts", "sha256", "created_by", "created_at")
    list_filter = ("state",)
    list_select_related = ("dataset", "created_by")
    search_fields = ("dataset__name", "sha256")


@admin.register(DuplicateCluster)
class DuplicateClusterAdmin(LookOnly):
    list_display = ("id", "dataset", "kind", "decision", "size", "crosses", "touches_evaluation")
    list_filter = ("kind", "decision", "crosses", "touches_evaluation")
    list_select_related = ("dataset",)


@admin.register(TriageItem)
class TriageItemAdmin(LookOnly):
    list_display = ("id", "collection", "signal", "guess", "category", "state", "created_at")
    list_filter = ("signal", "category", "state")
    list_select_related = ("collection",)


@admin.register(KnowledgeGap)
class KnowledgeGapAdmin(LookOnly):
    list_display = ("__str__", "collection", "state", "assigned_to", "created_at")
    list_filter = ("state",)
    list_select_related = ("collection", "assigned_to")
