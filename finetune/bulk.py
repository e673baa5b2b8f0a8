"""The verbs of curation on many pairs at once, in a few statements whatever their number."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from django.db import connection, transaction
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

_WRITE_REVIEWS = """
INSERT INTO finetune_review (pair_id, reviewer_id, verdict, reason, created_at, content_hash, round,
                             state_before, was_edited, before, after, seconds, is_void)
SELECT id, %s, %s, %s, %s, content_hash, round, state, FALSE, '{}', '{}', 0, FALSE
  FROM finetune_instructionpair WHERE id = ANY(%s)
"""
_WRITE_EVENTS = """
INSERT INTO finetune_auditevent (subject_kind, user_id, username, action, collection_id, detail,
                                 created_at, subject_id)
SELECT 'instructionpair', %s, %s, %s, %s, %s::jsonb, %s, id FROM unnest(%s::bigint[]) AS id
"""
_ADD_TAGS = """
UPDATE finetune_instructionpair
   SET tags = tags || ARRAY(SELECT tag FROM unnest(%s::varchar(50)[]) AS tag
                             WHERE tag <> ALL (tags)),
       updated_at = %s
 WHERE id = ANY(%s)
"""


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
    action = Action.APPROVED if verdict == Review.Verdict.APPROVE else Action.REJECTED
    with transaction.atomic():
        ids = _locked_ids(pairs)
        for batch in _batches(ids):
            with connection.cursor() as cursor:
                cursor.execute(_WRITE_REVIEWS, [user.pk, verdict, reason, timezone.now(), batch])
            if verdict == Review.Verdict.APPROVE:
                _note_audiences(batch)
            _settle_all(batch, dataset, user, reason)
            _record_all(batch, dataset, user, action, reason=reason)
    return len(ids)


def _batches(ids: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(ids), BATCH):
        yield ids[start : start + BATCH]


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
    ids: list[int], dataset: Dataset, user: User, action: str, /, **detail: Any
) -> None:
    written = json.dumps({**detail, "many": True})
    values: list[Any] = [
        user.pk,
        user.username,
        action,
        dataset.collection_id,
        written,
        timezone.now(),
        ids,
    ]
    with connection.cursor() as cursor:
        cursor.execute(_WRITE_EVENTS, values)


def _locked_ids(pairs: Pairs) -> list[int]:
    return list(pairs.order_by().select_for_update(of=("self",)).values_list("pk", flat=True))


def tag_all(pairs: Pairs, dataset: Dataset, user: User, tags: Sequence[str]) -> int:
    """Add tags; those that pairs have stay."""
    with transaction.atomic():
        ids = _locked_ids(pairs)
        for batch in _batches(ids):
            with connection.cursor() as cursor:
                cursor.execute(_ADD_TAGS, [list(tags), timezone.now(), batch])
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
