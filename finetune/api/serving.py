"""Activations of adapters, who answers now, when to train again, and what training cost."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib.auth.models import Group
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.response import Response

from finetune import activation, erasure, guard, ledger, retraining
from finetune.activation import ActivationRefused
from finetune.api.training import AdapterSerializer, adapters_of
from finetune.models import Activation, Adapter, Dataset, RetrainRule
from kb.api.base import ApiView, CallerRequest, Input, find
from kb.api.problems import Code, Problem
from kb.backends import get_backend
from kb.models import ApiToken, User
from workers import tasks

READ, WRITE = (ApiToken.Scope.READ,), (ApiToken.Scope.WRITE,)
REASON = 1_000


# --- What comes in and goes out ------------------------------------------------------------------


class ActivationInput(Input):
    reason = serializers.CharField(max_length=REASON)
    share = serializers.FloatField(
        required=False,
        default=1.0,
        min_value=0.001,
        max_value=1,
        help_text="Of conversations, 0–1.",
    )
    groups = serializers.ListField(
        child=serializers.CharField(max_length=150), required=False, default=list,
        help_text="Only for the people of these groups, by name.",
    )  # fmt: skip
    override_reason = serializers.CharField(
        required=False, default="", allow_blank=True, max_length=REASON,
        help_text="Why although the gate says no.",
    )  # fmt: skip

    def validate_groups(self, names: list[str]) -> list[Group]:
        found = list(Group.objects.filter(name__in=names))
        if len(found) < len(set(names)):
            raise serializers.ValidationError("There is no such group.")
        return found


class ReasonInput(Input):
    reason = serializers.CharField(required=False, default="", allow_blank=True, max_length=REASON)


class ErasureInput(Input):
    kind = serializers.ChoiceField(choices=["document", "person"])
    name = serializers.CharField(max_length=255, help_text="A document's id or a username.")
    reason = serializers.CharField(required=False, default="", allow_blank=True, max_length=REASON)


class AnswersSerializer(serializers.Serializer[guard.Answers]):
    answered = serializers.IntegerField(read_only=True)
    failed = serializers.IntegerField(read_only=True)
    rated = serializers.IntegerField(read_only=True)
    bad = serializers.IntegerField(read_only=True)
    good = serializers.FloatField(source="good_share.value", read_only=True)
    low = serializers.FloatField(
        source="good_share.low", read_only=True, help_text="Of the 95 % interval of good."
    )
    high = serializers.FloatField(source="good_share.high", read_only=True)


class ActivationSerializer(serializers.ModelSerializer[Activation]):
    adapter = serializers.CharField(source="adapter.name", read_only=True)
    groups: Any = serializers.SlugRelatedField(slug_field="name", many=True, read_only=True)
    requested_by = serializers.CharField(
        source="requested_by.username", read_only=True, default=None, allow_null=True
    )
    approved_by = serializers.CharField(
        source="approved_by.username", read_only=True, default=None, allow_null=True
    )
    probe = serializers.DictField(read_only=True)
    before = serializers.SerializerMethodField(help_text="Answers that it is held against.")
    after = serializers.SerializerMethodField(help_text="Its own answers.")

    class Meta:
        model = Activation
        fields = [
            "id", "adapter", "state", "share", "groups", "reason", "override_reason", "error",
            "probe", "requested_by", "approved_by", "created_at", "deployed_at", "ended_at",
            "before", "after",
        ]  # fmt: skip
        read_only_fields = fields

    @extend_schema_field(AnswersSerializer(allow_null=True))
    def get_before(self, row: Activation) -> dict[str, Any] | None:
        return AnswersSerializer(guard.compare(row).before).data if row.deployed_at else None

    @extend_schema_field(AnswersSerializer(allow_null=True))
    def get_after(self, row: Activation) -> dict[str, Any] | None:
        return AnswersSerializer(guard.compare(row).after).data if row.deployed_at else None


class LayerSerializer(serializers.Serializer[Any]):
    adapter = serializers.CharField(
        read_only=True, allow_null=True, help_text="Null where you may not see it; “” for the base."
    )
    share = serializers.FloatField(read_only=True)
    groups = serializers.ListField(child=serializers.CharField(), read_only=True)
    since = serializers.DateTimeField(read_only=True)


class ServingSerializer(serializers.Serializer[Any]):
    layers = LayerSerializer(many=True, read_only=True)


class SumsSerializer(serializers.Serializer[ledger.Sums]):
    month = serializers.DateTimeField(
        read_only=True, allow_null=True, help_text="Its first moment; null for all of them."
    )
    runs = serializers.IntegerField(read_only=True)
    gpu_seconds = serializers.FloatField(read_only=True)
    energy_wh = serializers.FloatField(read_only=True)
    cost = serializers.FloatField(read_only=True)


class LedgerSerializer(serializers.Serializer[Any]):
    months = SumsSerializer(many=True, read_only=True)
    total = SumsSerializer(read_only=True)


class RuleSerializer(serializers.ModelSerializer[RetrainRule]):
    met = serializers.SerializerMethodField(help_text="The conditions that are met now.")

    class Meta:
        model = RetrainRule
        fields = [
            "is_on", "new_pairs", "stale_share", "rating_drop", "every_days", "last_fired_at",
            "last_reason", "met",
        ]  # fmt: skip
        read_only_fields = ["last_fired_at", "last_reason"]

    def get_met(self, rule: RetrainRule) -> list[str]:
        return retraining.reasons(rule)


class RuleInput(Input):
    is_on = serializers.BooleanField(required=False, default=True)
    new_pairs = serializers.IntegerField(required=False, default=0, min_value=0, max_value=10**6)
    stale_share = serializers.FloatField(required=False, default=0, min_value=0, max_value=1)
    rating_drop = serializers.FloatField(required=False, default=0, min_value=0, max_value=1)
    every_days = serializers.IntegerField(required=False, default=0, min_value=0, max_value=3660)


class ErasedSerializer(serializers.Serializer[erasure.Erased]):
    pairs = serializers.IntegerField(read_only=True, help_text="How many turned stale.")
    adapters = serializers.ListField(
        child=serializers.CharField(), read_only=True, help_text="Those that were marked."
    )


# --- Endpoints -----------------------------------------------------------------------------------


class Activations(ApiView):
    scopes = {"GET": READ, "POST": WRITE}
    refusals = {"POST": (Code.NOT_NOW,)}
    paged = True

    @extend_schema(responses=ActivationSerializer(many=True))
    def get(self, request: CallerRequest, pk: int) -> Response:
        """List the activations of an adapter that you manage, newest first."""
        adapter = find(Adapter.objects.managed_by(request.user), pk)
        rows = activation.visible_to(request.user).filter(adapter=adapter)
        return self.page(rows.order_by("-pk"), ActivationSerializer)

    @extend_schema(request=ActivationInput, responses={202: ActivationSerializer})
    def post(self, request: CallerRequest, pk: int) -> Response:
        """Ask that an adapter answers; follow `state` until it is deployed or failed.

        Refused (`not_now`) when its evaluation did not pass, unless `override_reason` says why
        it should answer nevertheless, and when the server could not load it.
        """
        adapter = find(Adapter.objects.managed_by(request.user), pk)
        given = self.body(ActivationInput)
        with refused():
            made = activation.request(adapter, request.user, **given)
        tasks.hint_workers()
        return Response(ActivationSerializer(_one(request.user, made.pk)).data, status=202)


class OneActivation(ApiView):
    scopes = {"GET": READ}

    @extend_schema(responses=ActivationSerializer)
    def get(self, request: CallerRequest, pk: int) -> Response:
        """Read how far an activation is, what the probe found, and the ratings since."""
        return Response(ActivationSerializer(_one(request.user, pk)).data)


class Approval(ApiView):
    scopes = {"POST": WRITE}
    refusals = {"POST": (Code.NOT_NOW,)}

    @extend_schema(request=None, responses={202: ActivationSerializer})
    def post(self, request: CallerRequest, pk: int) -> Response:
        """Let an activation start that another person asked for."""
        with refused():
            activation.approve(_one(request.user, pk), request.user)
        tasks.hint_workers()
        return Response(ActivationSerializer(_one(request.user, pk)).data, status=202)


class Withdrawal(ApiView):
    scopes = {"POST": WRITE}
    refusals = {"POST": (Code.NOT_NOW,)}

    @extend_schema(request=None, responses=ActivationSerializer)
    def post(self, request: CallerRequest, pk: int) -> Response:
        """Take back what waits for a second person."""
        with refused():
            activation.withdraw(_one(request.user, pk), request.user)
        return Response(ActivationSerializer(_one(request.user, pk)).data)


class RollBack(ApiView):
    scopes = {"POST": WRITE}
    refusals = {"POST": (Code.NOT_NOW,)}

    @extend_schema(request=ReasonInput, responses=ActivationSerializer)
    def post(self, request: CallerRequest, pk: int) -> Response:
        """Let what served before serve again, if the model server still has it."""
        found, given = _one(request.user, pk), self.body(ReasonInput)
        with refused():
            activation.roll_back(found, request.user, reason=given["reason"])
        return Response(ActivationSerializer(_one(request.user, pk)).data)


class Unloading(ApiView):
    scopes = {"POST": WRITE}
    refusals = {"POST": (Code.NOT_NOW,)}

    @extend_schema(request=ReasonInput, responses=AdapterSerializer)
    def post(self, request: CallerRequest, pk: int) -> Response:
        """Take an adapter that answers nobody off the model server; its files are kept."""
        adapter = find(Adapter.objects.managed_by(request.user), pk)
        given = self.body(ReasonInput)
        with refused():
            activation.retire(adapter, request.user, reason=given["reason"])
        return Response(AdapterSerializer(find(adapters_of(request.user), pk)).data)


class Serving(ApiView):
    scopes = {"GET": READ}

    @extend_schema(responses=ServingSerializer)
    def get(self, request: CallerRequest) -> Response:
        """Say who answers now: whom the first does not reach gets the next, at last the base."""
        speaking = activation.speaking(get_backend("GENERATOR").base_model)
        shown = [
            {
                "adapter": activation.seen_name(layer, request.user),
                "share": layer.share,
                "groups": [group.name for group in layer.groups.all()],
                "since": layer.created_at,
            }
            for layer in speaking
        ]
        return Response(ServingSerializer({"layers": shown}).data)


class Ledger(ApiView):
    scopes = {"GET": READ}

    @extend_schema(responses=LedgerSerializer)
    def get(self, request: CallerRequest) -> Response:
        """Sum what your runs took, by month, the newest first."""
        runs = ledger.runs_of(request.user)
        shown = {"months": ledger.months(runs), "total": ledger.total(runs)}
        return Response(LedgerSerializer(shown).data)


class Rule(ApiView):
    scopes = {"GET": READ, "PUT": WRITE}

    @extend_schema(responses=RuleSerializer)
    def get(self, request: CallerRequest, pk: int) -> Response:
        """Read when a data set asks for a new run."""
        return Response(RuleSerializer(_rule(request.user, pk)).data)

    @extend_schema(request=RuleInput, responses=RuleSerializer)
    def put(self, request: CallerRequest, pk: int) -> Response:
        """Say when a data set asks for a new run; what is left out or 0 is not looked at."""
        rule = _rule(request.user, pk)
        for name, value in self.body(RuleInput).items():
            setattr(rule, name, value)
        rule.save()
        return Response(RuleSerializer(rule).data)


class Erasures(ApiView):
    scopes = {"POST": WRITE}
    refusals = {"POST": (Code.NOT_FOUND,)}

    @extend_schema(request=ErasureInput, responses=ErasedSerializer)
    def post(self, request: CallerRequest) -> Response:
        """Keep a document or a person out: pairs turn stale, adapters are marked."""
        given = self.body(ErasureInput)
        look = {"document": erasure.find_documents, "person": erasure.find_people}
        found = look[given["kind"]](request.user, given["name"])
        if len(found) != 1:
            raise Problem(Code.NOT_FOUND)
        done = erasure.erase(found[0], request.user, reason=given["reason"])
        return Response(ErasedSerializer(done).data)


@contextmanager
def refused() -> Iterator[None]:
    """Turn the refusal of the journey into a problem for programs."""
    try:
        yield
    except ActivationRefused as refusal:
        raise Problem(Code.NOT_NOW, str(refusal)) from refusal


def _one(user: User, pk: int) -> Activation:
    return find(activation.visible_to(user), pk)


def _rule(user: User, pk: int) -> RetrainRule:
    dataset = find(Dataset.objects.owned_by(user), pk)
    return RetrainRule.objects.filter(dataset=dataset).first() or RetrainRule(dataset=dataset)
