"""Duplicates and snapshots: search, decide, freeze, compare, reproduce, download."""

from typing import Any

from django.db.models import QuerySet
from django.http import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.response import Response

from finetune import duplicates, erasure, snapshots
from finetune.duplicates import DecisionRefused
from finetune.erasure import StillNeeded
from finetune.models import (
    Cleaning,
    Dataset,
    DatasetSnapshot,
    DuplicateCluster,
    DuplicateMember,
)
from kb.api.base import ApiView, CallerRequest, Input, find
from kb.api.problems import Code, Problem
from kb.downloads import send
from kb.models import ApiToken, User
from workers import tasks

READ, WRITE = (ApiToken.Scope.READ,), (ApiToken.Scope.WRITE,)


# --- What comes in and goes out ------------------------------------------------------------------


class ClusterQuery(Input):
    kind = serializers.ChoiceField(choices=DuplicateCluster.Kind.choices, required=False)
    decision = serializers.ChoiceField(choices=DuplicateCluster.Decision.choices, required=False)


class DecisionInput(Input):
    decision = serializers.ChoiceField(
        choices=DuplicateCluster.Decision.choices, help_text="“open” takes a decision back."
    )
    keep = serializers.IntegerField(
        required=False,
        min_value=1,
        max_value=2**63 - 1,
        help_text="The pair to keep, with “kept_one”; the first member unless told.",
    )


class FreezeInput(Input):
    seed = serializers.IntegerField(required=False, default=0, min_value=0, max_value=2**31 - 1)
    train_share = serializers.FloatField(required=False, default=0.8, min_value=0.01, max_value=1)
    validation_share = serializers.FloatField(required=False, default=0.1, min_value=0, max_value=1)

    def validate(self, values: dict[str, Any]) -> dict[str, Any]:
        if values["train_share"] + values["validation_share"] > 1 + 1e-9:
            raise ValidationError("Training and validation are more than 1 together.")
        return values


class CompareQuery(Input):
    to = serializers.IntegerField(
        min_value=1, max_value=2**63 - 1, help_text="The earlier snapshot's id."
    )


class CleaningSerializer(serializers.ModelSerializer[Cleaning]):
    state = serializers.CharField(source="job.state", read_only=True)
    stage = serializers.CharField(source="job.stage", read_only=True)
    percent = serializers.IntegerField(source="job.percent", read_only=True)
    error = serializers.CharField(source="job.error", read_only=True)
    counts = serializers.SerializerMethodField(
        help_text="Of what who started it may see, and told to them only; empty for others."
    )

    class Meta:
        model = Cleaning
        fields = ["id", "dataset", "state", "stage", "percent", "error", "counts", "created_at"]
        read_only_fields = fields

    @extend_schema_field(serializers.DictField(child=serializers.IntegerField()))
    def get_counts(self, cleaning: Cleaning) -> dict[str, int]:
        return cleaning.counts_for(self.context["request"].user)


class DuplicateMemberSerializer(serializers.ModelSerializer[DuplicateMember]):
    dataset = serializers.IntegerField(source="pair.dataset_id", read_only=True)
    state = serializers.CharField(source="pair.state", read_only=True)
    instruction = serializers.CharField(source="pair.instruction", read_only=True)

    class Meta:
        model = DuplicateMember
        fields = ["pair", "similarity", "dataset", "state", "instruction"]
        read_only_fields = fields


class ClusterSerializer(serializers.ModelSerializer[DuplicateCluster]):
    members = DuplicateMemberSerializer(
        many=True, read_only=True, source="in_order", help_text="The one to keep comes first."
    )
    decided_by = serializers.CharField(
        source="decided_by.username", read_only=True, default=None, allow_null=True
    )

    class Meta:
        model = DuplicateCluster
        fields = [
            "id",
            "dataset",
            "kind",
            "decision",
            "size",
            "crosses",
            "touches_evaluation",
            "members",
            "decided_by",
            "decided_at",
        ]
        read_only_fields = fields


class SnapshotSerializer(serializers.ModelSerializer[DatasetSnapshot]):
    job_state = serializers.CharField(source="job.state", read_only=True)
    error = serializers.CharField(source="job.error", read_only=True)
    counts = serializers.DictField(child=serializers.IntegerField(), read_only=True)
    statistics = serializers.DictField(read_only=True)
    leakage = serializers.SerializerMethodField(
        help_text="Between the parts, and with each data set of the other purpose that you may see."
    )
    audience: Any = serializers.PrimaryKeyRelatedField(
        many=True, read_only=True, help_text="Collections; a reader must be able to read all."
    )
    created_by = serializers.CharField(
        source="created_by.username", read_only=True, default=None, allow_null=True
    )

    class Meta:
        model = DatasetSnapshot
        fields = [
            "id",
            "dataset",
            "number",
            "state",
            "job_state",
            "error",
            "seed",
            "train_share",
            "validation_share",
            "prompt_version",
            "counts",
            "statistics",
            "leakage",
            "sha256",
            "audience",
            "has_lost_sources",
            "created_by",
            "created_at",
        ]
        read_only_fields = fields

    def get_leakage(self, snapshot: DatasetSnapshot) -> dict[str, Any]:
        found = dict(snapshot.leakage)
        compared = found.get("evaluation", [])
        user = self.context["request"].user
        asked = [each["dataset"] for each in compared]
        visible = set(
            Dataset.objects.visible_to(user).filter(pk__in=asked).values_list("pk", flat=True)
        )
        found["evaluation"] = [each for each in compared if each["dataset"] in visible]
        return found


class DifferenceSerializer(serializers.Serializer[Any]):
    added = serializers.ListField(child=serializers.IntegerField(), read_only=True)
    removed = serializers.ListField(child=serializers.IntegerField(), read_only=True)
    changed = serializers.ListField(child=serializers.IntegerField(), read_only=True)
    moved = serializers.ListField(
        child=serializers.IntegerField(), read_only=True, help_text="Into another part."
    )


class ReproductionSerializer(serializers.Serializer[Any]):
    sha256 = serializers.CharField(read_only=True)
    is_same = serializers.BooleanField(read_only=True)
    rendered = serializers.IntegerField(read_only=True, help_text="Pairs rendered anew.")
    kept = serializers.ListField(
        child=serializers.IntegerField(),
        read_only=True,
        help_text="Pairs that changed since or are gone; the lines kept stand in for them.",
    )


# --- Endpoints -----------------------------------------------------------------------------------


class Duplicates(ApiView):
    scopes = {"GET": READ, "POST": WRITE}
    query_forms = {"GET": ClusterQuery}
    paged = True

    @extend_schema(responses=ClusterSerializer(many=True))
    def get(self, request: CallerRequest, pk: int) -> Response:
        """List the clusters of duplicates that were found in a data set."""
        dataset, wanted = _dataset(request.user, pk), self.query()
        return self.page(
            _clusters(request.user).filter(dataset=dataset, **wanted).order_by("pk"),
            ClusterSerializer,
        )

    @extend_schema(request=None, responses={202: CleaningSerializer})
    def post(self, request: CallerRequest, pk: int) -> Response:
        """Look for duplicates; a search that is under way is given back instead.

        Compares with every other data set that you may see. Follow `state` at `cleanings`.
        """
        cleaning = duplicates.start(_dataset(request.user, pk), request.user)
        tasks.hint_workers()
        shown = CleaningSerializer(cleaning, context=self.get_serializer_context())
        return Response(shown.data, status=202)


class OneCleaning(ApiView):
    scopes = {"GET": READ}

    @extend_schema(responses=CleaningSerializer)
    def get(self, request: CallerRequest, pk: int) -> Response:
        """Read how far a search for duplicates is, or what it found."""
        found = Cleaning.objects.visible_to(request.user).select_related("job")
        shown = CleaningSerializer(find(found, pk), context=self.get_serializer_context())
        return Response(shown.data)


class Decision(ApiView):
    scopes = {"POST": WRITE}
    refusals = {"POST": (Code.ALREADY_DECIDED,)}

    @extend_schema(request=DecisionInput, responses=ClusterSerializer)
    def post(self, request: CallerRequest, pk: int) -> Response:
        """Decide about a cluster: keep one pair and reject the others, keep all, or take it back."""
        cluster, wanted = find(_clusters(request.user), pk), self.body(DecisionInput)
        try:
            if wanted["decision"] == DuplicateCluster.Decision.KEPT_ONE:
                duplicates.keep_one(cluster, request.user, wanted.get("keep"))
            elif wanted["decision"] == DuplicateCluster.Decision.KEPT_ALL:
                duplicates.keep_all(cluster, request.user)
            else:
                duplicates.ask_again(cluster, request.user)
        except DecisionRefused as refusal:
            raise Problem(Code.ALREADY_DECIDED, str(refusal)) from refusal
        return Response(ClusterSerializer(find(_clusters(request.user), pk)).data)


class Snapshots(ApiView):
    scopes = {"GET": READ, "POST": WRITE}
    paged = True

    @extend_schema(responses=SnapshotSerializer(many=True))
    def get(self, request: CallerRequest, pk: int) -> Response:
        """List the snapshots of a data set, newest first."""
        dataset = _dataset(request.user, pk)
        return self.page(
            _snapshots(request.user).filter(dataset=dataset).order_by("-number"),
            SnapshotSerializer,
        )

    @extend_schema(request=FreezeInput, responses={202: SnapshotSerializer})
    def post(self, request: CallerRequest, pk: int) -> Response:
        """Freeze the approved pairs; what the shares leave is the test part. Follow `job_state`."""
        dataset, wanted = _dataset(request.user, pk), self.body(FreezeInput)
        made = snapshots.start(dataset, request.user, **wanted)
        tasks.hint_workers()
        shown = SnapshotSerializer(made, context=self.get_serializer_context())
        return Response(shown.data, status=202)


class OneSnapshot(ApiView):
    scopes = {"GET": READ, "DELETE": WRITE}
    refusals = {"DELETE": (Code.NOT_NOW,)}

    @extend_schema(responses=SnapshotSerializer)
    def get(self, request: CallerRequest, pk: int) -> Response:
        """Read what a snapshot holds, what leaks, and who may read it."""
        found = find(_snapshots(request.user), pk)
        return Response(SnapshotSerializer(found, context=self.get_serializer_context()).data)

    @extend_schema(responses={204: None})
    def delete(self, request: CallerRequest, pk: int) -> Response:
        """Delete a snapshot that no run rests on, of a data set whose collection you own."""
        owned = Dataset.objects.owned_by(request.user)
        found = find(_snapshots(request.user).filter(dataset__in=owned), pk)
        try:
            erasure.delete_snapshot(found, request.user)
        except StillNeeded as refusal:
            raise Problem(Code.NOT_NOW, str(refusal)) from refusal
        return Response(status=204)


class SnapshotFile(ApiView):
    scopes = {"GET": READ}

    @extend_schema(responses={(200, "application/octet-stream"): OpenApiTypes.BINARY})
    def get(self, request: CallerRequest, pk: int) -> HttpResponseBase:
        """Download the frozen file, JSON lines."""
        found = _ready(request.user, pk)
        name = f"{found.dataset.name} {found.number}.jsonl"
        return send(request._request, snapshots.pieces(found), name, "application/octet-stream")


class SnapshotManifest(ApiView):
    scopes = {"GET": READ}

    @extend_schema(responses=OpenApiTypes.OBJECT)
    def get(self, request: CallerRequest, pk: int) -> Response:
        """Read what is needed to make the same file again: pairs, parts, seed, versions."""
        return Response(_ready(request.user, pk).manifest)


class SnapshotDifference(ApiView):
    scopes = {"GET": READ}
    query_forms = {"GET": CompareQuery}

    @extend_schema(responses=DifferenceSerializer)
    def get(self, request: CallerRequest, pk: int) -> Response:
        """Say how a snapshot differs from another: ids of pairs."""
        found, other = _ready(request.user, pk), _ready(request.user, self.query()["to"])
        return Response(DifferenceSerializer(snapshots.compare(other, found)).data)


class SnapshotReproduction(ApiView):
    scopes = {"GET": READ}

    @extend_schema(responses=ReproductionSerializer)
    def get(self, request: CallerRequest, pk: int) -> Response:
        """Make the file again from its manifest, and compare its hash."""
        made = snapshots.reproduce(_ready(request.user, pk))
        return Response(ReproductionSerializer(made).data)


def _dataset(user: User, pk: int) -> Dataset:
    return find(Dataset.objects.visible_to(user), pk)


def _clusters(user: User) -> QuerySet[DuplicateCluster]:
    found = DuplicateCluster.objects.visible_to(user)
    return found.select_related("decided_by").prefetch_related("members__pair")


def _snapshots(user: User) -> QuerySet[DatasetSnapshot]:
    found = DatasetSnapshot.objects.visible_to(user)
    return found.select_related("dataset", "job", "created_by").prefetch_related("audience")


def _ready(user: User, pk: int) -> DatasetSnapshot:
    return find(_snapshots(user).filter(state=DatasetSnapshot.State.READY), pk)
