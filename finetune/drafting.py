"""Draft pairs from passages: choose passages, ask for a question and its answer, check, write.

Every draft is a suggestion: a person reviews it before it counts.
"""

import asyncio
import logging
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from django.conf import settings
from django.db import transaction

from finetune import curation, drafts, minhash, quality
from finetune.drafts import BadDraft, Exchange, Style
from finetune.markers import carried_share, renumber
from finetune.models import AuditEvent, Dataset, Drafting, InstructionPair, PairSource
from kb.backends import get_backend
from kb.generators import GenerationError, TextPart
from kb.models import Chunk, Collection, Job, User
from kb.models.jobs import LeaseLost
from kb.prompts import NOT_IN_DOCUMENTS, Source
from kb.search import Filters, search

logger = logging.getLogger(__name__)
Origin = InstructionPair.Origin
MOST_WANTED = 10_000
# A passage with fewer tokens says too little to ask about.
MIN_TOKENS = 20
MOST_PASSAGES = 100_000
# So many steps a wanted pair at most: drafts are thrown away, passages were used before.
STEPS_A_PAIR = 20
DISTRACTORS = 3
SEARCHED = 16
MAX_TOKENS = 700
EXTRACTIVE_LABEL = "Extractive draft: a heading and the sentences below it, quoted"
SAME_WORDS = "Nearly the same pair is there already."
KNOWN = "This passage was asked about in this way before."
GONE = "The passage is gone or may not be read any more."
ALONE = "There is no second passage to go with it."
NOTHING = "There is no passage to draft from. Choose other documents, or wait until these are read."
DELETED = "The data set was deleted."
BROKEN = (
    "Drafting stopped because of a fault in the program; the log has the details."
    " The pairs before it are kept."
)


@dataclass(frozen=True, slots=True)
class Choice:
    """What a run drafts from, and how; see Drafting.choice."""

    styles: Sequence[Style]
    collections: Sequence[int] = ()
    documents: Sequence[int] = ()
    unused_first: bool = True
    distractors: int = 30
    abstentions: int = 10


def has_model() -> bool:
    """Whether a model server is configured; without one drafts are extractive."""
    return bool(settings.GENERATOR_NAME != "extractive")


def offered_styles() -> Sequence[Style]:
    return tuple(Style) if has_model() else drafts.EXTRACTIVE_STYLES


# --- A person starts and stops it ----------------------------------------------------------------


def start(dataset: Dataset, user: User, *, wanted: int, choice: Choice) -> Drafting:
    """Queue a run; one that waits or runs already is given back instead.

    The caller sends the workers a hint after commit.
    """
    with transaction.atomic():
        Dataset.objects.select_for_update(no_key=True).get(pk=dataset.pk)
        open_states = [Job.State.WAITING, Job.State.RUNNING]
        if known := dataset.draftings.filter(job__state__in=open_states).first():
            return known
        run = Drafting.objects.create(
            dataset=dataset,
            job=Job.objects.create(kind=Job.Kind.DRAFT),
            started_by=user,
            wanted=wanted,
            choice={
                "styles": [style.value for style in choice.styles],
                "collections": list(choice.collections) or [dataset.collection_id],
                "documents": list(choice.documents),
                "unused_first": choice.unused_first,
                "distractors": choice.distractors,
                "abstentions": choice.abstentions,
            },
        )
        AuditEvent.objects.record(
            user, AuditEvent.Action.DRAFTED, run, dataset.collection,
            dataset=dataset.pk, wanted=wanted, choice=run.choice,
        )  # fmt: skip
    return run


def stop(run: Drafting) -> bool:
    """End a run; its worker notices at the next pair. False when it has ended already."""
    waiting = Job.objects.filter(pk=run.job_id, state__in=[Job.State.WAITING, Job.State.RUNNING])
    return bool(waiting.update(state=Job.State.CANCELLED, lease_token=None, lease_until=None))


def go_on(run: Drafting) -> bool:
    """Let a stopped or failed run go on where it was; False when it is neither."""
    return run.job.retry()


# --- A worker drafts -----------------------------------------------------------------------------


def draft(job: Job) -> None:
    """Draft the pairs of a claimed run, one transaction a step, so that none comes twice.

    A model server that is away puts the job back; who takes the job over goes on at the next step.
    """
    runs = Drafting.objects.select_related("dataset__collection", "started_by", "job")
    run = runs.filter(job=job).first()
    if run is None or run.started_by is None:
        job.fail(DELETED, code="gone")
        return
    try:
        with job.heartbeat():
            _make_plan(run)
            if not run.plan:
                job.fail(NOTHING, code="nothing")
                return
            for step in _steps(run):
                _write(job, run, step)
            with job.publishing():
                pass
    except GenerationError as error:
        if error.retryable:
            job.release(error=str(error))
        else:
            job.fail(str(error), code="refused")
    except LeaseLost:
        logger.info("job %s was stopped or taken over by another worker", job.pk)
    except Exception:
        job.fail(BROKEN, code="broken")
        raise


def _make_plan(run: Drafting) -> None:
    """Fix once which passages are taken in which order, each with its style."""
    if run.plan:
        return
    chunks = _spread(run)
    styles = [style for style in offered_styles() if style in run.choice["styles"]]
    run.author_label = get_backend("GENERATOR").label[:200] if has_model() else EXTRACTIVE_LABEL
    run.plan = [
        [chunk, styles[(number + turn) % len(styles)].value]
        for turn in range(len(styles))
        for number, chunk in enumerate(chunks)
    ][: run.wanted * STEPS_A_PAIR]
    run.save(update_fields=["plan", "author_label"])


def _spread(run: Drafting) -> list[int]:
    """Choose passages, one of each document in turn; documents without pairs come first if wanted."""
    by_document: dict[int, list[int]] = defaultdict(list)
    seen: set[str] = set()
    rows = _permitted(run).filter(token_count__gte=MIN_TOKENS).order_by("document", "position")
    for pk, document, text_hash in rows.values_list("pk", "document", "text_hash")[:MOST_PASSAGES]:
        if text_hash not in seen:
            seen.add(text_hash)
            by_document[document].append(pk)
    chance = random.Random(run.pk)  # the same run takes the same passages
    documents = sorted(by_document)
    chance.shuffle(documents)
    for chunks in by_document.values():
        chance.shuffle(chunks)
    used = set()
    if run.choice["unused_first"]:
        sources = PairSource.objects.filter(pair__dataset=run.dataset_id, document__in=documents)
        used = set(sources.values_list("document", flat=True))
    fresh = [by_document[pk] for pk in documents if pk not in used]
    others = [by_document[pk] for pk in documents if pk in used]
    return [*_in_turn(fresh), *_in_turn(others)]


def _in_turn(lists: Sequence[Sequence[int]]) -> Iterator[int]:
    longest = max(map(len, lists), default=0)
    for place in range(longest):
        yield from (items[place] for items in lists if place < len(items))


def _permitted(run: Drafting) -> Any:
    """Passages of the chosen documents that the person who started the run may read now."""
    assert run.started_by is not None
    readable = Collection.objects.readable_by(run.started_by)
    chunks = Chunk.objects.visible_to(run.started_by).filter(
        collection__in=readable.filter(pk__in=run.choice["collections"])
    )
    if run.choice["documents"]:
        chunks = chunks.filter(document__in=run.choice["documents"])
    return chunks


@dataclass(slots=True)
class Step:
    """One step of the plan: a pair to write, or the reason why there is none."""

    position: int
    problem: str = ""
    origin: str = Origin.PASSAGE
    origin_key: str = ""
    content: dict[str, Any] = field(default_factory=dict)
    sources: list[dict[str, Any]] = field(default_factory=list)
    left_out: dict[str, Any] = field(default_factory=dict)


def _steps(run: Drafting) -> Iterator[Step]:
    while run.written < run.wanted and run.position < len(run.plan):
        chunk, style = run.plan[run.position]
        position = run.position + 1
        try:
            step = _draft_one(run, chunk, Style(style), position)
        except BadDraft as bad:
            step = Step(position, problem=str(bad))
        yield step


def _write(job: Job, run: Drafting, step: Step) -> None:
    """Commit one step, unless the job is no longer ours. Raises LeaseLost."""
    with transaction.atomic():
        job.report("drafting", run.written + (not step.problem), run.wanted)
        if step.problem:
            run.problems[step.problem] = run.problems.get(step.problem, 0) + 1
        else:
            curation.create_pair(
                run.started_by,
                run.dataset,
                origin=step.origin,
                origin_key=step.origin_key,
                content=step.content,
                sources=step.sources,
                author_label=run.author_label,
                extra={"left_out": step.left_out} if step.left_out else {},
            )
            run.written += 1
        run.position = step.position
        run.save(update_fields=["position", "written", "problems"])


# --- One draft -----------------------------------------------------------------------------------


def _draft_one(run: Drafting, pk: int, style: Style, position: int) -> Step:
    """Draft one pair. Raises BadDraft, and GenerationError when the model server is away."""
    chunk = _permitted(run).select_related("document", "version").filter(pk=pk).first()
    if chunk is None:
        raise BadDraft(GONE)
    key = f"{sha256(' '.join(chunk.text.split()).encode()).hexdigest()[:40]}:{style.value}"
    if run.dataset.pairs.filter(origin_key=key).exists():
        raise BadDraft(KNOWN)
    chunks = [chunk, *_second(run, chunk, style)]
    exchanges = _exchanges(style, chunks)
    chance = random.Random(f"{run.pk}:{position}")  # a step done again comes out alike
    step = _composed(run, exchanges, chunks, chance)
    step.position, step.origin_key = position, key
    step.content["tags"] = ["draft", style.value.replace("_", "-")]
    if _is_known(run.dataset, step.content):
        raise BadDraft(SAME_WORDS)
    return step


def _exchanges(style: Style, chunks: Sequence[Chunk]) -> list[Exchange]:
    sources = [_source(marker, chunk) for marker, chunk in enumerate(chunks, start=1)]
    if has_model():
        exchanges = drafts.read(_ask_model(style, sources), style)
    else:
        exchanges = drafts.extract(style, sources)
    drafts.check(exchanges, sources)
    return exchanges


def _ask_model(style: Style, sources: Sequence[Source]) -> str:
    """Have the model server write a draft. Raises GenerationError."""

    async def collect() -> str:
        parts = get_backend("GENERATOR").stream(
            drafts.request(style, sources), sources, question="", max_tokens=MAX_TOKENS
        )
        async with aclosing(parts):
            return "".join([part.text async for part in parts if isinstance(part, TextPart)])

    return asyncio.run(collect())


def _source(marker: int, chunk: Chunk) -> Source:
    path = tuple(chunk.heading_path)
    return Source(marker, chunk.document.title, path, chunk.page_first, chunk.text, score=0.0)


def _second(run: Drafting, chunk: Chunk, style: Style) -> list[Chunk]:
    """Give the second passage that a comparison or a conversation is about. Raises BadDraft."""
    chunks = _permitted(run).select_related("document", "version").exclude(pk=chunk.pk)
    if style == Style.FOLLOW_UP:
        after = chunks.filter(document=chunk.document_id, position__gt=chunk.position)
        found = after.exclude(heading_path=chunk.heading_path).order_by("position").first()
    elif style == Style.COMPARISON:
        near = [pk for pk in _near(run, chunk.text[:500]) if pk != chunk.pk]
        found = chunks.filter(pk__in=near[:1]).exclude(text_hash=chunk.text_hash).first()
    else:
        return []
    if found is None:
        raise BadDraft(ALONE)
    return [found]


def _near(run: Drafting, query: str) -> list[int]:
    """Give the passages of the chosen collections that search finds, best first."""
    assert run.started_by is not None
    filters = Filters(collection_ids=tuple(run.choice["collections"]))
    return [h.chunk_id for h in search(run.started_by, query, filters=filters, limit=SEARCHED)]


def _composed(
    run: Drafting, exchanges: Sequence[Exchange], chunks: Sequence[Chunk], chance: random.Random
) -> Step:
    """Make the pair: with its passages alone, among distractors, or with distractors alone."""
    kind = chance.uniform(0, 100)
    own = all(chunk.collection_id == run.dataset.collection_id for chunk in chunks)
    share = run.choice["abstentions"]
    # What is left out does not stand among the sources, so it must be the curators' own.
    if kind < share and own and len(exchanges) == 1:
        distractors = _distractors(run, exchanges[-1], chunks)
        if distractors:
            return _abstaining(exchanges[-1], chunks[0], distractors)
    elif kind < share + run.choice["distractors"]:
        distractors = _distractors(run, exchanges[-1], chunks)
        if distractors:
            return _among(exchanges, chunks, distractors, chance)
    return _among(exchanges, chunks, [], None)


def _distractors(run: Drafting, exchange: Exchange, chunks: Sequence[Chunk]) -> list[Chunk]:
    """Find passages near the question that do not carry its answer."""
    right = {chunk.pk for chunk in chunks}
    near = [pk for pk in _near(run, exchange.question) if pk not in right]
    by_pk = Chunk.objects.select_related("document", "version").in_bulk(near)
    found: list[Chunk] = []
    for chunk in (by_pk[pk] for pk in near if pk in by_pk):
        if len(found) < DISTRACTORS and not _helps(chunk, exchange, chunks):
            found.append(chunk)
    return found


def _helps(chunk: Chunk, exchange: Exchange, chunks: Iterable[Chunk]) -> bool:
    """Whether a passage carries a part of the answer, or overlaps with one that is right."""
    overlaps = any(
        chunk.version_id == right.version_id and chunk.start < right.end and right.start < chunk.end
        for right in chunks
    )
    same = any(chunk.text_hash == right.text_hash for right in chunks)
    return overlaps or same or carried_share(exchange.answer, [_source(1, chunk)]) > 0


def _among(
    exchanges: Sequence[Exchange],
    chunks: Sequence[Chunk],
    distractors: Sequence[Chunk],
    chance: random.Random | None,
) -> Step:
    """Put the right passages among the others, in an order by chance, and cite them there."""
    placed = [*chunks, *distractors]
    if chance is not None:
        chance.shuffle(placed)
    at = {chunk.pk: marker for marker, chunk in enumerate(placed, start=1)}
    numbers = {marker: at[chunk.pk] for marker, chunk in enumerate(chunks, start=1)}
    right = {chunk.pk for chunk in chunks}
    turns = [
        {"role": role, "content": content}
        for exchange in exchanges[:-1]
        for role, content in (
            ("user", exchange.question),
            ("assistant", renumber(exchange.answer, numbers)),
        )
    ]
    last = exchanges[-1]
    return Step(
        0,
        origin=Origin.DISTRACTOR if distractors else Origin.PASSAGE,
        content={
            "instruction": last.question,
            "output": renumber(last.answer, numbers),
            "messages": turns,
        },
        sources=[
            curation.source_of_chunk(chunk, at[chunk.pk], is_distractor=chunk.pk not in right)
            for chunk in placed
        ],
    )


def _abstaining(exchange: Exchange, right: Chunk, distractors: Sequence[Chunk]) -> Step:
    """Leave the right passage out: then the documents do not have the answer."""
    return Step(
        0,
        origin=Origin.ABSTENTION,
        content={"instruction": exchange.question, "output": NOT_IN_DOCUMENTS},
        sources=[
            curation.source_of_chunk(chunk, marker, is_distractor=True)
            for marker, chunk in enumerate(distractors, start=1)
        ],
        left_out={
            "document": right.document_id,
            "version": right.version_id,
            "start": right.start,
            "end": right.end,
        },
    )


def _is_known(dataset: Dataset, content: Mapping[str, Any]) -> bool:
    """Whether the data set has a pair with nearly the same question, or nearly the same words."""
    texts = {name: value for name, value in content.items() if name != "tags"}
    bands = quality.measure(**texts).bands
    mine = _fields(content)
    near = dataset.pairs.filter(bands__overlap=bands)[:200]
    return any(minhash.similarity(mine, _fields(pair.content())) >= minhash.NEAR for pair in near)


def _fields(content: Mapping[str, Any]) -> minhash.Fields:
    messages = content.get("messages", [])
    words = minhash.words_of(
        messages, content["instruction"], content.get("input", ""), content["output"]
    )
    return minhash.fields(*words)
