"""Runs: plan, read the pre-flight, start, follow, cancel; and the adapters that came out."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db.models import QuerySet
from django.utils.functional import cached_property
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.response import Response

from finetune import activation, erasure, training
from finetune.erasure import StillNeeded
from finetune.hyperparameters import InvalidConfig, TrainingConfig
from finetune.models import Adapter, Dataset, DatasetSnapshot, TrainingMetric, TrainingRun
from finetune.training import RunRefused
from kb.api.base import ApiView, CallerRequest, Input, find
from kb.api.problems import Code, Problem
from kb.models import ApiToken, ModelDeployment, User

READ, WRITE = (ApiToken.Scope.READ,), (ApiToken.Scope.WRITE,)


class RunQuery(Input):
    sweep = serializers.CharField(required=False, max_length=64, help_text="Runs planned together.")


class RunInput(Input):
    snapshot = serializers.IntegerField(min_value=1)
    name = serializers.CharField(max_length=100)
    config = serializers.DictField(
        help_text="Settings of docs/fine-tune.md, at least `base_model`.",
    )

    def validate_config(self, values: dict[str, Any]) -> dict[str, Any]:
        try:
            return TrainingConfig.from_dict(values).to_dict()
        except InvalidConfig as error:
            raise ValidationError(
                [ErrorDetail(problem, code="invalid") for problem in error.problems]
            ) from error


class RunSerializer(serializers.ModelSerializer[TrainingRun]):
    config = serializers.DictField(read_only=True)
    preflight = serializers.DictField(
        read_only=True, help_text="Empty until it is done. `cards`: estimates for cards elsewhere."
    )
    adapter = serializers.IntegerField(
        source="adapter.pk", read_only=True, default=None, allow_null=True, help_text="Its id."
    )
    percent = serializers.IntegerField(source="job.percent", read_only=True, default=0)
    created_by = serializers.CharField(
        source="created_by.username", read_only=True, default=None, allow_null=True
    )

    class Meta:
        model = TrainingRun
        fields = [
            "id", "snapshot", "name", "state", "percent", "config", "preflight", "error", "adapter",
            "sweep", "gpu_seconds", "energy_wh", "cost", "created_by", "created_at", "started_at",
            "finished_at",
        ]  # fmt: skip
        read_only_fields = fields


class MetricSerializer(serializers.ModelSerializer[TrainingMetric]):
    class Meta:
        model = TrainingMetric
        fields = [
            "step", "loss", "evaluation_loss", "learning_rate", "tokens_per_s", "memory_bytes", "at",
        ]  # fmt: skip
        read_only_fields = fields


class AnsweredSerializer(serializers.ModelSerializer[ModelDeployment]):
    share = serializers.FloatField(read_only=True, help_text="Of conversations, 0–1.")
    groups: Any = serializers.SlugRelatedField(
        slug_field="name", many=True, read_only=True, help_text="Only their people, if any."
    )
    since = serializers.DateTimeField(source="created_at", read_only=True)

    class Meta:
        model = ModelDeployment
        fields = ["share", "groups", "since"]
        read_only_fields = fields


class AdapterSerializer(serializers.ModelSerializer[Adapter]):
    files = serializers.DictField(child=serializers.CharField(), read_only=True)
    contract = serializers.DictField(
        child=serializers.ListField(child=serializers.CharField()),
        read_only=True,
        help_text="What each kind of server would refuse.",
    )
    gate = serializers.ChoiceField(
        source="gate_state", choices=Adapter.Gate.choices, allow_blank=True, read_only=True,
        help_text="By its newest evaluation; empty where you may not see that.",
    )  # fmt: skip
    answers = serializers.SerializerMethodField(
        help_text="Whom it may answer now; null when nobody."
    )

    class Meta:
        model = Adapter
        fields = [
            "id", "name", "run", "base_model", "base_revision", "kind", "gate", "answers", "files",
            "contract", "card", "erasure_note", "created_at", "retired_at",
        ]  # fmt: skip
        read_only_fields = fields

    @extend_schema_field(AnsweredSerializer(allow_null=True))
    def get_answers(self, adapter: Adapter) -> dict[str, Any] | None:
        layer = self._layers.get(adapter.name)
        return AnsweredSerializer(layer).data if layer else None

    @cached_property
    def _layers(self) -> dict[str, ModelDeployment]:
        return activation.speaking_adapters()  # once for a whole page of adapters


class Runs(ApiView):
    scopes = {"GET": READ, "POST": WRITE}
    refusals = {"POST": (Code.NOT_NOW,)}
    query_forms = {"GET": RunQuery}
    paged = True

    @extend_schema(responses=RunSerializer(many=True))
    def get(self, request: CallerRequest) -> Response:
        """List the runs on snapshots that you may see, newest first."""
        rows = runs_of(request.user).filter(**self.query())
        return self.page(rows.order_by("-pk"), RunSerializer)

    @extend_schema(request=RunInput, responses={202: RunSerializer})
    def post(self, request: CallerRequest) -> Response:
        """Plan a run on a snapshot of a data set whose collection you own.

        Its pre-flight is queued; read `preflight` and then start it.
        """
        given = self.body(RunInput)
        snapshot = startable_by(request.user, given["snapshot"])
        config = TrainingConfig.from_dict(given["config"])
        with refused():
            made = training.plan(snapshot, request.user, name=given["name"], config=config)
        return Response(_drawn(request.user, made.pk), status=202)


class OneRun(ApiView):
    scopes = {"GET": READ, "DELETE": WRITE}
    refusals = {"DELETE": (Code.NOT_NOW,)}

    @extend_schema(responses=RunSerializer)
    def get(self, request: CallerRequest, pk: int) -> Response:
        """Read a run: its state, pre-flight, cost and what came out."""
        return Response(_drawn(request.user, pk))

    @extend_schema(responses={204: None})
    def delete(self, request: CallerRequest, pk: int) -> Response:
        """Delete a run that is over, with its adapter, evaluations, activations and files.

        Refused (`not_now`) while its adapter may still answer somebody, or is loaded.
        """
        run = find(_manageable(request.user), pk)
        try:
            erasure.delete_run(run, request.user)
        except StillNeeded as refusal:
            raise Problem(Code.NOT_NOW, str(refusal)) from refusal
        return Response(status=204)


class StartRun(ApiView):
    scopes = {"POST": WRITE}
    refusals = {"POST": (Code.NOT_NOW,)}

    @extend_schema(request=None, responses=RunSerializer)
    def post(self, request: CallerRequest, pk: int) -> Response:
        """Start a run whose pre-flight is done and names nothing that stops it."""
        run = find(_manageable(request.user), pk)
        with refused():
            training.start(run, request.user)
        return Response(_drawn(request.user, pk))


class CancelRun(ApiView):
    scopes = {"POST": WRITE}
    refusals = {"POST": (Code.NOT_NOW,)}

    @extend_schema(request=None, responses=RunSerializer)
    def post(self, request: CallerRequest, pk: int) -> Response:
        """Cancel a run; one that trains stops at its next step."""
        run = find(_manageable(request.user), pk)
        if not training.cancel(run, request.user):
            raise Problem(Code.NOT_NOW, "This run has ended already.")
        return Response(_drawn(request.user, pk))


class ResumeRun(ApiView):
    scopes = {"POST": WRITE}
    refusals = {"POST": (Code.NOT_NOW,)}

    @extend_schema(request=None, responses={202: RunSerializer})
    def post(self, request: CallerRequest, pk: int) -> Response:
        """Let a run that failed or was cancelled go on from its newest checkpoint.

        One that was not started yet is a draft again.
        """
        run = find(_manageable(request.user), pk)
        with refused():
            training.go_on(run, request.user)
        return Response(_drawn(request.user, pk), status=202)


class Metrics(ApiView):
    scopes = {"GET": READ}
    paged = True

    @extend_schema(responses=MetricSerializer(many=True))
    def get(self, request: CallerRequest, pk: int) -> Response:
        """List what was measured after each step, in order."""
        run = find(runs_of(request.user), pk)
        return self.page(run.metrics.order_by("step"), MetricSerializer)


class Adapters(ApiView):
    scopes = {"GET": READ}
    paged = True

    @extend_schema(responses=AdapterSerializer(many=True))
    def get(self, request: CallerRequest) -> Response:
        """List the adapters that learned only from what you may read, newest first."""
        return self.page(adapters_of(request.user).order_by("-pk"), AdapterSerializer)


class OneAdapter(ApiView):
    scopes = {"GET": READ}

    @extend_schema(responses=AdapterSerializer)
    def get(self, request: CallerRequest, pk: int) -> Response:
        """Read an adapter's card, the hashes of its files and which server can load it."""
        return Response(AdapterSerializer(find(adapters_of(request.user), pk)).data)


def adapters_of(user: User) -> QuerySet[Adapter]:
    """Give the adapters that the person may see, with what they are drawn with."""
    return Adapter.objects.visible_to(user).with_gate(user)


def runs_of(user: User) -> QuerySet[TrainingRun]:
    """Give the runs that the person may see, with what they are drawn with."""
    visible = TrainingRun.objects.visible_to(user)
    return visible.select_related("job", "adapter", "created_by")


def _startable(user: User) -> QuerySet[DatasetSnapshot]:
    return DatasetSnapshot.objects.visible_to(user).filter(
        dataset__in=Dataset.objects.owned_by(user)
    )


def startable_by(user: User, pk: int) -> DatasetSnapshot:
    """Give a snapshot that the person may train on. Raises ValidationError."""
    found = _startable(user).filter(pk=pk).first()
    if found is None:
        sentence = ErrorDetail("You may not train on this one.", code="does_not_exist")
        raise ValidationError({"snapshot": [sentence]})
    return found


def _manageable(user: User) -> QuerySet[TrainingRun]:
    return TrainingRun.objects.filter(snapshot__in=_startable(user))


def _drawn(user: User, pk: int) -> dict[str, Any]:
    return dict(RunSerializer(find(runs_of(user), pk)).data)


@contextmanager
def refused() -> Iterator[None]:
    """Answer with the sentence of what cannot be done now."""
    try:
        yield
    except RunRefused as refusal:
        raise Problem(Code.NOT_NOW, str(refusal)) from refusal
