"""Freeze approved pairs: rendered, split, checked for leaks, hashed, and never changed again."""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from statistics import median
from typing import Any

import numpy as np
from django.db import transaction
from django.db.models import BooleanField, F, Func, Max, Q, QuerySet

from finetune import duplicates, minhash, similar, splitting, staleness
from finetune.models import (
    AuditEvent,
    Dataset,
    DatasetSnapshot,
    InstructionPair,
    PairSource,
    SnapshotRow,
)
from kb.backends import get_backend
from kb.embedders import EmbeddingError
from kb.files import COPY_BYTES, content_storage
from kb.models import Job, User
from kb.models.documents import settle
from kb.models.jobs import LeaseLost
from kb.prompts import NOT_IN_DOCUMENTS, PROMPT_VERSION, Source, Turn, build_messages

logger = logging.getLogger(__name__)
# Of what is written below; a snapshot of another one is reproduced from its kept lines.
FORMAT = "1"
PROMPT_TOKENS = 3000
# A passage as long as this, given as input, is a source like a document.
SOURCE_WORDS = 20
# Two parts that mean as much the same are reported; from duplicates.MEANING on they are not split.
LEAK_MEANING = 0.85
SHOWN_LEAKS = 50
TOKEN_EDGES = (64, 128, 256, 512, 1024, 2048, 4096)
NOTHING = "There is no approved pair to freeze. Approve some first."
BROKEN = "Freezing stopped because of a fault in the program; the log has the details."
# 4 GB: an upload's limit does not bind what the program writes itself.
MOST_BYTES = 2**32


class Forgotten(Exception):
    """A pair turned stale while it was being frozen; what it holds may have to be forgotten."""


class NothingToFreeze(Exception):
    """No approved pair is left. The message is a sentence for the person."""


@dataclass(slots=True)
class Row:
    """A pair on its way into a snapshot.

    `messages`: the prompt and the answer, as a chat has them. `place`: of its vector, where there
    are that many.
    """

    place: int
    pair: InstructionPair
    sources: list[PairSource]
    messages: list[Turn]
    group: str = ""
    part: str = ""
    line: str = ""
    token_count: int = 0

    @property
    def documents(self) -> list[int]:
        return sorted({source.document_key for source in self.sources if not source.is_distractor})


@dataclass(slots=True)
class Frozen:
    """All that a snapshot holds, before it is written down."""

    rows: list[Row]
    excluded: dict[str, int]
    leakage: dict[str, Any] = field(default_factory=dict)
    embedder: str = ""


def start(
    dataset: Dataset,
    user: User | None,
    *,
    seed: int = 0,
    train_share: float = 0.8,
    validation_share: float = 0.1,
) -> DatasetSnapshot:
    """Number a snapshot and queue its freezing. Shares are 0–1; what they leave is the test part."""
    with transaction.atomic():
        Dataset.objects.select_for_update().get(pk=dataset.pk)
        last = dataset.snapshots.aggregate(last=Max("number"))["last"]
        return DatasetSnapshot.objects.create(
            dataset=dataset,
            number=(last or 0) + 1,
            seed=seed,
            train_share=train_share,
            validation_share=validation_share,
            created_by=user,
            job=Job.objects.create(kind=Job.Kind.FREEZE),
        )


def freeze(job: Job) -> None:
    """Freeze the claimed snapshot. An embedding service that is away puts the job back."""
    snapshot = DatasetSnapshot.objects.select_related("dataset__collection", "created_by").get(
        job=job
    )
    try:
        with job.heartbeat():
            frozen = _freeze(snapshot, job)
            incoming = content_storage().receive(
                (f"{row.line}\n".encode() for row in frozen.rows), max_bytes=MOST_BYTES
            )
        with job.publishing():
            stored = settle(incoming)
            _publish(snapshot, frozen, stored.name, stored.sha256)
    except NothingToFreeze as error:
        _fail(job, snapshot, str(error), code="nothing")
    except EmbeddingError as error:
        job.release(error=str(error))
    except Forgotten:
        job.release(error="A pair turned stale meanwhile; it is frozen anew.")
    except LeaseLost:
        logger.info("job %s was taken over by another worker", job.pk)
    except Exception:
        _fail(job, snapshot, BROKEN, code="broken")
        raise


def end_exhausted() -> int:
    """End snapshots whose last allowed worker died; gives their number."""
    State = DatasetSnapshot.State
    dead = DatasetSnapshot.objects.filter(state=State.QUEUED, job__state=Job.State.FAILED)
    return dead.update(state=State.FAILED)


def _freeze(snapshot: DatasetSnapshot, job: Job) -> Frozen:
    job.report("rendering", 0, 0)
    staleness.catch_up(snapshot.dataset)
    rows, excluded = load(snapshot.dataset, snapshot.created_by)
    if not rows:
        raise NothingToFreeze(NOTHING)
    vectors = _vectors([row.pair.pk for row in rows], job)
    job.report("splitting", 0, 0)
    _group(rows, vectors)
    vectors = _widened([row.pair.pk for row in rows], vectors)
    _split(rows, snapshot)
    job.report("counting tokens", 0, len(rows))
    _count_tokens(rows)
    job.report("looking for leaks", 0, 0)
    frozen = Frozen(rows, excluded, embedder=get_backend("EMBEDDER").model_name)
    frozen.leakage = {
        "between": leaks_between(rows, vectors),
        "evaluation": _leaks_elsewhere(snapshot, rows, vectors, job),
        "meaning": LEAK_MEANING,
        "near": minhash.NEAR,
        "compared_by_meaning": _compared(vectors),
    }
    return frozen


def _fail(job: Job, snapshot: DatasetSnapshot, sentence: str, *, code: str) -> None:
    with transaction.atomic():
        if job.fail(sentence, code=code):
            DatasetSnapshot.objects.filter(pk=snapshot.pk).update(
                state=DatasetSnapshot.State.FAILED
            )


# --- What goes in --------------------------------------------------------------------------------


def load(dataset: Dataset, user: User | None) -> tuple[list[Row], dict[str, int]]:
    """Read the approved pairs that can be learned from, by id, and count why others cannot.

    Of those that who freezes may not see it only says that there are some: 1.

    A source whose collection was deleted has no readers, so nobody could be served by what learned
    from it; the same goes for passages that who freezes may not read. A source that nobody compared
    yet with its document as it is now may no longer be what was approved.
    """
    mine = InstructionPair.objects.filter(dataset=dataset)
    approved = mine.approved().order_by("pk").prefetch_related("sources")
    visible = mine.visible_to(user) if user is not None else mine
    seen = set(visible.values_list("pk", flat=True))
    changed = staleness.behind(dataset)
    rows: list[Row] = []
    excluded = Counter[str]()
    for pair in approved.iterator(chunk_size=1_000):
        sources = sorted(pair.sources.all(), key=lambda source: source.marker)
        if any(source.collection_id is None for source in sources):
            excluded["lost_source"] = 1
        elif pair.pk not in seen:
            excluded["hidden_source"] = 1
        elif not pair.output.strip():
            excluded["no_output"] += 1
        elif pair.pk in changed:
            excluded["changed_source"] += 1
        else:
            rows.append(Row(len(rows), pair, sources, render(pair, sources)))
    return rows, dict(excluded)


def render(pair: InstructionPair, sources: Sequence[PairSource]) -> list[Turn]:
    """Word a pair as a chat would: the same prompt, then the answer to learn.

    A pair that has no passages and does not say that nothing was found is a plain conversation:
    under the rules of a chat about documents it would teach to answer without any.
    """
    answer = Turn("assistant", pair.output)
    question = "\n\n".join(filter(str.strip, (pair.instruction, pair.input)))
    if sources or pair.output.strip() == NOT_IN_DOCUMENTS:
        offered = [_source(source) for source in sources]
        turns = [turn for turn in _turns(pair, question) if turn.role != "system"][:-1]
        fence = sha256(f"fence {pair.content_hash}".encode()).hexdigest()[:16]
        prompt = build_messages(question, offered, turns, max_tokens=PROMPT_TOKENS, fence=fence)
        return [*prompt, answer]
    return [*_turns(pair, question), answer]


def _source(source: PairSource) -> Source:
    return Source(
        marker=source.marker,
        title=source.title,
        heading_path=tuple(source.heading_path),
        page=source.page_first,
        text=source.text,
        score=source.score,
        similarity=source.similarity,
    )


# How a chat template takes what tools were told and said.
_SPOKEN_BY: dict[str, Any] = {"assistant": "assistant", "tool_call": "assistant"}


def _turns(pair: InstructionPair, question: str) -> list[Turn]:
    """Give the conversation up to the answer; a turn of role "instruction" says where it is asked."""
    turns = [Turn("system", pair.system)] if pair.system.strip() else []
    asked = False
    for message in pair.messages:
        if message["role"] == "instruction":
            turns.append(Turn("user", question))
            asked = True
        elif message["content"].strip():
            turns.append(Turn(_SPOKEN_BY.get(message["role"], "user"), message["content"]))
    return turns if asked else [*turns, Turn("user", question)]


def line_of(row: Row) -> str:
    """Give a row as it stands in the file: sorted keys, so that the same row is the same bytes."""
    content: dict[str, Any] = {
        "split": row.part,
        "messages": [{"role": turn.role, "content": turn.content} for turn in row.messages],
        "pair": row.pair.pk,
        "content_hash": row.pair.content_hash,
        "documents": row.documents,
    }
    if row.pair.rejected.strip():
        content["rejected"] = row.pair.rejected
    return json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


# --- What stays together -------------------------------------------------------------------------


def _vectors(keys: Sequence[int], job: Job | None) -> similar.Vectors:
    """Embed as many pairs as decide over parts by meaning, the first ones: (at most MOST_VECTORS, D).

    Which these are must not depend on what was embedded before: the same pairs give the same parts.
    """

    def report(done: int, total: int) -> None:
        if job:
            job.report("embedding", done, total)

    return duplicates.vectors_of(keys[: duplicates.MOST_VECTORS], report)


def _widened(keys: Sequence[int], vectors: similar.Vectors) -> similar.Vectors:
    """Add what was embedded before of the pairs behind the first ones: a leak may be among them."""
    more = duplicates.kept_vectors(keys[len(vectors) : duplicates.MOST_COMPARED])
    return np.concatenate((vectors, more))


def _compared(vectors: similar.Vectors) -> int:
    return int(np.any(vectors, axis=1).sum())


def _group(rows: Sequence[Row], vectors: similar.Vectors) -> None:
    """Name the group of each row: what shares a document, an origin, its words or its meaning."""
    groups = similar.Groups(len(rows))
    groups.join_same((place, key) for place, row in enumerate(rows) for key in _keys(row))
    carried = _carried(rows)
    groups.join_same(
        (place, ("named document", name))
        for place, row in enumerate(rows)
        for name in _documents(row, carried)
        if isinstance(name, str)
    )
    fields = [_fields(row.pair) for row in rows]
    pairs = similar.candidates([row.pair.bands for row in rows])
    similar.join_near(groups, pairs, fields.__getitem__)
    for one, other, _cosine in similar.close(vectors, least=duplicates.MEANING):
        groups.join(one, other)
    # By the least content, not by the place: the name does not depend on the order.
    names: dict[int, str] = {}
    for place, row in enumerate(rows):
        root = groups.root(place)
        names[root] = min(names.get(root, row.pair.content_hash), row.pair.content_hash)
    for place, row in enumerate(rows):
        row.group = names[groups.root(place)]


def _keys(row: Row) -> Iterable[tuple[str, Any]]:
    """Give what a row may share with others of its group, besides words and meaning."""
    pair = row.pair
    yield ("content", pair.content_hash)
    yield from (("document", key) for key in row.documents)
    if pair.pair_import_id and pair.row_number:
        yield ("imported row", (pair.pair_import_id, pair.row_number))
    if pair.message_id:
        yield ("answer", pair.message_id)
    words = minhash.tokens(pair.input)
    if len(words) >= SOURCE_WORDS:
        yield ("input", " ".join(words))


def _carried(rows: Iterable[Row]) -> set[str]:
    """Name the documents that imported files tell of; of these only the name is known here."""
    return {name for row in rows for name, _is_distractor in _named(row.pair)}


def _documents(row: Row, carried: set[str], *, distractors: bool = False) -> Iterator[int | str]:
    """Give the documents of a row: by name where an imported file names it, else by id."""
    for source in row.sources:
        if distractors or not source.is_distractor:
            is_named = source.document_name in carried
            yield source.document_name if is_named else source.document_key
    for name, is_distractor in _named(row.pair):
        if distractors or not is_distractor:
            yield name


def _named(pair: InstructionPair) -> Iterator[tuple[str, bool]]:
    """Give the name of each document that an imported row says it is from, and whether it distracts.

    A file can say anything; what makes no sense names nothing.
    """
    said = pair.extra.get("provenance")
    sources = said.get("sources") if isinstance(said, dict) else None
    for source in sources if isinstance(sources, list) else []:
        if isinstance(source, dict) and isinstance(name := source.get("document"), str) and name:
            yield name, source.get("is_distractor") is True


def _fields(pair: InstructionPair) -> minhash.Fields:
    words = minhash.words_of(pair.messages, pair.instruction, pair.input, pair.output)
    return minhash.fields(*words)


def _split(rows: list[Row], snapshot: DatasetSnapshot) -> None:
    """Give each row its part and its line, and put the parts one after the other."""
    train, validation = snapshot.train_share, snapshot.validation_share
    shares = dict(zip(splitting.PARTS, (train, validation, 1 - train - validation), strict=True))
    shares = {part: round(max(share, 0), 6) for part, share in shares.items()}
    groups = {str(row.pair.pk): row.group for row in rows}
    parts = splitting.split(groups, shares, seed=snapshot.seed)
    for row in rows:
        row.part = parts[str(row.pair.pk)]
        row.line = line_of(row)
    rows.sort(key=lambda row: (splitting.PARTS.index(row.part), row.pair.pk))


def _count_tokens(rows: Sequence[Row]) -> None:
    for start in range(0, len(rows), 500):
        batch = rows[start : start + 500]
        texts = ["\n".join(turn.content for turn in row.messages) for row in batch]
        for row, count in zip(batch, get_backend("EMBEDDER").count_tokens(texts), strict=True):
            row.token_count = count


# --- What leaks ----------------------------------------------------------------------------------


def leaks_between(rows: Sequence[Row], vectors: similar.Vectors) -> dict[str, Any]:
    """Look for what stands in two parts: the same words, nearly the same, much the same, a source.

    Gives counts, and the first pairs of each kind: [one, its part, other, its part, similarity].
    """
    carried = _carried(rows)
    fields = [_fields(row.pair) for row in rows]
    found: dict[str, list[list[Any]]] = {"exact": [], "near": [], "meaning": []}
    for one, other in similar.candidates([row.pair.bands for row in rows]).tolist():
        first, second = rows[one], rows[other]
        if first.part == second.part:
            continue
        alike = minhash.similarity(fields[one], fields[other])
        if alike >= minhash.NEAR:
            kind = "exact" if first.pair.content_hash == second.pair.content_hash else "near"
            found[kind].append(_leak(first, second, alike))
    by_place = {row.place: row for row in rows}
    for one, other, cosine in similar.close(vectors, least=LEAK_MEANING):
        if by_place[one].part != by_place[other].part:
            found["meaning"].append(_leak(by_place[one], by_place[other], cosine))
    return {
        **{kind: len(leaks) for kind, leaks in found.items()},
        "documents": _in_two_parts((row.part, _documents(row, carried)) for row in rows),
        "distractors": _in_two_parts(
            (row.part, _documents(row, carried, distractors=True)) for row in rows
        ),
        "shown": {kind: _worst(leaks) for kind, leaks in found.items()},
    }


def _leak(one: Row, other: Row, alike: float) -> list[Any]:
    return [one.pair.pk, one.part, other.pair.pk, other.part, round(alike, 3)]


def _worst(leaks: list[list[Any]]) -> list[list[Any]]:
    return sorted(leaks, key=lambda leak: (-leak[-1], leak))[:SHOWN_LEAKS]


def _in_two_parts(documents: Iterable[tuple[str, Iterable[int | str]]]) -> int:
    """Count the documents that stand in more than one part."""
    parts: dict[int | str, set[str]] = {}
    for part, keys in documents:
        for key in keys:
            parts.setdefault(key, set()).add(part)
    return sum(len(found) > 1 for found in parts.values())


def _leaks_elsewhere(
    snapshot: DatasetSnapshot, rows: Sequence[Row], vectors: similar.Vectors, job: Job | None
) -> list[dict[str, Any]]:
    """Compare with each data set of the other purpose that who freezes may see."""
    user, purpose = snapshot.created_by, Dataset.Purpose
    is_exam = snapshot.dataset.purpose == purpose.EVALUATION
    others = Dataset.objects.filter(purpose=purpose.TRAINING if is_exam else purpose.EVALUATION)
    others = (
        others.visible_to(user)
        if user
        else others.filter(collection=snapshot.dataset.collection_id)
    )
    return [
        {"dataset": other.pk, **_leaks_into(_pairs_of(other, user), rows, vectors, job)}
        for other in others.exclude(pk=snapshot.dataset_id).order_by("pk")
    ]


def _pairs_of(dataset: Dataset, user: User | None) -> list[InstructionPair]:
    pairs = InstructionPair.objects.visible_to(user) if user else InstructionPair.objects.all()
    pairs = pairs.filter(dataset=dataset).exclude(state=InstructionPair.State.REJECTED)
    return list(pairs.order_by("pk"))


def _leaks_into(
    others: Sequence[InstructionPair],
    rows: Sequence[Row],
    vectors: similar.Vectors,
    job: Job | None,
) -> dict[str, Any]:
    """Find what of a snapshot stands in another set: [pair, its part, the other pair, similarity]."""
    ordered = sorted(rows, key=lambda row: row.place)
    keys = [pair.pk for pair in others]
    theirs = _widened(keys, _vectors(keys, job))
    first = len(rows)
    ours = cache(lambda place: _fields(ordered[place].pair))
    found: dict[str, list[list[Any]]] = {"exact": [], "near": [], "meaning": []}
    bands = [*(row.pair.bands for row in ordered), *(pair.bands for pair in others)]
    for one, other in similar.candidates(bands).tolist():
        if not one < first <= other:
            continue
        row, pair = ordered[one], others[other - first]
        alike = minhash.similarity(ours(one), _fields(pair))
        if alike >= minhash.NEAR:
            kind = "exact" if row.pair.content_hash == pair.content_hash else "near"
            found[kind].append([row.pair.pk, row.part, pair.pk, round(alike, 3)])
    for one, other, cosine in similar.between(vectors, theirs, least=LEAK_MEANING):
        row, pair = ordered[one], others[other]
        found["meaning"].append([row.pair.pk, row.part, pair.pk, round(cosine, 3)])
    return {
        "pairs": len(others),
        "compared_by_meaning": _compared(theirs),
        **{kind: len(leaks) for kind, leaks in found.items()},
        "shown": {kind: _worst(leaks) for kind, leaks in found.items()},
    }


# --- Writing it down -----------------------------------------------------------------------------


def _publish(snapshot: DatasetSnapshot, frozen: Frozen, name: str, file_hash: str) -> None:
    """Write rows, audience and report; from then on the database refuses changes.

    Raises Forgotten. An erasure of the data set waits for this, or this for the erasure.
    """
    rows, dataset = frozen.rows, snapshot.dataset
    Dataset.objects.select_for_update().get(pk=dataset.pk)
    keys = [row.pair.pk for row in rows]
    if InstructionPair.objects.filter(pk__in=keys, state=InstructionPair.State.STALE).exists():
        raise Forgotten
    SnapshotRow.objects.bulk_create(
        (
            SnapshotRow(
                snapshot=snapshot,
                position=position,
                split=row.part,
                pair=row.pair,
                content_hash=row.pair.content_hash,
                group=row.group,
                document_keys=row.documents,
                line=row.line,
                token_count=row.token_count,
            )
            for position, row in enumerate(rows, start=1)
        ),
        batch_size=1_000,
    )
    sources = (source for row in rows for source in row.sources)
    # `load` took no pair whose source has lost its collection.
    collections = {dataset.collection_id, *(s.collection_id for s in sources if s.collection_id)}
    snapshot.audience.add(*collections)
    snapshot.state = DatasetSnapshot.State.READY
    snapshot.prompt_version = PROMPT_VERSION
    snapshot.counts = {part: sum(row.part == part for row in rows) for part in splitting.PARTS}
    snapshot.statistics = _statistics(frozen)
    snapshot.leakage = frozen.leakage
    snapshot.file.name, snapshot.sha256 = name, file_hash
    snapshot.manifest = _manifest(snapshot, frozen, sorted(collections))
    snapshot.save()
    AuditEvent.objects.record(
        snapshot.created_by,
        AuditEvent.Action.FROZEN,
        snapshot,
        dataset.collection,
        number=snapshot.number,
        counts=snapshot.counts,
        sha256=file_hash,
    )


def _statistics(frozen: Frozen) -> dict[str, Any]:
    rows, carried = frozen.rows, _carried(frozen.rows)
    return {
        "excluded": frozen.excluded,
        "with_sources": sum(bool(row.sources) for row in rows),
        "preferences": sum(row.pair.is_preference for row in rows),
        "groups": len({row.group for row in rows}),
        "documents": len({key for row in rows for key in _documents(row, carried)}),
        "languages": dict(Counter(row.pair.language for row in rows).most_common()),
        "origins": dict(Counter(row.pair.origin for row in rows).most_common()),
        "tokenizer": frozen.embedder,
        "token_edges": list(TOKEN_EDGES),
        "tokens": {
            part: _token_statistics([row.token_count for row in rows if row.part == part])
            for part in splitting.PARTS
        },
    }


def _token_statistics(counts: Sequence[int]) -> dict[str, Any]:
    return {
        "total": sum(counts),
        "median": int(median(counts)) if counts else 0,
        "longest": max(counts, default=0),
        "histogram": splitting.histogram(counts, TOKEN_EDGES),
    }


def _manifest(
    snapshot: DatasetSnapshot, frozen: Frozen, collections: Sequence[int]
) -> dict[str, Any]:
    """Say all that is needed to make the very same file again."""
    distractors = {
        source.document_key for row in frozen.rows for source in row.sources if source.is_distractor
    }
    return {
        "format": FORMAT,
        "prompt_version": PROMPT_VERSION,
        "prompt_tokens": PROMPT_TOKENS,
        "dataset": snapshot.dataset_id,
        "seed": snapshot.seed,
        "train_share": snapshot.train_share,
        "validation_share": snapshot.validation_share,
        "near": minhash.NEAR,
        "meaning": duplicates.MEANING,
        "embedder": frozen.embedder,
        "audience": list(collections),
        "distractor_documents": sorted(distractors),
        "sha256": snapshot.sha256,
        "pairs": [[row.pair.pk, row.pair.content_hash, row.part] for row in frozen.rows],
    }


# --- Afterwards ----------------------------------------------------------------------------------


def pieces(snapshot: DatasetSnapshot) -> Iterator[bytes]:
    """Give the frozen file bit by bit."""
    with snapshot.file.open("rb") as file:
        while piece := file.read(COPY_BYTES):
            yield piece


@dataclass(frozen=True, slots=True)
class Reproduction:
    """A snapshot made again. `kept`: pairs that changed since, whose lines the snapshot kept."""

    sha256: str
    is_same: bool
    rendered: int
    kept: list[int]


def reproduce(snapshot: DatasetSnapshot) -> Reproduction:
    """Make the file of a snapshot again from its manifest, and compare its hash.

    Each pair is rendered anew. Where that gives other words, because the pair, its passages or the
    program changed since, or the pair is gone, the line that the snapshot kept stands in.
    """
    listed = snapshot.manifest["pairs"]
    digest, kept = sha256(), []
    for start in range(0, len(listed), 1_000):
        batch = listed[start : start + 1_000]
        # The manifest lists the pairs as they stand in the file.
        there = snapshot.rows.filter(position__gt=start, position__lte=start + len(batch))
        lines = dict(there.values_list("pair_id", "line"))
        pairs = InstructionPair.objects.prefetch_related("sources").in_bulk(
            [key for key, *_ in batch]
        )
        for key, content_hash, part in batch:
            line = _line_again(pairs.get(key), content_hash, part)
            if line != lines[key]:
                line = lines[key]
                kept.append(key)
            digest.update(f"{line}\n".encode())
    made = digest.hexdigest()
    return Reproduction(made, made == snapshot.sha256, len(listed) - len(kept), kept)


def _line_again(pair: InstructionPair | None, content_hash: str, part: str) -> str:
    if pair is None or pair.content_hash != content_hash:
        return ""
    sources = sorted(pair.sources.all(), key=lambda source: source.marker)
    return line_of(Row(0, pair, sources, render(pair, sources), part=part))


@dataclass(frozen=True, slots=True)
class Difference:
    """What another snapshot has more, less, with other words, or in another part: ids of pairs."""

    added: list[int]
    removed: list[int]
    changed: list[int]
    moved: list[int]


def compare(one: DatasetSnapshot, other: DatasetSnapshot) -> Difference:
    """Say how `other` differs from `one`."""
    before, after = (
        {pair: (content, part) for pair, content, part in snapshot.manifest.get("pairs", [])}
        for snapshot in (one, other)
    )
    both = sorted(before.keys() & after.keys())
    return Difference(
        added=sorted(after.keys() - before.keys()),
        removed=sorted(before.keys() - after.keys()),
        changed=[pair for pair in both if before[pair][0] != after[pair][0]],
        moved=[pair for pair in both if before[pair][1] != after[pair][1]],
    )


def using_document(*documents: int) -> QuerySet[DatasetSnapshot]:
    """Give the snapshots that hold words of any of the documents, distractors too.

    Also once they are deleted.
    """
    keys = [int(document) for document in documents]
    holding = SnapshotRow.objects.filter(document_keys__overlap=keys).values("snapshot")
    distracting = Func(
        F("manifest__distractor_documents"),
        template="EXISTS (SELECT FROM jsonb_array_elements(%(expressions)s) AS held"
        f" WHERE held::bigint = ANY('{{{','.join(map(str, keys))}}}'::bigint[]))",
        output_field=BooleanField(),
    )
    return DatasetSnapshot.objects.filter(Q(pk__in=holding) | Q(distracting))
