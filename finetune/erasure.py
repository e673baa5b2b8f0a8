"""What was learned from a document or a person, and how that is undone.

A model cannot forget a row. So the pairs turn stale, which keeps them out of the next snapshot; the
adapters that saw them are marked, which closes their gate; a run on a new snapshot replaces them;
and their words go from evaluations and the arena. Snapshots are frozen: they are named, and deleted
with their data set.
"""

from dataclasses import dataclass

from django.db import transaction
from django.db.models import Q, QuerySet

from finetune import activation, evaluation, snapshots, staleness
from finetune.models import (
    Adapter,
    AuditEvent,
    Dataset,
    DatasetSnapshot,
    InstructionPair,
    PairSource,
    SnapshotRow,
)
from kb.models import Collection, Document, User

State = InstructionPair.State


@dataclass(frozen=True, slots=True)
class Subject:
    """A document, by the id that outlives it, or a person. `name`: as people know it."""

    kind: str
    key: int
    name: str


@dataclass(frozen=True, slots=True)
class Traces:
    """What learned from a subject, as far as the asking person owns it.

    `rows`: of the snapshots. `speaking`: names of the adapters that may answer somebody now. `datasets`: to train again.
    """

    subject: Subject
    pairs: QuerySet[InstructionPair]
    rows: QuerySet[SnapshotRow]
    snapshots: QuerySet[DatasetSnapshot]
    adapters: QuerySet[Adapter]
    speaking: list[str]
    datasets: QuerySet[Dataset]

    @property
    def is_empty(self) -> bool:
        return not (self.pairs.exists() or self.snapshots.exists())


def find_documents(user: User, text: str) -> list[Subject]:
    """Find documents of the person's collections by id or name, also deleted ones.

    Several may bear one name; the newest comes first.
    """
    owned = Collection.objects.owned_by(user)
    key = int(text) if text.isdecimal() and len(text) < 19 else 0
    standing = Document.objects.filter(Q(pk=key) | Q(name=text), collection__in=owned)
    sources = PairSource.objects.filter(
        Q(document_key=key) | Q(document_name=text), pair__collection__in=owned
    )
    found = dict(sources.order_by("pk").values_list("document_key", "document_name"))
    found |= dict(standing.values_list("pk", "name"))
    return [Subject("document", pk, name) for pk, name in sorted(found.items(), reverse=True)]


def find_people(user: User, username: str) -> list[Subject]:
    """Find a person who wrote or asked what the person's pairs were made of."""
    person = User.objects.filter(username=username).first()
    if person is None or not (user.is_superuser or _pairs_of_person(user, person.pk).exists()):
        return []
    return [Subject("person", person.pk, person.username)]


def trace(subject: Subject, user: User) -> Traces:
    """Find what learned from a subject in the collections that the person owns."""
    owned = Collection.objects.owned_by(user)
    if subject.kind == "document":
        pairs = _owned_pairs(user).filter(
            pk__in=PairSource.objects.filter(document_key=subject.key).values("pair")
        )
        frozen = snapshots.using_document(subject.key)
        learned = Q(document_keys__contains=[subject.key])
        beside = frozen.filter(manifest__distractor_documents__contains=subject.key)
    else:
        pairs = _pairs_of_person(user, subject.key)
        learned = Q(pair__in=pairs)
        beside = DatasetSnapshot.objects.none()
        frozen = DatasetSnapshot.objects.filter(
            pk__in=SnapshotRow.objects.filter(learned).values("snapshot")
        )
    frozen = frozen.filter(dataset__collection__in=owned)
    rows = SnapshotRow.objects.filter(learned, snapshot__in=frozen)
    # The test part is asked, not learned.
    taught = rows.exclude(split=SnapshotRow.Split.TEST)
    adapters = Adapter.objects.filter(run__snapshot__in=frozen).filter(
        Q(run__snapshot__in=taught.values("snapshot")) | Q(run__snapshot__in=beside)
    )
    speaking = activation.speaking_names()
    return Traces(
        subject,
        pairs.order_by("pk"),
        rows,
        frozen.select_related("dataset").order_by("dataset", "number"),
        adapters.select_related("run__snapshot__dataset__collection").order_by("pk"),
        sorted(set(adapters.values_list("name", flat=True)) & speaking),
        Dataset.objects.filter(
            Q(pk__in=pairs.values("dataset")) | Q(snapshots__in=frozen)
        ).distinct(),
    )


def _owned_pairs(user: User) -> QuerySet[InstructionPair]:
    return InstructionPair.objects.visible_to(user).filter(
        collection__in=Collection.objects.owned_by(user)
    )


def _pairs_of_person(user: User, person: int) -> QuerySet[InstructionPair]:
    """Pairs that the person typed, or that came from an answer in a conversation of theirs."""
    return _owned_pairs(user).filter(Q(author=person) | Q(message__conversation__user=person))


@dataclass(frozen=True, slots=True)
class Erased:
    """How many pairs turned stale, and which adapters were marked."""

    pairs: int
    adapters: list[str]


def erase(subject: Subject, user: User, *, reason: str) -> Erased:
    """Turn the pairs stale and mark the adapters, in one transaction. May be repeated."""
    with transaction.atomic():
        found = trace(subject, user)
        sentence = _sentence(subject)
        keys = list(found.pairs.values_list("pk", flat=True))
        stale = staleness.mark_stale(dict.fromkeys(keys, sentence))
        # What nobody approved yet must not be approved without this being seen.
        stale += InstructionPair.objects.filter(pk__in=keys, state=State.SUGGESTED).update(
            state=State.STALE, stale_reason=sentence
        )
        # Also of pairs that were deleted since.
        evaluation.forget({*keys, *found.rows.values_list("pair_id", flat=True)})
        note = f"It learned from {_named(subject)}, which was erased. Train it again."
        marked = [adapter for adapter in found.adapters if note not in adapter.erasure_note]
        for adapter in marked:
            adapter.erasure_note = f"{adapter.erasure_note} {note}".strip()
            adapter.save(update_fields=["erasure_note"])
        for dataset in found.datasets:
            AuditEvent.objects.record(
                user, AuditEvent.Action.ERASED, dataset, dataset.collection,
                erased=[subject.kind, subject.key], pairs=len(keys), reason=reason,
                adapters=[adapter.name for adapter in marked],
            )  # fmt: skip
    return Erased(stale, [adapter.name for adapter in marked])


def _named(subject: Subject) -> str:
    return f"“{subject.name}”" if subject.kind == "document" else f"what {subject.name} wrote"


def _sentence(subject: Subject) -> str:
    if subject.kind == "document":
        return f"“{subject.name}” must be forgotten."[:300]
    return f"What {subject.name} wrote must be forgotten."[:300]
