"""Watch what a deployed adapter does to the answers, and stop it when they get worse.

Compared are the answers of the adapter since it was deployed with all other generated answers,
from 30 days before on. It is stopped when the 99 % intervals of the two shares of bad ratings, or
of failed answers, lie apart, the wrong way round and by at least `MARGIN`, with at least `LEAST`
ratings or answers on its side. 99 %, because it is looked at again and again. Where there is too
little to compare with, a clear majority of bad ones stops it. Answers that failed because the whole
server was away count on no side. docs/serve.md
"""

from dataclasses import dataclass
from datetime import timedelta

from django.db.models import Count, Q, QuerySet

from finetune.activation import ActivationRefused, take_back
from finetune.intervals import Z_95, Z_99, Share, wilson
from finetune.models import Activation
from kb.backends import get_backend
from kb.generators.chat_completions import AWAY
from kb.models import Feedback, Message

BEFORE = timedelta(days=30)
LEAST = 10
MARGIN = 0.05


@dataclass(frozen=True, slots=True)
class Answers:
    """Counts of finished answers; `bad` of the `rated` ones were rated wrong."""

    answered: int
    failed: int
    rated: int
    bad: int

    @property
    def good_share(self) -> Share:
        return wilson(self.rated - self.bad, self.rated, z=Z_95)


@dataclass(frozen=True, slots=True)
class Comparison:
    before: Answers
    after: Answers


def compare(activation: Activation) -> Comparison:
    """Count the answers of a deployed adapter and the others it is held against."""
    assert activation.deployed_at is not None
    generated = Message.objects.filter(
        role=Message.Role.ASSISTANT, generator=get_backend("GENERATOR").label
    )
    name, since = activation.adapter.name, activation.deployed_at
    own = generated.filter(deployment__adapter_name=name, created_at__gte=since)
    if activation.ended_at:
        own = own.filter(created_at__lt=activation.ended_at)
    others = generated.exclude(deployment__adapter_name=name).filter(created_at__gte=since - BEFORE)
    # While only some get the adapter, the others are answered at the same time; else only before.
    if activation.share == 1 and not activation.groups.exists():
        others = others.filter(created_at__lt=since)
    return Comparison(before=count(others), after=count(own))


def count(answers: QuerySet[Message]) -> Answers:
    """Count finished answers; one that a person stopped counts as answered.

    One that failed because the server was away says nothing about a model and is left out.
    """
    state = Message.State
    bad = Q(feedback__value=Feedback.Value.DOWN)
    ended = answers.filter(state__in=[state.DONE, state.STOPPED, state.FAILED])
    counted = ended.exclude(state=state.FAILED, error__in=AWAY).aggregate(
        answered=Count("pk", distinct=True),
        failed=Count("pk", filter=Q(state=state.FAILED), distinct=True),
        rated=Count("feedback", distinct=True),
        bad=Count("feedback", filter=bad, distinct=True),
    )
    return Answers(**counted)


def verdict(found: Comparison) -> str:
    """Say with numbers why the adapter must stop; "" while nothing speaks against it."""
    before, after = found.before, found.after
    return _worse("rated wrong", before.bad, before.rated, after.bad, after.rated) or _worse(
        "failed", before.failed, before.answered, after.failed, after.answered
    )


def _worse(what: str, bad_before: int, all_before: int, bad: int, total: int) -> str:
    if total < LEAST:
        return ""
    now = wilson(bad, total, z=Z_99)
    numbers = f"{bad} of {total} answers {what} ({now.value:.0%}, at least {now.low:.0%})"
    if all_before < LEAST:
        return f"{numbers}, with too few before to compare." if now.low > 0.5 else ""
    then = wilson(bad_before, all_before, z=Z_99)
    if now.low <= then.high or now.value - then.value < MARGIN:
        return ""
    return (
        f"{numbers}; without it {bad_before} of {all_before}"
        f" ({then.value:.0%}, at most {then.high:.0%})."
    )


def look() -> int:
    """Stop the deployed adapters that make answers worse; gives their number."""
    deployed = Activation.objects.filter(state=Activation.State.DEPLOYED)
    stopped = 0
    for activation in deployed.select_related(
        "adapter__run__snapshot__dataset__collection", "deployment"
    ):
        if reason := verdict(compare(activation)):
            stopped += _stop(activation, reason)
    return stopped


def _stop(activation: Activation, reason: str) -> bool:
    try:
        take_back(activation, None, state=Activation.State.STOPPED, reason=reason)
    except ActivationRefused:
        return False  # somebody took it back meanwhile
    return True
