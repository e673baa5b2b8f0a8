"""Evaluations of an adapter: start one, read what was measured and what the gate says."""

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from finetune import arena, evaluation
from finetune.gate import InvalidRules
from finetune.models import Adapter, ArenaVote, Evaluation, EvaluationItem
from kb.api.base import ApiView, CallerRequest, Input, find
from kb.api.problems import Code, Problem
from kb.models import ApiToken

READ, WRITE = (ApiToken.Scope.READ,), (ApiToken.Scope.WRITE,)


class ItemQuery(Input):
    suite = serializers.CharField(
        required=False, max_length=32, help_text="“test”, “regression”, “injection” …"
    )
    cell = serializers.CharField(required=False, max_length=32)


class EvaluationSerializer(serializers.ModelSerializer[Evaluation]):
    adapter = serializers.CharField(source="adapter.name", read_only=True)
    percent = serializers.IntegerField(source="job.percent", read_only=True)
    error = serializers.CharField(source="job.error", read_only=True)
    settings = serializers.DictField(read_only=True, help_text="The rules it goes by.")
    results = serializers.DictField(read_only=True)
    gate = serializers.DictField(read_only=True)

    class Meta:
        model = Evaluation
        fields = [
            "id", "adapter", "state", "percent", "error", "passed", "gate", "results", "settings",
            "created_at", "finished_at",
        ]  # fmt: skip
        read_only_fields = fields


class ItemSerializer(serializers.ModelSerializer[EvaluationItem]):
    scores = serializers.DictField(read_only=True)

    class Meta:
        model = EvaluationItem
        fields = ["id", "suite", "cell", "position", "question", "expected", "output", "scores"]
        read_only_fields = fields


class ArenaSerializer(serializers.Serializer[arena.Tally]):
    adapter = serializers.IntegerField(read_only=True)
    base = serializers.IntegerField(read_only=True)
    tie = serializers.IntegerField(read_only=True)
    neither = serializers.IntegerField(read_only=True)
    preferred = serializers.FloatField(source="preferred.value", read_only=True)
    low = serializers.FloatField(source="preferred.low", read_only=True)
    high = serializers.FloatField(source="preferred.high", read_only=True)
    judged = serializers.IntegerField(read_only=True)
    kappa = serializers.FloatField(
        read_only=True, allow_null=True, help_text="The judge's agreement with people."
    )


class DrawnSerializer(serializers.ModelSerializer[ArenaVote]):
    class Meta:
        model = ArenaVote
        fields = ["id", "question", "left", "right"]
        read_only_fields = fields


class VoteInput(Input):
    verdict = serializers.ChoiceField(choices=arena.VERDICTS)


class VoteSerializer(serializers.ModelSerializer[ArenaVote]):
    adapter_is_left = serializers.BooleanField(read_only=True, help_text="Told after the vote.")

    class Meta:
        model = ArenaVote
        fields = ["id", "verdict", "adapter_is_left", "judge_verdict", "voted_at"]
        read_only_fields = fields


class Evaluations(ApiView):
    scopes = {"GET": READ, "POST": WRITE}
    refusals = {"POST": (Code.NOT_NOW,)}
    paged = True

    @extend_schema(responses=EvaluationSerializer(many=True))
    def get(self, request: CallerRequest, pk: int) -> Response:
        """List the evaluations of an adapter, newest first."""
        adapter = find(Adapter.objects.visible_to(request.user), pk)
        rows = evaluation.visible_to(request.user).filter(adapter=adapter)
        return self.page(rows.order_by("-pk"), EvaluationSerializer)

    @extend_schema(request=None, responses={202: EvaluationSerializer})
    def post(self, request: CallerRequest, pk: int) -> Response:
        """Hold an adapter against its base; one that waits or runs already is given back."""
        adapter = find(Adapter.objects.managed_by(request.user), pk)
        try:
            made = evaluation.start(adapter, request.user)
        except InvalidRules as refusal:
            raise Problem(Code.NOT_NOW, str(refusal)) from refusal
        return Response(EvaluationSerializer(made).data, status=202)


class OneEvaluation(ApiView):
    scopes = {"GET": READ}

    @extend_schema(responses=EvaluationSerializer)
    def get(self, request: CallerRequest, pk: int) -> Response:
        """Read how far an evaluation is, what was measured, and what the gate says."""
        return Response(EvaluationSerializer(find(evaluation.visible_to(request.user), pk)).data)


class Items(ApiView):
    scopes = {"GET": READ}
    query_forms = {"GET": ItemQuery}
    paged = True

    @extend_schema(responses=ItemSerializer(many=True))
    def get(self, request: CallerRequest, pk: int) -> Response:
        """List the answers of an evaluation with their scores."""
        found, wanted = find(evaluation.visible_to(request.user), pk), self.query()
        rows = found.items.filter(**wanted).order_by("suite", "position", "cell")
        return self.page(rows, ItemSerializer)


class Arena(ApiView):
    scopes = {"GET": READ}

    @extend_schema(responses=ArenaSerializer)
    def get(self, request: CallerRequest, pk: int) -> Response:
        """Read what people preferred in the blind comparison, as shares with 95 % intervals."""
        adapter = find(arena.visible_to(request.user), pk)
        return Response(ArenaSerializer(arena.tally(adapter)).data)


class Draw(ApiView):
    scopes = {"POST": WRITE}

    @extend_schema(request=None, responses={200: DrawnSerializer, 204: None})
    def post(self, request: CallerRequest, pk: int) -> Response:
        """Draw two answers to a question, sides by chance, names hidden; 204 when all were voted on.

        What you drew and did not vote on comes again.
        """
        drawn = arena.draw(find(arena.visible_to(request.user), pk), request.user)
        return Response(status=204) if drawn is None else Response(DrawnSerializer(drawn).data)


class Vote(ApiView):
    scopes = {"POST": WRITE}
    refusals = {"POST": (Code.NOT_NOW,)}

    @extend_schema(request=VoteInput, responses=VoteSerializer)
    def post(self, request: CallerRequest, pk: int) -> Response:
        """Say which of two answers that you drew is better; the answer tells whose they were."""
        visible = arena.visible_to(request.user)
        find(ArenaVote.objects.filter(voter=request.user, adapter__in=visible), pk)
        made = arena.vote(pk, self.body(VoteInput)["verdict"], request.user)
        if made is None:
            raise Problem(Code.NOT_NOW, "You voted on these already.")
        return Response(VoteSerializer(made).data)
