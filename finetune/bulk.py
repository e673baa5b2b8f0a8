"""The verbs of curation on many pairs at once, in a few statements whatever their number."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from django.db import transaction
from django.db.models import Count, F, Q, QuerySet
from django.utils import timezone

from finetune import staleness
from finetune.agreement import Outcome, outcome
from finetune.models import AuditEvent, Dataset, InstructionPair, PairSource, Review
from kb.models import User

Action = AuditEvent.Action
State = InstructionPair.State
Pairs = QuerySet[InstructionPair]
# PostgreSQL takes 65,535 parameters in one statement.
BATCH = 5_000
# What a person wrote or brought in may be approved without looking at each; a model's draft not.
_OWN_WORK = (InstructionPair.Origin.IMPORT, InstructionPair.Origin.TYPED)


def approvable(pairs: Pairs, user: User) -> Pairs:
    """Those that may be approved together: own work, without flags, whose passages stand."""
    unsure = PairSource.objects.exclude(standing=PairSource.Standing.STANDS)
    own = rejectable(pairs, user).filter(origin__in=_OWN_WORK, flags=[], state=State.SUGGESTED)
    return own.exclude(pk__in=unsure.values("pair"))


def rejectable(pairs: Pairs, user: User) -> Pairs:
    """Those that the person may judge now."""
    return pairs.order_by().filter(pk__in=InstructionPair.objects.awaiting(user).values("pk"))


def decided(pairs: Pairs) -> Pairs:
    """Those that can be opened again."""
    return pairs.order_by().filter(state__in=[State.APPROVED, State.REJECTED])


def approve_all(pairs: Pairs, dataset: Dataset, user: User) -> int:
    """Approve those that may be; gives how many were judged."""
    return _judge_all(approvable(pairs, user), dataset, user, Review.Verdict.APPROVE, "")


def reject_all(pairs: Pairs, dataset: Dataset, user: User, reason: str) -> int:
    """Reject those that the person may judge; gives how many were judged."""
    return _judge_all(rejectable(pairs, user), dataset, user, Review.Verdict.REJECT, reason)


def _judge_all(pairs: Pairs, dataset: Dataset, user: User, verdict: str, reason: str) -> int:
    with transaction.atomic():
        locked = pairs.select_for_update(of=("self",))
        rows = list(locked.values_list("pk", "content_hash", "round", "state"))
        for batch in _batches(rows):
            Review.objects.bulk_create(
                Review(
                    pair_id=pk, reviewer=user, verdict=verdict, reason=reason,
                    content_hash=content_hash, round=number, state_before=state,
                )
                for pk, content_hash, number, state in batch
            )  # fmt: skip
            ids = [row[0] for row in batch]
            if verdict == Review.Verdict.APPROVE:
                _note_audiences(ids)
            _settle_all(ids, dataset, user, reason)
            action = Action.APPROVED if verdict == Review.Verdict.APPROVE else Action.REJECTED
            _record_all(ids, dataset, user, action, reason=reason)
    return len(rows)


def _batches(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(rows), BATCH):
        yield rows[start : start + BATCH]


def _note_audiences(ids: Sequence[int]) -> None:
    sources = PairSource.objects.filter(pair__in=ids)
    collections = sources.order_by().values_list("collection", flat=True).distinct()
    for pk, audience in staleness.audience_of(filter(None, collections)).items():
        sources.filter(collection=pk).update(audience=audience)


def _settle_all(ids: Sequence[int], dataset: Dataset, user: User, reason: str) -> None:
    """Set states by the judgements that stand, as curation does for one."""
    counted = (
        Review.objects.standing()
        .filter(pair__in=ids)
        .order_by()
        .values_list("pair")
        .annotate(
            approvals=Count("pk", filter=Q(verdict=Review.Verdict.APPROVE)),
            rejections=Count("pk", filter=Q(verdict=Review.Verdict.REJECT)),
        )
    )
    by_outcome: dict[Outcome, list[int]] = defaultdict(list)
    for pk, approvals, rejections in counted:
        by_outcome[outcome(approvals, rejections, dataset.reviews_wanted)].append(pk)
    now = timezone.now()
    free: dict[str, Any] = {"claimed_by": None, "claimed_until": None, "updated_at": now}
    final = {Outcome.APPROVED: State.APPROVED, Outcome.REJECTED: State.REJECTED}
    for decision, settled in by_outcome.items():
        values = {**free, "is_disputed": decision == Outcome.DISPUTED}
        if decision in final:
            values |= {
                "state": final[decision], "reviewer": user, "reviewed_at": now,
                "reject_reason": reason if decision == Outcome.REJECTED else "",
            }  # fmt: skip
        InstructionPair.objects.filter(pk__in=settled).update(**values)


def _record_all(
    ids: Iterable[int], dataset: Dataset, user: User, action: str, /, **detail: Any
) -> None:
    AuditEvent.objects.bulk_create(
        (
            AuditEvent(
                user=user, username=user.username, action=action, subject_kind="instructionpair",
                subject_id=pk, collection_id=dataset.collection_id, detail={**detail, "many": True},
            )
            for pk in ids
        ),
        batch_size=BATCH,
    )  # fmt: skip


def _locked_ids(pairs: Pairs) -> list[int]:
    return list(pairs.order_by().select_for_update(of=("self",)).values_list("pk", flat=True))


def tag_all(pairs: Pairs, dataset: Dataset, user: User, tags: Sequence[str]) -> int:
    """Add tags; those that pairs have stay."""
    with transaction.atomic():
        ids = _locked_ids(pairs)
        for batch in _batches(ids):
            rows = list(InstructionPair.objects.filter(pk__in=batch).only("tags"))
            for row in rows:
                row.tags = list(dict.fromkeys([*row.tags, *tags]))
                row.updated_at = timezone.now()
            InstructionPair.objects.bulk_update(rows, ["tags", "updated_at"], batch_size=1_000)
            _record_all(batch, dataset, user, Action.TAGGED, tags=list(tags))
    return len(ids)


def reopen_all(pairs: Pairs, dataset: Dataset, user: User) -> int:
    """Let decided pairs be judged anew."""
    with transaction.atomic():
        ids = _locked_ids(decided(pairs))
        for batch in _batches(ids):
            Review.objects.standing().filter(pair__in=batch).update(is_void=True)
            InstructionPair.objects.filter(pk__in=batch).update(
                state=State.SUGGESTED, round=F("round") + 1, reviewer=None, reviewed_at=None,
                reject_reason="", is_disputed=False, updated_at=timezone.now(),
            )  # fmt: skip
            _record_all(batch, dataset, user, Action.REOPENED)
    return len(ids)


def delete_all(pairs: Pairs, dataset: Dataset, user: User) -> int:
    """Delete pairs; the snapshots that hold them keep their copies."""
    with transaction.atomic():
        ids = _locked_ids(pairs)
        for batch in _batches(ids):
            _record_all(batch, dataset, user, Action.DELETED, dataset=dataset.pk)
            InstructionPair.objects.filter(pk__in=batch).delete()
    return len(ids)
