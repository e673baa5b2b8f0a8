"""Turns and conversations as readers see them: only citations they may still open."""

from collections.abc import Sequence
from typing import Any

from django.db.models import Prefetch, QuerySet
from django.urls import reverse
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from kb.api.inputs import FiltersInput
from kb.api.serializers import FiniteField, texts
from kb.models import Citation, Conversation, Feedback, Message, User


def with_parts(messages: QuerySet[Message], user: User) -> QuerySet[Message]:
    """Fetch what `describe` reads along with the messages."""
    return messages.select_related("deployment").prefetch_related(
        Prefetch("citations", Citation.objects.order_by("marker")),
        Prefetch("feedback", Feedback.objects.filter(user=user)),
    )


def describe(messages: Sequence[Message], user: User) -> Sequence[Message]:
    """Set what MessageSerializer shows: branches, own rating, visible citations, trace.

    Citations and traced hits of documents that the person may not read any more are left out:
    their title and quote are the document's.
    """
    opened = _openable(messages, user)
    branches = _branches(messages)
    for message in messages:
        shown = [citation for citation in message.citations.all() if citation.pk in opened]
        for citation in shown:
            citation.version_number = opened[citation.pk]  # type: ignore[attr-defined]
        message.shown_citations = shown  # type: ignore[attr-defined]
        message.shown_trace = _shown_trace(message, {c.marker for c in shown})  # type: ignore[attr-defined]
        message.own_rating = next(iter(message.feedback.all()), None)  # type: ignore[attr-defined]
        message.branch_ids = branches[message.parent_id, message.conversation_id]  # type: ignore[attr-defined]
    return messages


def _openable(messages: Sequence[Message], user: User) -> dict[int, int | None]:
    """Version number, None for deleted documents, by the id of each citation the user may open."""
    openable = Citation.objects.openable_by(user).filter(message__in=messages)
    return dict(openable.values_list("pk", "version__number"))


def _branches(messages: Sequence[Message]) -> dict[tuple[int | None, int], list[int]]:
    """Ids of turns by (parent, conversation), oldest first."""
    conversations = {message.conversation_id for message in messages}
    rows = Message.objects.filter(conversation__in=conversations).order_by("pk")
    found: dict[tuple[int | None, int], list[int]] = {}
    for pk, parent, conversation in rows.values_list("pk", "parent_id", "conversation_id"):
        found.setdefault((parent, conversation), []).append(pk)
    return found


def _shown_trace(message: Message, markers: set[int]) -> dict[str, object]:
    trace = dict(message.trace)
    if "hits" in trace:  # in the order of the markers, which start at 1
        trace["hits"] = [hit for n, hit in enumerate(trace["hits"], start=1) if n in markers]
    return trace


class CitationSerializer(serializers.ModelSerializer[Citation]):
    passage = serializers.IntegerField(
        source="chunk_id", read_only=True, allow_null=True, help_text="Null when replaced since."
    )
    version = serializers.IntegerField(
        source="version_number",
        read_only=True,
        allow_null=True,
        help_text="Null when the document was deleted since.",
    )
    heading_path = texts()

    class Meta:
        model = Citation
        fields = [
            "marker",
            "is_cited",
            "passage",
            "document",
            "version",
            "title",
            "heading_path",
            "page_first",
            "page_last",
            "start",
            "end",
            "quote",
            "score",
        ]
        read_only_fields = fields


class SupportSerializer(serializers.Serializer[Any]):
    """How well the cited passages carry one sentence; [start, end) in the answer's text."""

    start = serializers.IntegerField(read_only=True)
    end = serializers.IntegerField(read_only=True)
    markers = serializers.ListField(child=serializers.IntegerField(), read_only=True)
    score = FiniteField()
    supported = serializers.BooleanField(read_only=True)


class RatingSerializer(serializers.Serializer[Any]):
    value = serializers.IntegerField(read_only=True, help_text="1 right, -1 wrong.")
    reason = serializers.CharField(read_only=True)
    corrected_answer = serializers.CharField(read_only=True)
    created_at = serializers.DateTimeField(read_only=True)


class MessageSerializer(serializers.ModelSerializer[Message]):
    """A turn, as `describe` prepared it."""

    adapter = serializers.CharField(source="deployment.adapter_name", read_only=True, default="")
    support = SupportSerializer(many=True, read_only=True)
    citations = CitationSerializer(source="shown_citations", many=True, read_only=True)
    trace = serializers.DictField(source="shown_trace", read_only=True)
    rating = RatingSerializer(source="own_rating", read_only=True, allow_null=True)
    branches = serializers.ListField(
        source="branch_ids",
        child=serializers.IntegerField(),
        read_only=True,
        help_text="This turn and its alternatives, oldest first.",
    )
    stream = serializers.SerializerMethodField(
        help_text="Where to follow an answer; null for a question."
    )

    class Meta:
        model = Message
        fields = [
            "id",
            "conversation",
            "parent",
            "role",
            "text",
            "state",
            "error",
            "error_code",
            "generator",
            "adapter",
            "found_nothing",
            "support",
            "citations",
            "trace",
            "prompt_tokens",
            "completion_tokens",
            "rating",
            "branches",
            "stream",
            "created_at",
            "finished_at",
        ]
        read_only_fields = fields

    @extend_schema_field({"type": ["string", "null"], "format": "uri-reference"})
    def get_stream(self, message: Message) -> str | None:
        if message.role == Message.Role.USER:
            return None
        return reverse("api:message-stream", args=[message.pk])


class AskedSerializer(serializers.Serializer[Any]):
    question = MessageSerializer(read_only=True)
    answer = MessageSerializer(read_only=True)
    stream = serializers.CharField(read_only=True, help_text="Where the answer's events are.")


class ConversationSerializer(serializers.ModelSerializer[Conversation]):
    filters = FiltersInput(read_only=True)

    class Meta:
        model = Conversation
        fields = ["id", "title", "collections", "filters", "created_at", "updated_at"]
        read_only_fields = fields


class ThreadSerializer(ConversationSerializer):
    thread = MessageSerializer(many=True, read_only=True)

    class Meta(ConversationSerializer.Meta):
        fields = [*ConversationSerializer.Meta.fields, "thread"]
        read_only_fields = fields
