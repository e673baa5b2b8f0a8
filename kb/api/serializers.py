"""What the API gives: the fields of each row that its readers may see, named one by one."""

import math
from typing import Any

from rest_framework import serializers

from kb.models import (
    ApiToken,
    Chunk,
    Collection,
    Document,
    DocumentVersion,
    Job,
    Membership,
    User,
)
from kb.models.documents import Added


class FiniteField(serializers.FloatField):
    """A number, or null where none was computed: JSON has no NaN."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(read_only=True, allow_null=True, **kwargs)

    def to_representation(self, value: float) -> float | None:  # type: ignore[override]
        return value if math.isfinite(value) else None


def texts() -> serializers.ListField:
    return serializers.ListField(child=serializers.CharField(), read_only=True)


# --- People and collections -------------------------------------------------------------------


class CollectionSerializer(serializers.ModelSerializer[Collection]):
    role = serializers.ChoiceField(
        choices=Membership.Role.choices, read_only=True, help_text="The caller's own."
    )
    document_count = serializers.IntegerField(read_only=True)

    class Meta:
        model = Collection
        fields = ["id", "name", "description", "is_public", "role", "document_count", "created_at"]
        read_only_fields = fields


class MemberSerializer(serializers.ModelSerializer[Membership]):
    username = serializers.CharField(
        source="user.username", read_only=True, default=None, allow_null=True
    )
    display_name = serializers.CharField(
        source="user.display_name", read_only=True, default=None, allow_null=True
    )
    group = serializers.CharField(
        source="group.name", read_only=True, default=None, allow_null=True
    )

    class Meta:
        model = Membership
        fields = ["id", "username", "display_name", "group", "role", "created_at"]
        read_only_fields = fields


class TokenSerializer(serializers.ModelSerializer[ApiToken]):
    class Meta:
        model = ApiToken
        fields = [
            "id",
            "name",
            "prefix",
            "scopes",
            "created_at",
            "expires_at",
            "last_used_at",
            "revoked_at",
        ]
        read_only_fields = fields


class NewTokenSerializer(TokenSerializer):
    secret = serializers.CharField(read_only=True, help_text="Shown this once.")

    class Meta(TokenSerializer.Meta):
        fields = [*TokenSerializer.Meta.fields, "secret"]
        read_only_fields = fields


class MeSerializer(serializers.ModelSerializer[User]):
    scopes = texts()

    class Meta:
        model = User
        fields = ["id", "username", "display_name", "email", "is_superuser", "scopes"]
        read_only_fields = fields


# --- Documents --------------------------------------------------------------------------------


class JobSerializer(serializers.ModelSerializer[Job]):
    percent = serializers.IntegerField(read_only=True, help_text="Of the present stage, 0–100.")
    document = serializers.IntegerField(source="version.document_id", read_only=True)
    version = serializers.IntegerField(source="version.number", read_only=True)

    class Meta:
        model = Job
        fields = [
            "id",
            "kind",
            "state",
            "stage",
            "percent",
            "done",
            "total",
            "attempts",
            "error",
            "error_code",
            "document",
            "version",
            "created_at",
            "started_at",
            "finished_at",
        ]
        read_only_fields = fields


class DocumentSerializer(serializers.ModelSerializer[Document]):
    """A document with the progress of its newest version."""

    collection_name = serializers.CharField(source="collection.name", read_only=True)
    passage_count = serializers.IntegerField(source="chunk_count", read_only=True)
    added_by = serializers.CharField(
        source="added_by.username", read_only=True, default=None, allow_null=True
    )
    version = serializers.IntegerField(
        source="current_version.number",
        read_only=True,
        default=None,
        allow_null=True,
        help_text="The one that serves.",
    )
    newest_version = serializers.SerializerMethodField()
    size_bytes = serializers.SerializerMethodField()
    job = serializers.SerializerMethodField()
    stage = serializers.SerializerMethodField()
    percent = serializers.SerializerMethodField()
    error = serializers.SerializerMethodField()
    error_code = serializers.SerializerMethodField()

    class Meta:
        model = Document
        fields = [
            "id",
            "collection",
            "collection_name",
            "name",
            "title",
            "media_type",
            "language",
            "tags",
            "state",
            "stage",
            "percent",
            "error",
            "error_code",
            "job",
            "version",
            "newest_version",
            "size_bytes",
            "page_count",
            "passage_count",
            "added_by",
            "created_at",
            "updated_at",
        ]
        read_only_fields = fields

    def get_newest_version(self, document: Document) -> int:
        return _newest(document).number

    def get_size_bytes(self, document: Document) -> int:
        return _newest(document).size_bytes

    def get_job(self, document: Document) -> int:
        return _newest(document).job_id

    def get_stage(self, document: Document) -> str:
        return _newest(document).job.stage

    def get_percent(self, document: Document) -> int:
        return _newest(document).job.percent

    def get_error(self, document: Document) -> str:
        return _newest(document).job.error

    def get_error_code(self, document: Document) -> str:
        return _newest(document).job.error_code


def _newest(document: Document) -> DocumentVersion:
    """The version that `described` (views/documents.py) fetched along."""
    version: DocumentVersion = document.newest[0]  # type: ignore[attr-defined]
    return version


class UploadSerializer(serializers.Serializer[Any]):
    outcome = serializers.ChoiceField(choices=[added.value for added in Added], read_only=True)
    document = DocumentSerializer(read_only=True)


class VersionSerializer(serializers.ModelSerializer[DocumentVersion]):
    state = serializers.ChoiceField(source="job.state", choices=Job.State.choices, read_only=True)
    error = serializers.CharField(source="job.error", read_only=True)
    error_code = serializers.CharField(source="job.error_code", read_only=True)
    is_current = serializers.SerializerMethodField()
    added_by = serializers.CharField(
        source="added_by.username", read_only=True, default=None, allow_null=True
    )

    class Meta:
        model = DocumentVersion
        fields = [
            "number",
            "is_current",
            "state",
            "error",
            "error_code",
            "job",
            "sha256",
            "size_bytes",
            "warnings",
            "embedded_count",
            "added_by",
            "created_at",
            "published_at",
        ]
        read_only_fields = fields

    def get_is_current(self, version: DocumentVersion) -> bool:
        return version.document.current_version_id == version.pk


class PassageSerializer(serializers.ModelSerializer[Chunk]):
    version = serializers.IntegerField(source="version.number", read_only=True)

    class Meta:
        model = Chunk
        fields = [
            "id",
            "document",
            "collection",
            "version",
            "position",
            "heading_path",
            "page_first",
            "page_last",
            "start",
            "end",
            "text",
            "language",
            "token_count",
        ]
        read_only_fields = fields


# --- Search -----------------------------------------------------------------------------------


class HitSerializer(serializers.Serializer[Any]):
    passage = serializers.IntegerField(source="chunk_id", read_only=True)
    document = serializers.IntegerField(source="document_id", read_only=True)
    collection = serializers.IntegerField(source="collection_id", read_only=True)
    collection_name = serializers.CharField(read_only=True)
    title = serializers.CharField(read_only=True)
    name = serializers.CharField(read_only=True)
    media_type = serializers.CharField(read_only=True)
    updated_at = serializers.DateTimeField(read_only=True)
    heading_path = texts()
    page_first = serializers.IntegerField(read_only=True)
    page_last = serializers.IntegerField(read_only=True)
    start = serializers.IntegerField(
        read_only=True, help_text="[start, end) in the version's text."
    )
    end = serializers.IntegerField(read_only=True)
    text = serializers.CharField(read_only=True)
    score = FiniteField(help_text="Both rankings fused; higher is better.")
    similarity = FiniteField(help_text="Cosine of query and passage; null when not computed.")
    text_score = FiniteField(help_text="BM25; 0 when no word matches.")
    marks = serializers.ListField(
        child=serializers.ListField(child=serializers.IntegerField(), min_length=2, max_length=2),
        read_only=True,
        help_text="[start, end) of the query's words in `text`.",
    )
    snippet_start = serializers.IntegerField(
        read_only=True, help_text="The best stretch of `text`."
    )
    snippet_end = serializers.IntegerField(read_only=True)


class FacetSerializer(serializers.Serializer[Any]):
    value = serializers.CharField(read_only=True)
    label = serializers.CharField(read_only=True)  # type: ignore[assignment]
    count = serializers.IntegerField(read_only=True)


class SearchSerializer(serializers.Serializer[Any]):
    count = serializers.IntegerField(read_only=True, help_text="How many passages were found.")
    hits = HitSerializer(many=True, read_only=True)
    facets = serializers.DictField(
        child=FacetSerializer(many=True),
        read_only=True,
        help_text="collection, type, language, tag and year, each with its values and counts.",
    )
    took_ms = serializers.DictField(child=serializers.FloatField(), read_only=True)
