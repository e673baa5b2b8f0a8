"""Two answers side by side, names hidden: people say which is better, and a judge is held to that."""

import secrets
from dataclasses import dataclass

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from finetune import agreement
from finetune.evaluation import both_answers
from finetune.intervals import Share, wilson
from finetune.models import Adapter, ArenaVote, Evaluation, EvaluationItem
from kb.models import User

VERDICTS = ("left", "right", "tie", "neither")


def visible_to(user: User) -> QuerySet[Adapter]:
    """Adapters whose every source the person may read, so that any question may be shown."""
    return Adapter.objects.visible_to(user)


def draw(adapter: Adapter, voter: User) -> ArenaVote | None:
    """Give the next pair of answers, drawn by chance, sides too; None when all were voted on.

    One that was shown and not voted on comes again, so that nobody can draw until it suits.
    """
    with transaction.atomic():
        Adapter.objects.select_for_update().get(pk=adapter.pk)
        votes = ArenaVote.objects.filter(adapter=adapter, voter=voter)
        if waiting := votes.filter(verdict="").first():
            return waiting
        voted = set(votes.values_list("question", "left", "right"))
        left = [each for each in _newest_pairs(adapter) if not voted & _shown_as(*each)]
        if not left:
            return None
        base, own = secrets.choice(left)
        is_left = bool(secrets.randbelow(2))
        return ArenaVote.objects.create(
            adapter=adapter,
            question=base.question,
            left=own.output if is_left else base.output,
            right=base.output if is_left else own.output,
            adapter_is_left=is_left,
            judge_verdict=_by_side(own.scores.get("judge", ""), is_left),
            voter=voter,
        )


def _newest_pairs(adapter: Adapter) -> list[tuple[EvaluationItem, EvaluationItem]]:
    done = adapter.evaluations.filter(state=Evaluation.State.DONE).order_by("-pk").first()
    return list(both_answers(done)) if done else []


def _shown_as(base: EvaluationItem, own: EvaluationItem) -> set[tuple[str, str, str]]:
    question = base.question
    return {(question, base.output, own.output), (question, own.output, base.output)}


def _by_side(winner: str, adapter_is_left: bool) -> str:
    """Turn "adapter" or "base" into a side; "tie" and "" stay."""
    sides = {"adapter": "left", "base": "right"}
    if not adapter_is_left:
        sides = {"adapter": "right", "base": "left"}
    return sides.get(winner, winner)


def vote(pk: int, verdict: str, voter: User) -> ArenaVote | None:
    """Write a verdict down, once; None when there is no such pair of this person's to vote on."""
    waiting = ArenaVote.objects.filter(pk=pk, voter=voter, verdict="")
    if verdict not in VERDICTS or not waiting.update(verdict=verdict, voted_at=timezone.now()):
        return None
    return ArenaVote.objects.get(pk=pk)


@dataclass(frozen=True, slots=True)
class Tally:
    """What people prefer. `preferred`: the adapter's share of the votes that chose one of both.

    `kappa`: the judge's agreement with people, over the `judged` votes that have both verdicts.
    """

    adapter: int
    base: int
    tie: int
    neither: int
    preferred: Share
    judged: int
    kappa: float | None

    @property
    def total(self) -> int:
        return self.adapter + self.base + self.tie + self.neither

    @property
    def kappa_in_words(self) -> str:
        return "" if self.kappa is None else agreement.in_words(self.kappa)


def tally(adapter: Adapter) -> Tally:
    votes = ArenaVote.objects.filter(adapter=adapter).exclude(verdict="")
    said = list(votes.values_list("verdict", "judge_verdict", "adapter_is_left"))
    own = sum(verdict == _by_side("adapter", is_left) for verdict, _, is_left in said)
    base = sum(verdict == _by_side("base", is_left) for verdict, _, is_left in said)
    both = [
        ("tie" if verdict == "neither" else verdict, judge) for verdict, judge, _ in said if judge
    ]
    return Tally(
        adapter=own,
        base=base,
        tie=sum(verdict == "tie" for verdict, *_ in said),
        neither=sum(verdict == "neither" for verdict, *_ in said),
        preferred=wilson(own, own + base),
        judged=len(both),
        kappa=agreement.cohens_kappa(both),
    )
