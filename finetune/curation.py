"""What a person does with pairs: write, claim, approve, edit, reject, undo, open again, delete.

Each verb is one transaction that locks the pair, and leaves one line in the audit log.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.db.models.expressions import RawSQL
from django.utils import timezone
from pgvector.django import CosineDistance

from finetune import quality, staleness
from finetune.agreement import Outcome, outcome
from finetune.models import (
    Activation,
    Adapter,
    AuditEvent,
    Dataset,
    DatasetSnapshot,
    Evaluation,
    InstructionPair,
    PairSource,
    Review,
    TrainingRun,
)
from finetune.models.pairs import CLAIM, CONTENT_FIELDS
from kb.models import Chunk, Citation, Collection, Message, User

Action = AuditEvent.Action
State = InstructionPair.State
# A judgement can be taken back as long as the person remembers it.
UNDO_WITHIN = timedelta(hours=12)
_JUDGEMENTS = (Action.APPROVED, Action.REJECTED, Action.UNDONE)
# What an edit may change without the pair having to be judged again.
_LABELS = {"tags"}


class CurationRefused(Exception):
    """Something that cannot be done with a pair now; the message is a sentence for the person."""


# --- Writing pairs -------------------------------------------------------------------------------


def create_pair(
    user: User | None,
    dataset: Dataset,
    *,
    origin: str,
    content: Mapping[str, Any],
    sources: Iterable[Mapping[str, Any]] = (),
    origin_key: str = "",
    message: Message | None = None,
    author_label: str = "",
    **fields: Any,
) -> InstructionPair:
    """Write a suggested pair with its sources; `user` None is the program itself.

    `sources`: values of PairSource without the pair, see `source_of_chunk`. The same origin_key
    again gives the pair that is there already. Raises CurationRefused.
    """
    content = _clean(content)
    with transaction.atomic():
        known = dataset.pairs.filter(origin=origin, origin_key=origin_key)
        if origin_key and (pair := known.first()):
            return pair
        made = [PairSource(**source) for source in sources]
        _check_readable(user, made)
        pair = InstructionPair(
            dataset=dataset,
            collection_id=dataset.collection_id,
            origin=origin,
            origin_key=origin_key,
            message=message,
            author=user,
            author_label=author_label or (user.username if user else ""),
            **{**content, **fields},
        )
        measure(pair, made)
        pair.save()
        for source in made:
            source.pair = pair
        PairSource.objects.bulk_create(made)
        AuditEvent.objects.record(user, Action.CREATED, pair, dataset.collection, origin=origin)
    return pair


def source_of_chunk(chunk: Chunk, marker: int, **fields: Any) -> dict[str, Any]:
    """Give the values of a PairSource for a passage; `fields`: score, similarity, is_distractor."""
    return {
        "marker": marker,
        "collection_id": chunk.collection_id,
        "document_id": chunk.document_id,
        "version_id": chunk.version_id,
        "document_name": chunk.document.name,
        "document_key": chunk.document_id,
        "version_number": chunk.version.number,
        "title": chunk.document.title,
        "heading_path": chunk.heading_path,
        "page_first": chunk.page_first,
        "page_last": chunk.page_last,
        "start": chunk.start,
        "end": chunk.end,
        "text": chunk.text,
        **fields,
    }


def source_of_citation(citation: Citation, marker: int, **fields: Any) -> dict[str, Any]:
    """Give the values of a PairSource for a passage that an answer was offered."""
    version, document = citation.version, citation.document
    return {
        "marker": marker,
        "collection_id": citation.collection_id,
        "document_id": citation.document_id,
        "version_id": citation.version_id,
        "document_name": document.name if document else citation.title[:255],
        # A document that is gone has no id any more; 0 stands for all of them.
        "document_key": citation.document_id or 0,
        "version_number": version.number if version else 1,
        "title": citation.title,
        "heading_path": citation.heading_path,
        "page_first": citation.page_first,
        "page_last": citation.page_last,
        "start": citation.start,
        "end": citation.end,
        "text": citation.quote,
        "score": citation.score,
        **fields,
    }


def of_other_collections(
    offered: Iterable[Citation], kept: Iterable[Citation], home: Collection
) -> list[Citation]:
    """Give one passage of each collection that an answer drew on and that `kept` says nothing of.

    An answer may hold words of a passage that it does not cite: who sees a pair made of it must be
    able to read that collection too. The curators of `home`, the pair's own, always can.
    """
    known = {home.pk, *(one.collection_id for one in kept)}
    others: dict[int | None, Citation] = {}
    for one in offered:
        if one.collection_id not in known:
            others.setdefault(one.collection_id, one)
    return list(others.values())


def _clean(content: Mapping[str, Any]) -> dict[str, Any]:
    cleaned = {name: content[name] for name in CONTENT_FIELDS if name in content}
    if not str(cleaned.get("instruction", "")).strip():
        raise CurationRefused("A pair needs an instruction: what somebody asks.")
    if not (str(cleaned.get("output", "")).strip() or str(cleaned.get("rejected", "")).strip()):
        raise CurationRefused("A pair needs an output: what the model should answer.")
    return cleaned


def _check_readable(user: User | None, sources: Iterable[PairSource]) -> None:
    # 0 stands for a collection that is gone, which nobody may read.
    asked = {source.collection_id or 0 for source in sources}
    if user is None or user.is_superuser:
        return
    if Collection.objects.readable_by(user).filter(pk__in=asked).count() < len(asked):
        raise CurationRefused("A passage of it is in a collection that you may not read.")


def measure(pair: InstructionPair, sources: Iterable[PairSource]) -> None:
    """Compute the quality columns of a pair; a distractor supports nothing."""
    texts = {source.marker: source.text for source in sources if not source.is_distractor}
    by_marker = [texts.get(marker, "") for marker in range(1, max(texts, default=0) + 1)]
    content = {name: value for name, value in pair.content().items() if name not in _LABELS}
    for name, value in asdict(quality.measure(**content, sources=by_marker)).items():
        setattr(pair, name, value)


def log_of(user: User, dataset: Dataset) -> QuerySet[AuditEvent]:
    """Decisions about a data set, about its pairs that the user may see, or that are gone, and about
    what was frozen, trained and activated, as far as the user may see it.

    Without those that `unbiased` keeps back.
    """
    visible = InstructionPair.objects.visible_to(user).filter(dataset=dataset)
    of_pairs = Q(subject_kind="instructionpair", subject_id__in=visible.values("pk"))
    of_set = Q(subject_kind="dataset", subject_id=dataset.pk) | Q(detail__dataset=dataset.pk)
    kept = AuditEvent.objects.visible_to(user).filter(collection=dataset.collection_id)
    return unbiased(kept.filter(of_pairs | of_set | _of_training(user, dataset)), user)


def _of_training(user: User, dataset: Dataset) -> Q:
    """Choose decisions about snapshots and runs, and about adapters as their pages show them."""
    snapshots = DatasetSnapshot.objects.visible_to(user).filter(dataset=dataset)
    runs = TrainingRun.objects.filter(snapshot__in=snapshots)
    seen = Adapter.objects.visible_to(user).filter(run__in=runs)
    managed = Adapter.objects.managed_by(user).filter(run__in=runs)
    subjects: dict[str, QuerySet[Any]] = {
        "datasetsnapshot": snapshots,
        "trainingrun": runs,
        "evaluation": Evaluation.objects.filter(adapter__in=seen),
        "adapter": managed,
        "activation": Activation.objects.filter(adapter__in=managed),
    }
    chosen = Q()
    for kind, rows in subjects.items():
        chosen |= Q(subject_kind=kind, subject_id__in=rows.values("pk"))
    return chosen


def unbiased(events: QuerySet[AuditEvent], user: User) -> QuerySet[AuditEvent]:
    """Leave out what others judged of an open pair in this round, until the user has judged it too.

    Agreement of two people says something only where the second does not know what the first said.
    """
    mine = Review.objects.standing().filter(pair=OuterRef("pair"), reviewer=user)
    judged = Review.objects.filter(
        ~Exists(mine),
        pair=OuterRef("subject_id"),
        pair__state__in=InstructionPair.OPEN,
        round=F("pair__round"),
        created_at__lte=OuterRef("created_at"),
    )
    kinds = Q(subject_kind="instructionpair", action__in=_JUDGEMENTS)
    return events.filter(Q(user=user) | ~kinds | ~Exists(judged))


# --- Claiming ------------------------------------------------------------------------------------


def claim_next(
    dataset: Dataset,
    user: User,
    *,
    besides: Iterable[int] = (),
    like: InstructionPair | None = None,
) -> InstructionPair | None:
    """Take the next pair that waits for this person, for CLAIM; None when there is none.

    Two people, or two windows of one, never get the same pair. `like`: the most similar instead of
    the most urgent.
    """
    now = timezone.now()
    waiting = (
        InstructionPair.objects.visible_to(user)
        .awaiting(user)
        .filter(Q(claimed_by=None) | Q(claimed_until__lt=now), dataset=dataset)
        .exclude(pk__in=list(besides))
    )
    ordered = _most_like(like, waiting) if like else waiting.order_by("-priority", "pk")
    with transaction.atomic():
        first = ordered.select_for_update(skip_locked=True, of=("self",)).values("pk")[:1]
        inner, values = first.query.sql_with_params()
        taken = InstructionPair.objects.raw(
            "UPDATE finetune_instructionpair SET claimed_by_id = %s, claimed_until = %s"
            f" WHERE id = (SELECT found.id FROM ({inner}) AS found (id)) RETURNING *",
            [user.pk, now + CLAIM, *values],
        )
        return next(iter(taken), None)


def claim(pair: InstructionPair, user: User) -> bool:
    """Take or keep this very pair; False when somebody else has it."""
    now = timezone.now()
    free = Q(claimed_by=None) | Q(claimed_by=user) | Q(claimed_until__lt=now)
    mine = InstructionPair.objects.filter(free, pk=pair.pk, state__in=InstructionPair.OPEN)
    return bool(mine.update(claimed_by=user, claimed_until=now + CLAIM))


def release(user: User, pairs: Iterable[int]) -> int:
    """Give pairs back that the person took; others' stay theirs."""
    mine = InstructionPair.objects.filter(pk__in=list(pairs), claimed_by=user)
    return mine.update(claimed_by=None, claimed_until=None)


def _most_like(
    pair: InstructionPair, waiting: QuerySet[InstructionPair]
) -> QuerySet[InstructionPair]:
    """Order by meaning where both are embedded, else by the word groups they share."""
    vector = getattr(pair, "vector", None)
    others = waiting.exclude(pk=pair.pk)
    if vector is not None:
        near = others.filter(vector__model_name=vector.model_name).annotate(
            distance=CosineDistance("vector__vector", vector.vector)
        )
        if near.exists():
            return near.order_by("distance", "pk")
    shared = "cardinality(ARRAY(SELECT unnest(finetune_instructionpair.bands) INTERSECT SELECT unnest(%s::bigint[])))"
    return others.filter(bands__overlap=pair.bands or [0]).order_by(
        RawSQL(shared, [pair.bands or []]).desc(), "pk"
    )


# --- Judging -------------------------------------------------------------------------------------


def approve(
    pair: InstructionPair,
    user: User,
    *,
    content: Mapping[str, Any] | None = None,
    seconds: float = 0,
) -> InstructionPair:
    """Say that the pair is right, after the edit in `content` if there is one.

    Raises CurationRefused when somebody else has it, or it was decided already.
    """
    with transaction.atomic():
        pair = _to_judge(pair, user)
        before, state_before = pair.content(), pair.state
        changed = _change(pair, content) if content is not None else []
        kept: dict[str, Any] = {"sources": staleness.accept_sources(pair)}
        if changed:
            kept |= before
        review = _judge(pair, user, Review.Verdict.APPROVE, seconds=seconds, before=kept,
                        after=pair.content() if changed else {}, was_edited=bool(changed),
                        state_before=state_before)  # fmt: skip
        AuditEvent.objects.record(
            user, Action.APPROVED, pair, pair.collection,
            edited=changed, state=pair.state, review=review.pk,
        )  # fmt: skip
    return pair


def reject(
    pair: InstructionPair, user: User, reason: str, *, seconds: float = 0
) -> InstructionPair:
    """Say that the pair should not be learned from, and why. Raises CurationRefused."""
    reason = " ".join(reason.split())[:300]
    if not reason:
        raise CurationRefused("Say why, in a word: others learn from it.")
    with transaction.atomic():
        pair = _to_judge(pair, user)
        _judge(pair, user, Review.Verdict.REJECT, seconds=seconds, reason=reason,
               state_before=pair.state)  # fmt: skip
        AuditEvent.objects.record(
            user, Action.REJECTED, pair, pair.collection, reason=reason, state=pair.state
        )
    return pair


def _locked(pair: InstructionPair) -> InstructionPair:
    found = InstructionPair.objects.select_for_update().filter(pk=pair.pk).first()
    if found is None:
        raise CurationRefused("This pair was deleted in the meantime.")
    return found


def _to_judge(pair: InstructionPair, user: User) -> InstructionPair:
    pair = _locked(pair)
    if pair.state not in InstructionPair.OPEN:
        raise CurationRefused("This pair was decided in the meantime.")
    if pair.claimed_by_id not in (None, user.pk) and pair.claimed_until > timezone.now():  # type: ignore[operator]
        raise CurationRefused("Somebody else has this pair open. Take the next one.")
    if Review.objects.standing().filter(pair=pair, reviewer=user).exists():
        raise CurationRefused("You have judged this pair already. Another person has to.")
    return pair


def _judge(pair: InstructionPair, user: User, verdict: str, **fields: Any) -> Review:
    review = Review.objects.create(
        pair=pair,
        reviewer=user,
        verdict=verdict,
        content_hash=pair.content_hash,
        round=pair.round,
        **fields,
    )
    pair.claimed_by = pair.claimed_until = None
    _settle(pair)
    pair.save()
    return review


def _settle(pair: InstructionPair) -> None:
    """Set the state by the judgements that stand; who judged last signs for it."""
    standing = list(
        Review.objects.standing()
        .filter(pair=pair)
        .order_by("-created_at")
        .select_related("reviewer")
    )
    approvals = sum(review.verdict == Review.Verdict.APPROVE for review in standing)
    wanted = pair.dataset.reviews_wanted
    decided = outcome(approvals, len(standing) - approvals, wanted)
    pair.is_disputed = decided == Outcome.DISPUTED
    pair.updated_at = timezone.now()
    if decided in (Outcome.OPEN, Outcome.DISPUTED):
        pair.state = State.STALE if pair.stale_reason else State.SUGGESTED
        pair.reviewer = pair.reviewed_at = None
        pair.reject_reason = ""
        return
    pair.state = State(decided.value)
    verdict = Review.Verdict.APPROVE if decided == Outcome.APPROVED else Review.Verdict.REJECT
    last = next(review for review in standing if review.verdict == verdict)
    pair.reviewer, pair.reviewed_at = last.reviewer, last.created_at
    pair.reject_reason = last.reason
    if decided == Outcome.APPROVED:
        pair.stale_reason = ""


def _change(pair: InstructionPair, content: Mapping[str, Any]) -> list[str]:
    """Write new content; gives the names of the fields that differ. Judgements of other text void."""
    cleaned = _clean({**pair.content(), **content})
    changed = [name for name, value in cleaned.items() if getattr(pair, name) != value]
    for name in changed:
        setattr(pair, name, cleaned[name])
    if set(changed) - _LABELS:
        measure(pair, pair.sources.all())
        _void_what_judged_other_text(pair)
    return changed


def _void_what_judged_other_text(pair: InstructionPair) -> None:
    """A judgement stands while the pair says what was judged; after an undo it stands again."""
    taken = pair.reviews.filter(undone_at=None, round=pair.round)
    taken.exclude(content_hash=pair.content_hash).update(is_void=True)
    taken.filter(content_hash=pair.content_hash).update(is_void=False)


def undo(user: User, dataset: Dataset) -> InstructionPair | None:
    """Take back the person's last judgement here; None when there is none to take back.

    An edit made with it is taken back too, and so is the new passage that it accepted.
    """
    with transaction.atomic():
        review = (
            Review.objects.filter(
                reviewer=user,
                undone_at=None,
                created_at__gt=timezone.now() - UNDO_WITHIN,
                round=F("pair__round"),
                pair__in=InstructionPair.objects.visible_to(user).filter(dataset=dataset),
            )
            .order_by("-created_at", "-pk")
            .first()
        )
        if review is None:
            return None
        pair = _locked(review.pair)
        Review.objects.filter(pk=review.pk).update(undone_at=timezone.now())
        if review.was_edited and pair.content_hash == review.content_hash:
            for name in CONTENT_FIELDS:
                setattr(pair, name, review.before[name])
        staleness.restore_sources(pair, review.before.get("sources", []))
        measure(pair, pair.sources.all())
        _void_what_judged_other_text(pair)
        if review.state_before == State.STALE and not pair.stale_reason:
            pair.stale_reason = staleness.reason_of(pair)
        _settle(pair)
        pair.claimed_by, pair.claimed_until = user, timezone.now() + CLAIM
        pair.save()
        AuditEvent.objects.record(
            user, Action.UNDONE, pair, pair.collection, verdict=review.verdict
        )
    return pair


# --- Besides judging -----------------------------------------------------------------------------


def edit(pair: InstructionPair, user: User, content: Mapping[str, Any]) -> InstructionPair:
    """Change what a pair says; one that was decided has to be judged again."""
    with transaction.atomic():
        pair = _locked(pair)
        before = pair.content()
        was_decided = pair.state not in InstructionPair.OPEN
        changed = _change(pair, content)
        if not changed:
            return pair
        if was_decided and set(changed) - _LABELS:
            pair.begin_round()
        if pair.state in InstructionPair.OPEN:
            _settle(pair)
        pair.updated_at = timezone.now()
        pair.save()
        AuditEvent.objects.record(
            user,
            Action.EDITED,
            pair,
            pair.collection,
            before={name: before[name] for name in changed},
            after={name: getattr(pair, name) for name in changed},
        )
    return pair


def reopen(pair: InstructionPair, user: User) -> InstructionPair:
    """Let a decided pair be judged anew."""
    with transaction.atomic():
        pair = _locked(pair)
        if pair.state in InstructionPair.OPEN:
            raise CurationRefused("This pair is open already.")
        state_before = pair.state
        pair.begin_round()
        pair.save()
        AuditEvent.objects.record(user, Action.REOPENED, pair, pair.collection, state=state_before)
    return pair


def tag(pair: InstructionPair, user: User, tags: Iterable[str]) -> InstructionPair:
    """Add tags; those it has stay."""
    with transaction.atomic():
        pair = _locked(pair)
        pair.tags = list(dict.fromkeys([*pair.tags, *tags]))
        pair.updated_at = timezone.now()
        pair.save(update_fields=["tags", "updated_at"])
        AuditEvent.objects.record(user, Action.TAGGED, pair, pair.collection, tags=list(tags))
    return pair


def delete(pair: InstructionPair, user: User) -> None:
    """Delete a pair; the snapshots that hold it keep their copy, and the log names them."""
    with transaction.atomic():
        pair = _locked(pair)
        rows = pair.snapshot_rows.values_list("snapshot__number", flat=True).order_by()
        AuditEvent.objects.record(
            user, Action.DELETED, pair, pair.collection,
            dataset=pair.dataset_id, snapshots=sorted(set(rows)),
        )  # fmt: skip
        pair.delete()
