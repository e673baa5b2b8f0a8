"""From a rating to what is done about it: collect, guess what went wrong, sort, undo.

The sweeper calls `collect` every few seconds; nothing here needs the embedding model except listing
a gap. A person's rating is what hands an answer to the curators: an answer that nobody rated never
comes here.
"""

import logging
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import Exists, F, OuterRef, Prefetch, Q, QuerySet
from django.utils import timezone

from finetune import curation, gaps, preferences
from finetune.markers import carried_share, cite, cited, renumber
from finetune.models import (
    AuditEvent,
    Dataset,
    InstructionPair,
    KnowledgeGap,
    RetrievalQuestion,
    TriageItem,
)
from kb import citations
from kb.models import Chunk, Citation, Collection, Feedback, Message, User
from kb.prompts import NOT_IN_DOCUMENTS, Source
from kb.ranking import Filters, extent_of, matching, read_query, scope_of

logger = logging.getLogger(__name__)
Category, Signal, State = TriageItem.Category, TriageItem.Signal, TriageItem.State
# A look takes so many ratings at most; the next one comes in seconds.
MOST = 50
UNDO_WITHIN = timedelta(hours=12)
LOOKED_AT = 8  # passages that the guess holds against a corrected answer
# Share of a corrected answer's sentences that passages must carry to count as the right ones.
CARRIED = 0.5
# A question whose passages scored less than this above the threshold was hardly answerable.
BARELY = 0.1


class TriageRefused(Exception):
    """Something that cannot be done with an item now; the message is a sentence for the person."""


# --- Ratings come in -----------------------------------------------------------------------------


def collect() -> int:
    """Bring in ratings that are new or were changed; gives how many.

    As long as nobody decided about an item, a changed rating replaces it, and one that the person
    took back takes it away.
    """
    _changed().delete()
    known = TriageItem.objects.filter(message=OuterRef("message"))
    fresh = (
        Feedback.objects.filter(~Exists(known), message__role=Message.Role.ASSISTANT)
        .select_related("message__parent", "message__conversation__user")
        .prefetch_related(Prefetch("message__citations", Citation.objects.order_by("marker")))
        .order_by("-pk")[:MOST]
    )
    return sum(_bring_in(feedback) for feedback in fresh)


def _changed() -> QuerySet[TriageItem]:
    rating = "message__feedback__"
    right = {f"{rating}value": Feedback.Value.UP, f"{rating}corrected_answer": ""}
    differs = (
        ~Q(reason=F(f"{rating}reason"))
        | ~Q(corrected_answer=F(f"{rating}corrected_answer"))
        | Q(~Q(signal=Signal.UP), **right)
        | Q(signal=Signal.UP, **{f"{rating}value": Feedback.Value.DOWN})
    )
    items = TriageItem.objects.open()
    changed = items.filter(differs, message__feedback__isnull=False)
    withdrawn = items.filter(message__feedback__isnull=True)
    return TriageItem.objects.filter(
        Q(pk__in=changed.values("pk")) | Q(pk__in=withdrawn.values("pk"))
    )


def _bring_in(feedback: Feedback) -> bool:
    """Make the item of a rating; False where no collection can be named that it belongs to."""
    message = feedback.message
    offered = list(message.citations.all())
    # That nothing was found tells nothing of the passages.
    behind: set[int | None]
    behind = set() if message.found_nothing else {one.collection_id for one in offered}
    collection = preferences.home_of(message, offered)
    if collection is None or message.parent is None:
        return False
    with transaction.atomic():
        item, made = TriageItem.objects.get_or_create(
            message=message,
            defaults={
                "collection": collection,
                "signal": _signal(feedback),
                "guess": guess(feedback),
                "question": message.parent.text,
                "reason": feedback.reason,
                "corrected_answer": feedback.corrected_answer,
                "has_lost_sources": None in behind,
                "created_at": feedback.created_at,
            },
        )
        if not made:
            return False
        read = {collection.pk} if message.found_nothing else {pk for pk in behind if pk is not None}
        item.passage_collections.set(read)
        preferences.from_rating(feedback)
    return True


def _signal(feedback: Feedback) -> str:
    if feedback.corrected_answer.strip():
        return Signal.CORRECTED
    if feedback.value == Feedback.Value.UP:
        return Signal.UP
    return Signal.NOTHING_FOUND if feedback.message.found_nothing else Signal.DOWN


# --- What went wrong, guessed --------------------------------------------------------------------


def guess(feedback: Feedback) -> str:
    """Guess what went wrong from the passages, how they scored, and a corrected answer.

    With a correction: where the passages that were offered carry it, the answer was wrong; where
    others of the person's documents do, the passage was not found; else no document has it.
    Without one: an answer that its passages do not carry was wrong, one whose passages barely had
    to do with the question missed the right ones.
    """
    message, right = feedback.message, feedback.corrected_answer.strip()
    if feedback.value == Feedback.Value.UP and not right:
        return Category.UNSORTED
    if right:
        return _guess_by_correction(message, right)
    judged = message.trace.get("answerable", {})
    if message.found_nothing:
        return Category.WRONG_ANSWER if judged.get("answerable") else Category.NO_DOCUMENT
    unsupported = sum(not sentence["supported"] for sentence in message.support)
    if unsupported * 2 > len(message.support):
        return Category.WRONG_ANSWER
    barely = judged.get("score", 1.0) < citations.ANSWERABLE_THRESHOLD + BARELY
    return Category.NOT_FOUND if barely else Category.WRONG_ANSWER


def _guess_by_correction(message: Message, right: str) -> str:
    offered = [_source(one) for one in message.citations.all()]
    if carried_share(right, offered) >= CARRIED:
        return Category.WRONG_ANSWER
    question = message.parent.text if message.parent else ""
    elsewhere = _found_by_words(message.conversation.user, f"{question}\n{right}")
    found = max((carried_share(right, [one]) for one in elsewhere), default=0.0)
    return Category.NOT_FOUND if found >= CARRIED else Category.NO_DOCUMENT


def _found_by_words(user: User, text: str) -> list[Source]:
    """Find passages the person may read that share most words with a text; no model is asked."""
    scope = scope_of(user, Filters())
    if scope.is_empty:
        return []
    found = matching(scope, extent_of(scope), read_query(text[:2_000]), LOOKED_AT)
    chunks = Chunk.objects.visible_to(user).filter(pk__in=found.scores).select_related("document")
    return [
        Source(number, chunk.document.title, tuple(chunk.heading_path), 1, chunk.text, score=0.0)
        for number, chunk in enumerate(chunks, start=1)
    ]


# --- A person decides ----------------------------------------------------------------------------


def save_question(item: TriageItem, user: User, chunk: Chunk) -> RetrievalQuestion:
    """The passage was not found: keep the question with its right passage, to measure search by.

    Raises TriageRefused.
    """
    with transaction.atomic():
        item = _locked(item)
        saved = _question(item, user, chunk)
        _decide(item, user, Category.NOT_FOUND, question=saved.pk, document=chunk.document_id)
    return saved


def save_question_with_pair(
    item: TriageItem, user: User, chunk: Chunk, dataset: Dataset, *, output: str = ""
) -> InstructionPair:
    """As `save_question`, and draft a pair with the right passage. Raises TriageRefused too."""
    with transaction.atomic():
        _question(_locked(item), user, chunk)
        return draft_pair(item, user, dataset, output=output, chunk=chunk)


def _question(item: TriageItem, user: User, chunk: Chunk) -> RetrievalQuestion:
    return add_question(item.searched, chunk, user, item=item)


def add_question(
    question: str, chunk: Chunk, user: User, *, item: TriageItem | None = None
) -> RetrievalQuestion:
    """Keep a question with the passage that answers it."""
    return RetrievalQuestion.objects.create(
        question=question,
        collection_id=chunk.collection_id,
        document_id=chunk.document_id,
        version_id=chunk.version_id,
        start=chunk.start,
        end=chunk.end,
        text=chunk.text,
        triage=item,
        created_by=user,
    )


def draft_pair(
    item: TriageItem,
    user: User,
    dataset: Dataset,
    *,
    output: str = "",
    chunk: Chunk | None = None,
) -> InstructionPair:
    """The answer was wrong, or right and worth learning: make a pair of it for review.

    `output`: what it should have said, the person's correction unless told. `chunk`: the right
    passage where the answer was not offered it; then it comes first. Where somebody said what is
    right, the answer itself becomes what not to say. Raises TriageRefused and CurationRefused.
    """
    with transaction.atomic():
        item = _locked(item)
        if dataset.collection_id != item.collection_id:
            raise TriageRefused("Choose a data set of the collection that was asked.")
        content, sources = prefill(item, user, output=output, chunk=chunk)
        nothing = content["output"] == NOT_IN_DOCUMENTS
        origin = InstructionPair.Origin.ABSTENTION if nothing else InstructionPair.Origin.ANSWER
        pair = curation.create_pair(
            user,
            dataset,
            origin=origin,
            origin_key=f"answer:{item.message_id}",
            content=content,
            sources=sources,
            message=item.message,
            author_label=f"{user.username}, from a rated answer"[:200],
        )
        item.pair = pair
        category = Category.NOT_FOUND if chunk else Category.WRONG_ANSWER
        _decide(item, user, "" if item.signal == Signal.UP else category, pair=pair.pk)
    return pair


def list_gap(item: TriageItem, user: User) -> KnowledgeGap:
    """No document has it: put the question to the gap that it belongs to.

    Raises TriageRefused, and EmbeddingError when the embedding model is away.
    """
    with transaction.atomic():
        item = _locked(item)
        gap = gaps.add(item, user)
        _decide(item, user, Category.NO_DOCUMENT, gap=gap.pk)
    return gap


def dismiss(item: TriageItem, user: User) -> None:
    """Nothing is to be done. Raises TriageRefused."""
    with transaction.atomic():
        item = _locked(item)
        _decide(item, user, item.category, State.DISMISSED)


def undo(user: User) -> TriageItem | None:
    """Take back the person's last decision and what it made; None when there is none.

    Raises TriageRefused when somebody has judged the pair that came of it.
    """
    with transaction.atomic():
        item = (
            TriageItem.objects.visible_to(user)
            .filter(decided_by=user, decided_at__gt=timezone.now() - UNDO_WITHIN)
            .exclude(state=State.OPEN)
            .order_by("-decided_at")
            .select_for_update(of=("self",))
            .first()
        )
        if item is None:
            return None
        _take_back(item, user)
        item.state, item.category, item.pair = State.OPEN, Category.UNSORTED, None
        item.decided_by = item.decided_at = None
        item.save()
        AuditEvent.objects.record(user, AuditEvent.Action.UNDONE, item, item.collection)
    return item


def _take_back(item: TriageItem, user: User) -> None:
    if item.pair is not None:
        if item.pair.reviews.exists() or item.pair.state != InstructionPair.State.SUGGESTED:
            raise TriageRefused("Somebody has judged the pair that came of it. Open that instead.")
        curation.delete(item.pair, user)
    item.retrieval_questions.all().delete()
    gaps.take_out(item)


def _locked(item: TriageItem) -> TriageItem:
    found = TriageItem.objects.select_for_update().filter(pk=item.pk).first()
    if found is None:
        raise TriageRefused("The person changed this rating in the meantime.")
    if found.state != State.OPEN:
        raise TriageRefused("Somebody has sorted this in the meantime.")
    return found


def _decide(
    item: TriageItem, user: User, category: str, state: str = State.DONE, **detail: Any
) -> None:
    item.category, item.state = category, state
    item.decided_by, item.decided_at = user, timezone.now()
    item.save()
    AuditEvent.objects.record(
        user,
        AuditEvent.Action.TRIAGED,
        item,
        item.collection,
        category=category,
        state=state,
        **detail,
    )


# --- What a pair is filled with ------------------------------------------------------------------


def passages_of(item: TriageItem, user: User) -> list[Citation]:
    """Give the passages that the answer was offered, of documents the person may read now."""
    offered = item.message.citations.filter(collection__in=Collection.objects.readable_by(user))
    return list(offered.select_related("version", "document").order_by("marker"))


def prefill(
    item: TriageItem, user: User, *, output: str = "", chunk: Chunk | None = None
) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Give the content and the sources of the pair that an item becomes.

    A correction gets the markers of the passages that carry it. Sources are those that the texts
    name, or those the answer cited where they name none; and one of each other collection that the
    answer was offered, as a distractor, because its words may stand in the answer.
    """
    offered = passages_of(item, user)
    answer, right = item.message.text, (output or item.corrected_answer).strip()
    if item.message.found_nothing and not right and chunk is None:
        return _nothing(item, offered)
    extra = _next_marker(offered) if chunk else 0
    sources = [_source(one) for one in offered]
    if chunk is not None:
        path = tuple(chunk.heading_path)
        sources.insert(0, Source(extra, chunk.document.title, path, 1, chunk.text, score=0.0))
    if item.signal == Signal.UP and not right:
        content = {"instruction": item.question, "output": answer, "rejected": ""}
    else:
        # Markers put in are no other answer.
        same = renumber(right, {}).split() == renumber(answer, {}).split()
        content = {"instruction": item.question, "output": cite(right, sources)}
        content["rejected"] = "" if same else answer
    wanted = cited(content["output"], content["rejected"])
    kept = [one for one in offered if one.marker in wanted]
    kept = kept or [one for one in offered if one.is_cited and chunk is None]
    # Counted from 1 without gaps, as a model is offered passages.
    numbers = {one.marker: n for n, one in enumerate(kept, start=2 if chunk else 1)}
    rows = [curation.source_of_citation(one, numbers[one.marker]) for one in kept]
    if chunk is not None:
        numbers[extra] = 1
        rows.insert(0, curation.source_of_chunk(chunk, 1))
    for name in ("output", "rejected"):
        content[name] = renumber(content[name], numbers)
    others = [] if item.message.found_nothing else _uncited(item, kept)
    rows += [
        curation.source_of_citation(one, number, is_distractor=True)
        for number, one in enumerate(others, start=len(rows) + 1)
    ]
    return content, rows


def _uncited(item: TriageItem, kept: Iterable[Citation]) -> list[Citation]:
    # Not only what is there: a passage of a collection that was deleted leaves administrators only.
    offered = item.message.citations.select_related("version", "document").order_by("marker")
    return curation.of_other_collections(offered, kept, item.collection)


def _nothing(
    item: TriageItem, offered: Iterable[Citation]
) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """It was right to say that the documents do not have it: the passages lead astray."""
    content = {"instruction": item.question, "output": NOT_IN_DOCUMENTS, "rejected": ""}
    rows = [curation.source_of_citation(one, one.marker, is_distractor=True) for one in offered]
    return content, rows


def _source(one: Citation) -> Source:
    path = tuple(one.heading_path)
    return Source(one.marker, one.title, path, one.page_first, one.quote, one.score)


def _next_marker(offered: Sequence[Citation]) -> int:
    return max((one.marker for one in offered), default=0) + 1
