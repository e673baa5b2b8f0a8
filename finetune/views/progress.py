"""How far a data set is, who judged what in which week, how far people agree, and the log."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from django.db.models import Avg, Count, Q, QuerySet
from django.db.models.functions import TruncWeek
from django.http import HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_GET

from finetune import agreement, curation
from finetune.models import AuditEvent, InstructionPair, Review
from finetune.views.review import find_dataset, storable
from kb.models import User
from kb.views.requests import PersonRequest, number_in

WEEKS = 12
PAGE_ROWS = 50
# Fewer common judgements say little about two people.
FEW = 20


@dataclass(frozen=True, slots=True)
class WeekOf:
    """What one person judged in one week. `kappa`: with everybody else who judged the same."""

    week: date
    name: str
    judged: int
    approved: int
    rejected: int
    edited: int
    seconds: float
    kappa: float | None
    common: int


@dataclass(frozen=True, slots=True)
class Two:
    """How far two people agree over all weeks; `common`: pairs that both judged."""

    first: str
    second: str
    common: int
    same: float
    kappa: float | None
    words: str

    @property
    def is_few(self) -> bool:
        return self.common < FEW


@require_GET
def progress(request: PersonRequest, pk: int) -> HttpResponse:
    found = find_dataset(request, pk)
    pairs = InstructionPair.objects.visible_to(request.user).filter(dataset=found)
    states = dict(pairs.order_by().values_list("state").annotate(n=Count("pk")))
    reviews = Review.objects.filter(undone_at=None, pair__in=pairs, reviewer__isnull=False)
    together = _judged_together(reviews)
    weeks = _weeks(reviews, together)
    context = {
        "dataset": found,
        "tab": "progress",
        "states": [(label, states.get(state, 0)) for state, label in InstructionPair.State.choices],
        "total": sum(states.values()),
        "judged": states.get("approved", 0) + states.get("rejected", 0),
        "weeks": weeks,
        "most": max((week.judged for week in weeks), default=1),
        "twos": _twos(together),
        "disputed": pairs.filter(is_disputed=True).count(),
        "week_count": WEEKS,
    }
    return render(request, "finetune/progress.html", context)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a person said of a pair; `item` is the pair in the round and words that were judged."""

    item: tuple[int, int, str]
    person: int
    verdict: str
    week: date


def _judged_together(reviews: QuerySet[Review]) -> list[Judgement]:
    """Give the judgements of pairs that more than one person judged."""
    shared = (
        reviews.order_by().values("pair").annotate(people=Count("reviewer", distinct=True))
    ).filter(people__gt=1)
    rows = reviews.filter(pair__in=shared.values("pair")).annotate(week=TruncWeek("created_at"))
    return [
        Judgement((pair, number, content_hash), person, verdict, week.date())
        for pair, number, content_hash, person, verdict, week in rows.values_list(
            "pair", "round", "content_hash", "reviewer", "verdict", "week"
        )
    ]


def _names(people: set[int]) -> dict[int, str]:
    return {person.pk: person.display_name for person in User.objects.filter(pk__in=people)}


def _weeks(reviews: QuerySet[Review], together: list[Judgement]) -> list[WeekOf]:
    since = timezone.now() - timedelta(weeks=WEEKS)
    rows = (
        reviews.filter(created_at__gt=since)
        .annotate(week=TruncWeek("created_at"))
        .order_by()
        .values("week", "reviewer")
        .annotate(
            judged=Count("pk"),
            approved=Count("pk", filter=Q(verdict="approve")),
            edited=Count("pk", filter=Q(was_edited=True)),
            seconds=Avg("seconds", filter=Q(seconds__gt=0)),
        )
        .order_by("-week", "-judged")
    )
    names = _names({row["reviewer"] for row in rows})
    agreed = _with_others(together)
    return [_week_of(row, names, agreed) for row in rows]


def _week_of(
    row: Mapping[str, Any],
    names: dict[int, str],
    agreed: dict[tuple[date, int], list[tuple[str, str]]],
) -> WeekOf:
    week = row["week"].date()
    common = agreed.get((week, row["reviewer"]), [])
    return WeekOf(
        week=week,
        name=names.get(row["reviewer"], ""),
        judged=row["judged"],
        approved=row["approved"],
        rejected=row["judged"] - row["approved"],
        edited=row["edited"],
        seconds=row["seconds"] or 0,
        kappa=agreement.cohens_kappa(common),
        common=len(common),
    )


def _with_others(together: list[Judgement]) -> dict[tuple[date, int], list[tuple[str, str]]]:
    """Collect for each week and person what they said beside what each other person said."""
    by_item: dict[tuple[int, int, str], list[Judgement]] = defaultdict(list)
    for judgement in together:
        by_item[judgement.item].append(judgement)
    found: dict[tuple[date, int], list[tuple[str, str]]] = defaultdict(list)
    for said in by_item.values():
        for mine in said:
            others = (other.verdict for other in said if other.person != mine.person)
            found[mine.week, mine.person] += [(mine.verdict, verdict) for verdict in others]
    return found


def _twos(together: list[Judgement]) -> list[Two]:
    said = agreement.in_twos((j.item, j.person, j.verdict) for j in together)
    names = _names({person for both in said for person in both})
    found = []
    for (first, second), judgements in said.items():
        kappa = agreement.cohens_kappa(judgements)
        same = Counter(a == b for a, b in judgements)[True] / len(judgements)
        words = agreement.in_words(kappa) if kappa is not None else ""
        found.append(Two(names[first], names[second], len(judgements), same, kappa, words))
    return sorted(found, key=lambda two: -two.common)


@require_GET
def audit(request: PersonRequest, pk: int) -> HttpResponse:
    """Show what was decided about the data set and its pairs, newest first."""
    found = find_dataset(request, pk)
    events = curation.log_of(request.user, found)
    person, action = storable(request.GET.get("person", "")), request.GET.get("action", "")
    if person:
        events = events.filter(username=person)
    if action in AuditEvent.Action.values:
        events = events.filter(action=action)
    if (before := number_in(request.GET.get("before", ""))) is not None:
        events = events.filter(pk__lt=before)
    rows = list(events.order_by("-pk")[: PAGE_ROWS + 1])
    context = {
        "dataset": found,
        "tab": "audit",
        "rows": rows[:PAGE_ROWS],
        "before": rows[PAGE_ROWS - 1].pk if len(rows) > PAGE_ROWS else None,
        "actions": AuditEvent.Action.choices,
        "action": action,
        "person": person,
    }
    return render(request, "finetune/audit.html", context)
