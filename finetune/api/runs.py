"""What a run leaves to read, and sweeps: several runs that differ in a few settings."""

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.response import Response

from finetune import sweeps
from finetune.api.training import RunInput, RunSerializer, refused, runs_of, startable_by
from finetune.hyperparameters import InvalidConfig, TrainingConfig
from finetune.models import TrainingRun
from kb.api.base import ApiView, CallerRequest, find
from kb.api.problems import Code
from kb.models import ApiToken

READ, WRITE = (ApiToken.Scope.READ,), (ApiToken.Scope.WRITE,)


class SweepInput(RunInput):
    tried = serializers.DictField(
        child=serializers.ListField(allow_empty=False),
        allow_empty=False,
        help_text="Settings with the values to try; every combination becomes a run.",
    )

    def validate(self, values: dict[str, Any]) -> dict[str, Any]:
        try:
            sweeps.grid(values["config"], values["tried"])
        except InvalidConfig as error:
            problems = [ErrorDetail(problem, code="invalid") for problem in error.problems]
            raise ValidationError({"tried": problems}) from error
        return values


class SweepSerializer(serializers.Serializer[Any]):
    sweep = serializers.CharField(read_only=True, help_text="Narrows `runs/` to its runs.")
    runs = RunSerializer(many=True, read_only=True)


class RunLogSerializer(serializers.ModelSerializer[TrainingRun]):
    text = serializers.CharField(source="log_tail", read_only=True, help_text="Its last lines.")

    class Meta:
        model = TrainingRun
        fields = ["text"]
        read_only_fields = fields


class Sweeps(ApiView):
    scopes = {"POST": WRITE}
    refusals = {"POST": (Code.NOT_NOW,)}

    @extend_schema(request=SweepInput, responses={202: SweepSerializer})
    def post(self, request: CallerRequest) -> Response:
        """Plan several runs at once on a snapshot of a data set whose collection you own.

        Each has its pre-flight and is started by itself. Read them with `runs/?sweep=`.
        """
        given = self.body(SweepInput)
        snapshot = startable_by(request.user, given["snapshot"])
        configs: list[TrainingConfig] = sweeps.grid(given["config"], given["tried"])
        with refused():
            made = sweeps.plan(snapshot, request.user, name=given["name"], configs=configs)
        found = runs_of(request.user).filter(pk__in=[run.pk for run in made]).order_by("pk")
        return Response(SweepSerializer({"sweep": made[0].sweep, "runs": found}).data, status=202)


class Manifest(ApiView):
    scopes = {"GET": READ}

    @extend_schema(responses=OpenApiTypes.OBJECT)
    def get(self, request: CallerRequest, pk: int) -> Response:
        """Read what a run depended on, with which it can be repeated; empty until it succeeded."""
        return Response(find(runs_of(request.user), pk).manifest)


class Log(ApiView):
    scopes = {"GET": READ}

    @extend_schema(responses=RunLogSerializer)
    def get(self, request: CallerRequest, pk: int) -> Response:
        """Read the last lines that a run wrote."""
        return Response(RunLogSerializer(find(runs_of(request.user), pk)).data)
