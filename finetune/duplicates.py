"""Duplicates: find the pairs that say the same, and decide about them at once.

Exact, by the hash of what they say; near, by their words; of one meaning, by their embeddings. In
a data set and between it and every other one that the person who asked may see.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from finetune import minhash, similar
from finetune.models import (
    AuditEvent,
    Cleaning,
    Dataset,
    DuplicateCluster,
    DuplicateMember,
    InstructionPair,
    PairVector,
)
from kb.backends import get_backend
from kb.embedders import EmbeddingError
from kb.models import Job, User

Kind = DuplicateCluster.Kind
Decision = DuplicateCluster.Decision
State = InstructionPair.State
Report = Callable[[int, int], None]
# By MiniLM, 700 pairs of two public sets: of five that words do not find, four mean the same above
# 0.9; from 0.9 down to 0.85 ten, hardly any of which do.
MEANING = 0.9
# A search embeds as many anew, which takes minutes on two cores; the next one embeds others.
MOST_VECTORS = 5_000
# As many are compared by meaning at all: 20,000 by 20,000 products take half a minute.
MOST_COMPARED = 20_000
EMBED_BATCH = 64
# Characters that certainly fill the embedder's window; more would only be counted and cut.
_EMBEDDED_CHARACTERS = 2_000
BROKEN = (
    "The search for duplicates stopped because of a fault in the program; the log has the details."
)


class DecisionRefused(Exception):
    """A decision that cannot be taken now; the message is a sentence for the person."""


@dataclass(frozen=True, slots=True)
class Item:
    """What comparing needs of a pair. `rank`: the least is the one to keep.

    `is_seen`: who started the search may see it, so that its counts tell of it.
    """

    pk: int
    is_seen: bool
    dataset: int
    content_hash: str
    bands: Sequence[int]
    rank: tuple[int, ...]

    @property
    def is_exam(self) -> bool:
        return not self.rank[0]


@dataclass(frozen=True, slots=True)
class Found:
    """A cluster before it is a row; the first of `items` is the one to keep."""

    kind: str
    items: Sequence[Item]
    similarities: Sequence[float]

    @property
    def key(self) -> str:
        members = sorted(f"{item.pk}:{item.content_hash}" for item in self.items)
        return sha256("\n".join(members).encode()).hexdigest()


def start(dataset: Dataset, user: User | None) -> Cleaning:
    """Queue a search; one that waits or runs already is given back instead."""
    with transaction.atomic():
        Dataset.objects.select_for_update().get(pk=dataset.pk)
        running = dataset.cleanings.filter(job__state__in=[Job.State.WAITING, Job.State.RUNNING])
        if known := running.first():
            return known
        job = Job.objects.create(kind=Job.Kind.CLEAN)
        return Cleaning.objects.create(dataset=dataset, job=job, started_by=user)


def clean(job: Job) -> None:
    """Find the duplicates of a claimed search and write them down as clusters.

    An embedding service that is away puts the job back. Clusters that were decided stay; open ones
    that are none any more go.
    """
    cleaning = Cleaning.objects.select_related("dataset", "started_by").get(job=job)
    with job.settled(broken=BROKEN, away=EmbeddingError):
        with job.heartbeat():
            items = load(cleaning.dataset, cleaning.started_by)
            found, counts = search(items, cleaning.dataset.pk, job)
        with job.publishing():
            _write(cleaning, found)
            cleaning.counts = counts
            cleaning.save(update_fields=["counts"])


# --- Finding -------------------------------------------------------------------------------------


def load(dataset: Dataset, user: User | None) -> list[Item]:
    """Read what is to be compared: the data set's pairs first, then the others the user may see."""
    mine = InstructionPair.objects.filter(dataset=dataset)
    others = InstructionPair.objects.none()
    hidden: set[int] = set()
    if user is not None:
        visible = InstructionPair.objects.visible_to(user)
        others = visible.exclude(dataset=dataset)
        hidden = set(mine.exclude(pk__in=visible).values_list("pk", flat=True))
    return [
        _item(row, is_seen=row[0] not in hidden)
        for pairs in (mine, others)
        for row in pairs.exclude(state=State.REJECTED).order_by("pk").values_list(*_COLUMNS)
    ]


_COLUMNS = (
    "pk", "dataset_id", "content_hash", "bands", "state", "support", "flags", "output_words",
    "dataset__purpose",
)  # fmt: skip


def _item(row: tuple[Any, ...], *, is_seen: bool) -> Item:
    pk, dataset, content_hash, bands, state, support, flags, words, purpose = row
    # Evaluation questions stay as they are; then what a person approved; then what has sources,
    # fewer flags and more words; then what was there first.
    rank = (
        purpose != Dataset.Purpose.EVALUATION, state != State.APPROVED, support is None,
        len(flags), -words, pk,
    )  # fmt: skip
    return Item(pk, is_seen, dataset, content_hash, bands, rank)


def search(
    items: Sequence[Item], dataset: int, job: Job | None = None
) -> tuple[list[Found], dict[str, int]]:
    """Find the clusters that have a pair of the data set.

    Counts, of what who started it may see, what was compared and found.
    """

    def report(stage: str) -> Report:
        return lambda done, total: job.report(stage, done, total) if job else None

    same, single = exact(items)
    alike, single = near(single, report("comparing words"))
    meaning, left_out = _meaning(single, dataset, report("comparing meaning"))
    found = [
        cluster
        for cluster in (*same, *alike, *meaning)
        if any(item.dataset == dataset for item in cluster.items)
    ]
    kinds = Counter(c.kind for c in found if all(item.is_seen for item in c.items))
    seen = [item for item in items if item.is_seen]
    counts = {kind: kinds[kind] for kind in Kind.values}
    counts |= {
        "pairs": sum(item.dataset == dataset for item in seen),
        "compared": len(seen),
        "meaning_compared": len(seen) - sum(item.is_seen for item in left_out),
        "meaning_left_out": sum(item.is_seen for item in left_out),
    }
    return found, counts


def exact(items: Sequence[Item]) -> tuple[list[Found], list[Item]]:
    """Group pairs that say the very same; gives the best of each group and the lone ones too."""
    by_hash: dict[str, list[Item]] = {}
    for item in items:
        by_hash.setdefault(item.content_hash, []).append(item)
    groups = [sorted(group, key=lambda item: item.rank) for group in by_hash.values()]
    found = [Found(Kind.EXACT, group, [1.0] * len(group)) for group in groups if len(group) > 1]
    return found, [group[0] for group in groups]


def near(
    items: Sequence[Item], report: Report = lambda done, total: None
) -> tuple[list[Found], list[Item]]:
    """Group pairs whose words are nearly the same; gives the best of each and the lone ones too."""
    pairs = similar.candidates([item.bands for item in items])
    fields = FieldsOf([item.pk for item in items], np.unique(pairs))
    groups = similar.Groups(len(items))
    similar.join_near(groups, pairs, fields, report=report)
    found, doubled = [], set()
    for members in groups.several():
        members.sort(key=lambda member: items[member].rank)
        first = fields(members[0])
        found.append(
            Found(
                Kind.NEAR,
                [items[member] for member in members],
                [minhash.overlap(first, fields(member)) for member in members],
            )
        )
        doubled.update(members[1:])
    return found, [item for place, item in enumerate(items) if place not in doubled]


class FieldsOf:
    """The shingles of pairs by their place in a list, read a thousand at a time when asked for.

    Holds them all: 55,000 pairs of a hundred words take about 100 MB.
    """

    def __init__(self, keys: Sequence[int], wanted: Iterable[int]) -> None:
        self._keys = keys
        self._wanted = sorted(wanted)
        self._number = {place: number for number, place in enumerate(self._wanted)}
        self._known: dict[int, minhash.Fields] = {}

    def __call__(self, place: int) -> minhash.Fields:
        if place not in self._known:
            first = self._number[place] // 1_000 * 1_000
            self._read(self._wanted[first : first + 1_000])
        return self._known[place]

    def _read(self, places: Sequence[int]) -> None:
        by_key = {self._keys[place]: place for place in places}
        rows = InstructionPair.objects.filter(pk__in=by_key).values_list(
            "pk", "messages", "instruction", "input", "output"
        )
        # A pair that was deleted meanwhile is like nothing else.
        self._known.update((by_key[pk], minhash.fields([str(pk)], [], [])) for pk in by_key)
        for pk, *content in rows:
            self._known[by_key[pk]] = minhash.fields(*minhash.words_of(*content))


def _meaning(
    items: Sequence[Item], dataset: int, report: Report
) -> tuple[list[Found], Sequence[Item]]:
    """Group pairs around the best of each meaning; gives those left out, too."""
    compared, left_out = _choose(items, dataset)
    mine = sum(item.dataset == dataset for item in compared)
    if mine == 0 or len(compared) < 2:
        return [], left_out
    vectors = vectors_of([item.pk for item in compared], report)
    close: dict[int, dict[int, float]] = {}
    # The data set's own stand first: only what is close to one of them is asked for.
    for one, other, cosine in similar.close(vectors, least=MEANING, rows=mine):
        close.setdefault(one, {})[other] = close.setdefault(other, {})[one] = cosine
    found, taken = [], set[int]()
    for center in sorted(close, key=lambda place: compared[place].rank):
        if center in taken:
            continue
        around = {place: c for place, c in close[center].items() if place not in taken}
        if around:
            taken.update(around, [center])
            places = sorted(around, key=lambda place: compared[place].rank)
            found.append(
                Found(
                    Kind.MEANING,
                    [compared[place] for place in (center, *places)],
                    [1.0, *(min(around[place], 1.0) for place in places)],
                )
            )
    return found, left_out


def _choose(items: Sequence[Item], dataset: int) -> tuple[list[Item], list[Item]]:
    """Choose what is compared by meaning, the data set's own first; gives what is left out, too.

    What was embedded before, and MOST_VECTORS more. Half of the places go first to what evaluations
    of other sets ask, so that a large set is held against them too.
    """
    own = [item for item in items if item.dataset == dataset]
    exams = [item for item in items if item.dataset != dataset and item.is_exam]
    others = [item for item in items if item.dataset != dataset and not item.is_exam]
    half = MOST_VECTORS // 2
    known = _embedded({item.dataset for item in items})
    chosen: dict[int, Item] = {}
    fresh = 0
    for item in (*exams[:half], *own, *exams[half:], *others):
        if len(chosen) == MOST_COMPARED:
            break
        if item.pk not in known:
            if fresh == MOST_VECTORS:
                continue
            fresh += 1
        chosen[item.pk] = item
    ordered = sorted(chosen.values(), key=lambda item: item.dataset != dataset)
    return ordered, [item for item in items if item.pk not in chosen]


def _embedded(datasets: Iterable[int]) -> set[int]:
    """Name the pairs of data sets whose content has its embedding."""
    kept = PairVector.objects.filter(
        pair__dataset__in=datasets,
        model_name=get_backend("EMBEDDER").model_name,
        content_hash=F("pair__content_hash"),
    )
    return set(kept.values_list("pk", flat=True))


def vectors_of(keys: Sequence[int], report: Report = lambda done, total: None) -> similar.Vectors:
    """Give the embeddings of pairs in their order, (N, D); computes and keeps what is missing.

    Raises EmbeddingError; what was computed before is kept.
    """
    embedder = get_backend("EMBEDDER")
    known = _known_vectors(keys, embedder.model_name)
    missing = [key for key in keys if key not in known]
    for start in range(0, len(missing), EMBED_BATCH):
        report(start, len(missing))
        batch = InstructionPair.objects.in_bulk(missing[start : start + EMBED_BATCH])
        texts = _fitting(
            [f"{p.instruction}\n{p.input}\n{p.output}" for p in batch.values()], embedder
        )
        computed = embedder.embed_passages(texts) if texts else []
        PairVector.objects.bulk_create(
            [
                PairVector(
                    pair=pair,
                    content_hash=pair.content_hash,
                    model_name=embedder.model_name,
                    vector=vector,
                )
                for pair, vector in zip(batch.values(), computed, strict=True)
            ],
            update_conflicts=True,
            unique_fields=["pair"],
            update_fields=["content_hash", "model_name", "vector"],
        )
        known.update(zip(batch, computed, strict=True))
    return _in_order(keys, known)


def kept_vectors(keys: Sequence[int]) -> similar.Vectors:
    """Give the embeddings of pairs in their order, (N, D), 0 where none is kept; computes none."""
    return _in_order(keys, _known_vectors(keys, get_backend("EMBEDDER").model_name))


def _in_order(keys: Sequence[int], known: dict[int, Any]) -> similar.Vectors:
    # One without a vector, or that was deleted meanwhile, is like nothing.
    dimensions = get_backend("EMBEDDER").dimensions
    nothing = np.zeros(dimensions, dtype=np.float32)
    vectors = [known.get(key, nothing) for key in keys]
    return np.array(vectors, dtype=np.float32).reshape(len(keys), dimensions)


def _known_vectors(keys: Sequence[int], model_name: str) -> dict[int, Any]:
    rows = PairVector.objects.filter(
        pair__in=keys, model_name=model_name, content_hash=F("pair__content_hash")
    )
    return {pk: np.asarray(vector, np.float32) for pk, vector in rows.values_list("pk", "vector")}


def _fitting(texts: Sequence[str], embedder: Any) -> list[str]:
    """Cut each text to what the embedder reads; the beginning tells the meaning."""
    cut = [text[:_EMBEDDED_CHARACTERS] for text in texts]
    while True:
        counts = embedder.count_tokens(cut)
        if all(count <= embedder.max_tokens for count in counts):
            return cut
        cut = [
            text[: int(len(text) * 0.9 * embedder.max_tokens / count)]
            if count > embedder.max_tokens
            else text
            for text, count in zip(cut, counts, strict=True)
        ]


# --- Writing down --------------------------------------------------------------------------------


def _write(cleaning: Cleaning, found: Iterable[Found]) -> None:
    """Write new clusters, and delete open ones that are none any more. Needs a transaction."""
    dataset = cleaning.dataset
    by_key = {(cluster.kind, cluster.key): cluster for cluster in found}
    known = {(c.kind, c.key): c for c in DuplicateCluster.objects.filter(dataset=dataset)}
    gone = [c.pk for key, c in known.items() if key not in by_key and c.decision == Decision.OPEN]
    DuplicateCluster.objects.filter(pk__in=gone).delete()
    new = [cluster for key, cluster in by_key.items() if key not in known]
    pairs = {item.pk for cluster in new for item in cluster.items}
    # Pairs that were deleted meanwhile are left out, and a cluster of one with them.
    there = dict(InstructionPair.objects.filter(pk__in=pairs).values_list("pk", "dataset__purpose"))
    new = [c for c in new if all(item.pk in there for item in c.items)]
    rows = DuplicateCluster.objects.bulk_create(
        DuplicateCluster(
            dataset=dataset,
            kind=cluster.kind,
            key=cluster.key,
            size=len(cluster.items),
            crosses=any(item.dataset != dataset.pk for item in cluster.items),
            touches_evaluation=len({there[i.pk] for i in cluster.items}) > 1,
        )
        for cluster in new
    )
    DuplicateMember.objects.bulk_create(
        (
            DuplicateMember(cluster=row, pair_id=item.pk, position=position, similarity=alike)
            for row, cluster in zip(rows, new, strict=True)
            for position, (item, alike) in enumerate(
                zip(cluster.items, cluster.similarities, strict=True)
            )
        ),
        batch_size=5_000,
    )


# --- Deciding ------------------------------------------------------------------------------------


def keep_one(cluster: DuplicateCluster, user: User, pair: int | None = None) -> int:
    """Reject all pairs of a cluster but one, by default its first; gives how many went.

    Pairs of another data set that is for evaluation stay. Raises DecisionRefused.
    """
    with transaction.atomic():
        cluster, members = _to_decide(cluster, user)
        kept = next((m for m in members if m.pair_id == (pair or members[0].pair_id)), None)
        if kept is None:
            raise DecisionRefused("That pair is not one of these.")
        rejected = [
            member.pair
            for member in members
            if member != kept and not _is_foreign_evaluation(member.pair, cluster)
        ]
        for other in rejected:
            _reject(other, kept.pair_id, user)
        _decided(
            cluster, user, Decision.KEPT_ONE, kept=kept.pair_id, rejected=[p.pk for p in rejected]
        )
    return len(rejected)


def keep_all(cluster: DuplicateCluster, user: User) -> None:
    """Say that the pairs of a cluster may stand side by side. Raises DecisionRefused."""
    with transaction.atomic():
        cluster, _members = _to_decide(cluster, user)
        _decided(cluster, user, Decision.KEPT_ALL)


def ask_again(cluster: DuplicateCluster, user: User) -> None:
    """Take a decision back: what it rejected waits for review again. Raises DecisionRefused."""
    with transaction.atomic():
        cluster = _locked(cluster, user)
        if cluster.decision == Decision.OPEN:
            raise DecisionRefused("This was taken back already.")
        pairs = InstructionPair.objects.select_for_update().filter(
            duplicate_members__cluster=cluster,
            state=State.REJECTED,
            reject_reason__startswith=_REASON,
        )
        for pair in pairs:
            pair.begin_round()
            pair.save()
            AuditEvent.objects.record(
                user, Action.REOPENED, pair, pair.collection, state="rejected"
            )
        cluster.decision, cluster.decided_by, cluster.decided_at = Decision.OPEN, None, None
        cluster.save()
        AuditEvent.objects.record(
            user, Action.DUPLICATES_DECIDED, cluster, cluster.dataset.collection, decision="open"
        )


Action = AuditEvent.Action
_REASON = "Duplicate of pair "


def _locked(cluster: DuplicateCluster, user: User) -> DuplicateCluster:
    visible = DuplicateCluster.objects.visible_to(user).filter(pk=cluster.pk)
    found = visible.select_for_update(of=("self",)).select_related("dataset__collection").first()
    if found is None:
        raise DecisionRefused("These pairs are not there any more.")
    return found


def _to_decide(
    cluster: DuplicateCluster, user: User
) -> tuple[DuplicateCluster, list[DuplicateMember]]:
    cluster = _locked(cluster, user)
    if cluster.decision != Decision.OPEN:
        raise DecisionRefused("Somebody has decided this in the meantime.")
    members = (
        cluster.members.select_for_update(of=("pair",))
        .select_related("pair__dataset", "pair__collection")
        .order_by("position")
    )
    if not (found := list(members)):
        raise DecisionRefused("These pairs are not there any more.")
    return cluster, found


def _is_foreign_evaluation(pair: InstructionPair, cluster: DuplicateCluster) -> bool:
    is_foreign = pair.dataset_id != cluster.dataset_id
    return is_foreign and pair.dataset.purpose == Dataset.Purpose.EVALUATION


def _reject(pair: InstructionPair, kept: int, user: User) -> None:
    """Set a pair aside. No Review: reviewers judge what a pair says, and their agreement counts."""
    if pair.state == State.REJECTED:
        return
    before = pair.state
    pair.state, pair.reject_reason = State.REJECTED, f"{_REASON}{kept}"
    pair.reviewer, pair.reviewed_at = user, timezone.now()
    pair.claimed_by = pair.claimed_until = None
    pair.updated_at = timezone.now()
    pair.save()
    AuditEvent.objects.record(
        user, Action.REJECTED, pair, pair.collection, reason=pair.reject_reason, before=before
    )


def _decided(cluster: DuplicateCluster, user: User, decision: str, **detail: Any) -> None:
    cluster.decision, cluster.decided_by, cluster.decided_at = decision, user, timezone.now()
    cluster.save()
    AuditEvent.objects.record(
        user,
        Action.DUPLICATES_DECIDED,
        cluster,
        cluster.dataset.collection,
        decision=decision,
        kind=cluster.kind,
        **detail,
    )
