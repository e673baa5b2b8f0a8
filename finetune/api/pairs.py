"""Data sets and their pairs: read, write, judge, and take the next one to judge."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import transaction
from django.db.models import Count, Exists, OuterRef, Q, QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from finetune import curation
from finetune.curation import CurationRefused
from finetune.models import AuditEvent, Dataset, InstructionPair, PairSource
from kb.api.base import ApiView, CallerRequest, Input, find
from kb.api.inputs import IdField, TagsField, several, word
from kb.api.problems import Code, Problem
from kb.models import ApiToken, Chunk, Collection, User

READ, WRITE = (ApiToken.Scope.READ,), (ApiToken.Scope.WRITE,)
MAX_FIELD, MAX_TURNS, MAX_PASSAGES = 200_000, 200, 20


# --- What callers send ---------------------------------------------------------------------------


def text(**kwargs: Any) -> serializers.CharField:
    return serializers.CharField(
        max_length=MAX_FIELD, trim_whitespace=False, required=False, allow_blank=True, **kwargs
    )


class DatasetChange(Input):
    name = serializers.CharField(max_length=120, required=False)
    description = text()
    reviews_wanted = serializers.IntegerField(min_value=1, max_value=5, required=False)


class DatasetInput(DatasetChange):
    collection = IdField()
    name = serializers.CharField(max_length=120)
    purpose = serializers.ChoiceField(choices=Dataset.Purpose.choices, required=False)


class DatasetQuery(Input):
    collection = several(IdField(), "Of any of these collections.")


class TurnInput(Input):
    role = serializers.ChoiceField(choices=["system", "user", "assistant"])
    content = serializers.CharField(max_length=MAX_FIELD, trim_whitespace=False)


class PairChange(Input):
    system = text()
    messages = serializers.ListField(
        child=TurnInput(), required=False, max_length=MAX_TURNS, help_text="Turns before the last."
    )
    instruction = text()
    input = text()
    output = text()
    rejected = text(help_text="A worse output, for preferences.")
    tags = TagsField(required=False)


class PairInput(PairChange):
    instruction = serializers.CharField(max_length=MAX_FIELD, trim_whitespace=False)
    passages = serializers.ListField(
        child=IdField(), required=False, max_length=MAX_PASSAGES,
        help_text="What it rests on, by the ids that search gives; cited as [1], [2].",
    )  # fmt: skip


class PairQuery(Input):
    state = several(serializers.ChoiceField(choices=InstructionPair.State.choices), "In any state.")
    origin = several(
        serializers.ChoiceField(choices=InstructionPair.Origin.choices), "Of any of these origins."
    )
    flag = several(
        serializers.ChoiceField(choices=InstructionPair.Flag.choices), "With any of these flags."
    )
    tag = several(word(50), "With any of these tags.")
    language = several(word(32), "In any of these languages.")
    document = several(IdField(), "With a passage of any of these documents.")
    is_disputed = serializers.BooleanField(required=False, allow_null=True, default=None)


class ApprovalInput(PairChange):
    seconds = serializers.FloatField(min_value=0, max_value=86_400, required=False)


class RejectionInput(Input):
    reason = serializers.CharField(max_length=300)
    seconds = serializers.FloatField(min_value=0, max_value=86_400, required=False)


class LogQuery(Input):
    action = several(
        serializers.ChoiceField(choices=AuditEvent.Action.choices), "Any of these decisions."
    )
    pair = several(IdField(), "About any of these pairs.")


# --- What they get -------------------------------------------------------------------------------


class DatasetSerializer(serializers.ModelSerializer[Dataset]):
    suggested = serializers.IntegerField(read_only=True, help_text="Pairs that you may see.")
    approved = serializers.IntegerField(read_only=True)
    rejected = serializers.IntegerField(read_only=True)
    stale = serializers.IntegerField(read_only=True)

    class Meta:
        model = Dataset
        fields = [
            "id", "collection", "name", "description", "purpose", "reviews_wanted", "created_at",
            "suggested", "approved", "rejected", "stale",
        ]  # fmt: skip
        read_only_fields = fields


class PairSourceSerializer(serializers.ModelSerializer[PairSource]):
    heading_path = serializers.ListField(child=serializers.CharField(), read_only=True)

    class Meta:
        model = PairSource
        fields = [
            "marker", "is_distractor", "document", "version_number", "title", "heading_path",
            "page_first", "page_last", "start", "end", "text", "score", "standing",
        ]  # fmt: skip
        read_only_fields = fields


class PairTurnSerializer(serializers.Serializer[Any]):
    role = serializers.CharField(read_only=True)
    content = serializers.CharField(read_only=True)


class PairSerializer(serializers.ModelSerializer[InstructionPair]):
    messages = PairTurnSerializer(many=True, read_only=True)
    sources = PairSourceSerializer(many=True, read_only=True)
    reviewer = serializers.CharField(
        source="reviewer.username", read_only=True, default=None, allow_null=True
    )
    findings = serializers.ListField(
        child=serializers.ListField(), read_only=True, help_text="[kind, field, start, end]"
    )

    class Meta:
        model = InstructionPair
        fields = [
            "id", "dataset", "state", "origin", "system", "messages", "instruction", "input",
            "output", "rejected", "tags", "language", "sources", "message", "row_number",
            "author_label", "reviewer", "reviewed_at", "reject_reason", "stale_reason",
            "is_disputed", "priority", "signals", "word_count", "output_words", "repetition",
            "support", "flags", "findings", "content_hash", "created_at", "updated_at",
        ]  # fmt: skip
        read_only_fields = fields


class LogSerializer(serializers.ModelSerializer[AuditEvent]):
    detail = serializers.DictField(read_only=True)

    class Meta:
        model = AuditEvent
        fields = ["id", "username", "action", "subject_kind", "subject_id", "detail", "created_at"]
        read_only_fields = fields


# --- Data sets -----------------------------------------------------------------------------------


class Datasets(ApiView):
    scopes = {"GET": READ, "POST": WRITE}
    query_forms = {"GET": DatasetQuery}
    refusals = {"POST": (Code.NOT_FOUND,)}
    paged = True

    @extend_schema(responses=DatasetSerializer(many=True))
    def get(self, request: CallerRequest) -> Response:
        """List the data sets you curate, with their pairs counted by state."""
        found = _counted(request.user)
        if collections := self.query().get("collection"):
            found = found.filter(collection__in=collections)
        return self.page(found.order_by("pk"), DatasetSerializer)

    @extend_schema(request=DatasetInput, responses={201: DatasetSerializer})
    def post(self, request: CallerRequest) -> Response:
        """Make a data set in a collection you curate."""
        wanted = self.body(DatasetInput)
        collection = find(
            Collection.objects.readable_by(request.user),
            wanted.pop("collection"),
            within=Collection.objects.writable_by(request.user),
        )
        _refuse_taken(collection.pk, wanted["name"])
        with transaction.atomic():
            made = Dataset.objects.create(collection=collection, created_by=request.user, **wanted)
            AuditEvent.objects.record(request.user, "created", made, collection)
        return Response(DatasetSerializer(_dataset(request.user, made.pk)).data, status=201)


class OneDataset(ApiView):
    scopes = {"GET": READ, "PATCH": WRITE}

    @extend_schema(responses=DatasetSerializer)
    def get(self, request: CallerRequest, pk: int) -> Response:
        """Read a data set."""
        return Response(DatasetSerializer(_dataset(request.user, pk)).data)

    @extend_schema(request=DatasetChange, responses=DatasetSerializer)
    def patch(self, request: CallerRequest, pk: int) -> Response:
        """Change a data set's name, description or the number of reviews; its owners may."""
        owned = Dataset.objects.owned_by(request.user)
        found = find(Dataset.objects.visible_to(request.user), pk, within=owned)
        wanted = self.body(DatasetChange)
        if wanted.get("name", found.name) != found.name:
            _refuse_taken(found.collection_id, wanted["name"])
        with transaction.atomic():
            Dataset.objects.filter(pk=found.pk).update(**wanted)
            AuditEvent.objects.record(request.user, "edited", found, found.collection, after=wanted)
        return Response(DatasetSerializer(_dataset(request.user, pk)).data)


def _refuse_taken(collection: int, name: str) -> None:
    if Dataset.objects.filter(collection=collection, name=name).exists():
        sentence = "This collection has a data set with this name already."
        raise serializers.ValidationError({"name": [sentence]})


def _counted(user: User) -> QuerySet[Dataset]:
    visible = InstructionPair.objects.visible_to(user)
    seen = Q(pairs__in=visible)
    counts = {
        state: Count("pairs", filter=seen & Q(pairs__state=state))
        for state in InstructionPair.State.values
    }
    return Dataset.objects.visible_to(user).annotate(**counts)


def _dataset(user: User, pk: int) -> Dataset:
    return find(_counted(user), pk)


# --- Pairs ---------------------------------------------------------------------------------------


def _pairs(user: User) -> QuerySet[InstructionPair]:
    visible = InstructionPair.objects.visible_to(user)
    return visible.select_related("dataset", "reviewer").prefetch_related("sources")


def _shown(user: User, pk: int) -> Any:
    return PairSerializer(find(_pairs(user), pk)).data


class Pairs(ApiView):
    scopes = {"GET": READ, "POST": WRITE}
    query_forms = {"GET": PairQuery}
    refusals = {"POST": (Code.PAIR_REFUSED,)}
    paged = True

    @extend_schema(responses=PairSerializer(many=True))
    def get(self, request: CallerRequest, pk: int) -> Response:
        """List the pairs of a data set that you may see, oldest first."""
        dataset = find(Dataset.objects.visible_to(request.user), pk)
        found = _narrowed(_pairs(request.user).filter(dataset=dataset), self.query())
        return self.page(found.order_by("pk"), PairSerializer)

    @extend_schema(request=PairInput, responses={201: PairSerializer})
    def post(self, request: CallerRequest, pk: int) -> Response:
        """Write a pair; it waits to be judged by a person."""
        dataset = find(Dataset.objects.visible_to(request.user), pk)
        wanted = self.body(PairInput)
        named = list(dict.fromkeys(wanted.pop("passages", ())))
        visible = Chunk.objects.visible_to(request.user).select_related("document", "version")
        chunks = visible.defer("version__text").in_bulk(named)
        if len(chunks) < len(named):
            raise Problem(Code.NOT_FOUND)
        with _refusing():
            made = curation.create_pair(
                request.user, dataset, origin=InstructionPair.Origin.TYPED, content=wanted,
                sources=[
                    curation.source_of_chunk(chunks[number], marker)
                    for marker, number in enumerate(named, start=1)
                ],
            )  # fmt: skip
        return Response(_shown(request.user, made.pk), status=201)


def _narrowed(
    pairs: QuerySet[InstructionPair], wanted: dict[str, Any]
) -> QuerySet[InstructionPair]:
    for name in ("state", "origin", "language"):
        if values := wanted.get(name):
            pairs = pairs.filter(**{f"{name}__in": values})
    for name in ("flag", "tag"):
        if values := wanted.get(name):
            pairs = pairs.filter(**{f"{name}s__overlap": values})
    if documents := wanted.get("document"):
        sources = PairSource.objects.filter(pair=OuterRef("pk"), document__in=documents)
        pairs = pairs.filter(Exists(sources))
    if wanted.get("is_disputed") is not None:
        pairs = pairs.filter(is_disputed=wanted["is_disputed"])
    return pairs


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn what curation refuses into a problem."""
    try:
        yield
    except CurationRefused as refusal:
        raise Problem(Code.PAIR_REFUSED, str(refusal)) from refusal


class OnePair(ApiView):
    scopes = {"GET": READ, "PATCH": WRITE, "DELETE": WRITE}
    refusals = {"PATCH": (Code.PAIR_REFUSED,)}

    @extend_schema(responses=PairSerializer)
    def get(self, request: CallerRequest, pk: int) -> Response:
        """Read a pair with its passages and what was measured."""
        return Response(_shown(request.user, pk))

    @extend_schema(request=PairChange, responses=PairSerializer)
    def patch(self, request: CallerRequest, pk: int) -> Response:
        """Change what a pair says; one that was decided has to be judged again."""
        found = find(_pairs(request.user), pk)
        with _refusing():
            curation.edit(found, request.user, self.body(PairChange))
        return Response(_shown(request.user, pk))

    @extend_schema(responses={204: None})
    def delete(self, request: CallerRequest, pk: int) -> Response:
        """Delete a pair; snapshots that hold it keep their copy."""
        curation.delete(find(_pairs(request.user), pk), request.user)
        return Response(status=204)


class Approval(ApiView):
    scopes = {"POST": WRITE}
    refusals = {"POST": (Code.PAIR_REFUSED,)}

    @extend_schema(request=ApprovalInput, responses=PairSerializer)
    def post(self, request: CallerRequest, pk: int) -> Response:
        """Approve a pair, after the edit in the body if there is one.

        It becomes `approved` once as many people agree as its data set wants.
        """
        found, wanted = find(_pairs(request.user), pk), self.body(ApprovalInput)
        seconds = wanted.pop("seconds", 0)
        with _refusing():
            curation.approve(found, request.user, content=wanted or None, seconds=seconds)
        return Response(_shown(request.user, pk))


class Rejection(ApiView):
    scopes = {"POST": WRITE}
    refusals = {"POST": (Code.PAIR_REFUSED,)}

    @extend_schema(request=RejectionInput, responses=PairSerializer)
    def post(self, request: CallerRequest, pk: int) -> Response:
        """Reject a pair and say why."""
        found, wanted = find(_pairs(request.user), pk), self.body(RejectionInput)
        with _refusing():
            curation.reject(found, request.user, wanted["reason"], seconds=wanted.get("seconds", 0))
        return Response(_shown(request.user, pk))


class Reopening(ApiView):
    scopes = {"POST": WRITE}
    refusals = {"POST": (Code.PAIR_REFUSED,)}

    @extend_schema(request=None, responses=PairSerializer)
    def post(self, request: CallerRequest, pk: int) -> Response:
        """Let a decided pair be judged anew."""
        found = find(_pairs(request.user), pk)
        with _refusing():
            curation.reopen(found, request.user)
        return Response(_shown(request.user, pk))


class NextPair(ApiView):
    scopes = {"POST": WRITE}

    @extend_schema(request=None, responses={200: PairSerializer, 204: None})
    def post(self, request: CallerRequest, pk: int) -> Response:
        """Take the pair that should be judged next; nobody else gets it for ten minutes.

        204 where no pair waits for you.
        """
        dataset = find(Dataset.objects.visible_to(request.user), pk)
        taken = curation.claim_next(dataset, request.user)
        if taken is None:
            return Response(status=204)
        return Response(_shown(request.user, taken.pk))


class UndoneReview(ApiView):
    scopes = {"POST": WRITE}

    @extend_schema(request=None, responses={200: PairSerializer, 204: None})
    def post(self, request: CallerRequest, pk: int) -> Response:
        """Take back your last judgement in a data set, with its edit. 204 where there is none."""
        dataset = find(Dataset.objects.visible_to(request.user), pk)
        undone = curation.undo(request.user, dataset)
        if undone is None:
            return Response(status=204)
        return Response(_shown(request.user, undone.pk))


class Log(ApiView):
    scopes = {"GET": READ}
    query_forms = {"GET": LogQuery}
    paged = True

    @extend_schema(responses=LogSerializer(many=True))
    def get(self, request: CallerRequest, pk: int) -> Response:
        """List what was decided about a data set and its pairs, newest first."""
        dataset, wanted = find(Dataset.objects.visible_to(request.user), pk), self.query()
        events = curation.log_of(request.user, dataset)
        if actions := wanted.get("action"):
            events = events.filter(action__in=actions)
        if pairs := wanted.get("pair"):
            events = events.filter(subject_kind="instructionpair", subject_id__in=pairs)
        return self.page(events.order_by("-pk"), LogSerializer)
