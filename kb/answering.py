"""One answer from its question: search, generate, check, save."""

import asyncio
import logging
import time
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any

from django.conf import settings
from django.db import transaction

from kb import citations, prompts, search, streams
from kb.backends import get_backend
from kb.database import in_database
from kb.generators import GenerationError, Generator, UsagePart
from kb.models import Citation, Conversation, Message, ModelDeployment
from kb.prompts import Source, Turn
from kb.search import Filters, Hit

logger = logging.getLogger(__name__)
SOURCES = 8
HISTORY_TURNS = 8
# Text is sent on at most this often, and saved at most this often.
SEND_EVERY_S, SAVE_EVERY_S = 0.08, 1.0
BROKEN = "Answering stopped because of a fault in the program; the log has the details."
STOPPING = "The server stopped while this answer was written. What was written is kept."


@dataclass(slots=True)
class Draft:
    """An answer in the making: what it goes by, and what it has so far."""

    message: Message
    question: str
    history: list[Turn]
    generator_name: str
    sources: list[Source] = field(default_factory=list)
    text: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    trace: dict[str, Any] = field(default_factory=dict)


async def answer(answer_id: int) -> None:
    """Search, generate, check and save one pending answer, whoever watches or leaves."""
    draft = await in_database(_claim, answer_id)
    if draft is None:
        return
    async with streams.connection() as redis:
        writer = streams.Writer(redis, answer_id)
        state: str = Message.State.FAILED
        try:
            state = await _produce(draft, writer)
        except GenerationError as error:
            await _end_failed(draft, writer, str(error), retryable=error.retryable)
        except asyncio.CancelledError:
            await asyncio.shield(_end_failed(draft, writer, STOPPING, retryable=True))
            raise
        except Exception:
            # The last line of the journey: the row says it in words, the log has the trace.
            await _end_failed(draft, writer, BROKEN, retryable=True)
            logger.exception("answer %s failed", answer_id)
        finally:
            await writer.add("end", state=state)


async def _produce(draft: Draft, writer: streams.Writer) -> str:
    await writer.add("status", state="searching")
    await in_database(_find, draft)
    await writer.add("sources", sources=[_brief(source) for source in draft.sources])
    if not draft.trace["answerable"]["answerable"]:
        draft.text = prompts.NOT_IN_DOCUMENTS
        await writer.add("text", text=draft.text)
        return await in_database(_finish, draft, Message.State.DONE)
    await writer.add("status", state="answering")
    stopped = await _generate(draft, writer)
    state = Message.State.STOPPED if stopped else Message.State.DONE
    return await in_database(_finish, draft, state)


def _claim(answer_id: int) -> Draft | None:
    message = Message.objects.select_related("conversation", "conversation__user", "parent").get(
        pk=answer_id
    )
    if not message.claim():
        return None
    assert message.parent is not None
    name = message.trace.get("asked_generator") or settings.GENERATOR_NAME
    history = _history(message.parent)
    return Draft(message, message.parent.text, history, name)


def _history(question: Message) -> list[Turn]:
    """Give the turns above a question, oldest first."""
    turns: list[Turn] = []
    above = question.parent
    while above is not None and len(turns) < HISTORY_TURNS:
        role = "user" if above.role == Message.Role.USER else "assistant"
        turns.append(Turn(role, above.text))  # type: ignore[arg-type]
        above = above.parent
    return turns[::-1]


def _find(draft: Draft) -> None:
    """Search for the question, keep the passages as citations, and judge whether they answer."""
    conversation, started = draft.message.conversation, time.monotonic()
    query = prompts.standalone_query(draft.question, draft.history)
    hits = search.search(conversation.user, query, filters=filters_of(conversation), limit=SOURCES)
    draft.sources = [_source(marker, hit) for marker, hit in enumerate(hits, start=1)]
    judged = citations.is_answerable(query, draft.sources)
    Citation.objects.bulk_create(
        _citation(draft.message, source, hit)
        for source, hit in zip(draft.sources, hits, strict=True)
    )
    draft.trace = {
        "queries": [query],
        "hits": [
            {
                "chunk": hit.chunk_id,
                "title": hit.title,
                "score": round(hit.score, 4),
                "similarity": _number(hit.similarity),
                "text_score": round(hit.text_score, 3),
            }
            for hit in hits
        ],
        "answerable": asdict(judged),
        "prompt_version": prompts.PROMPT_VERSION,
        "search_ms": _ms_since(started),
    }


def filters_of(conversation: Conversation) -> Filters:
    """Read what narrows a conversation's searches; unknown or foreign values find nothing more."""
    stored = conversation.filters
    return Filters(
        collection_ids=tuple(conversation.collections.values_list("pk", flat=True)),
        media_types=tuple(stored.get("media_types", ())),
        languages=tuple(stored.get("languages", ())),
        tags=tuple(stored.get("tags", ())),
        since=_day(stored.get("since")),
        until=_day(stored.get("until")),
        document_ids=tuple(stored.get("document_ids", ())),
    )


def _day(text: str | None) -> date | None:
    return date.fromisoformat(text) if text else None


def _number(value: float) -> float | None:
    return None if value != value else round(value, 4)  # JSON has no NaN


def _source(marker: int, hit: Hit) -> Source:
    similarity = 0.0 if hit.similarity != hit.similarity else hit.similarity
    return Source(
        marker, hit.title, hit.heading_path, hit.page_first, hit.text, hit.score, similarity
    )


def _brief(source: Source) -> dict[str, Any]:
    return {
        "marker": source.marker,
        "title": source.title,
        "heading_path": list(source.heading_path),
        "page": source.page,
    }


def _citation(message: Message, source: Source, hit: Hit) -> Citation:
    return Citation(
        message=message,
        marker=source.marker,
        chunk_id=hit.chunk_id,
        version_id=hit.version_id,
        document_id=hit.document_id,
        collection_id=hit.collection_id,
        title=hit.title,
        heading_path=list(hit.heading_path),
        page_first=hit.page_first,
        page_last=hit.page_last,
        start=hit.start,
        end=hit.end,
        quote=hit.text,
        score=hit.score,
    )


async def _generate(draft: Draft, writer: streams.Writer) -> bool:
    """Stream the answer into the draft, saving as it grows; True when the person stopped it."""
    consuming = asyncio.create_task(_consume(draft, writer))
    try:
        while not consuming.done():
            await asyncio.wait({consuming}, timeout=SAVE_EVERY_S)
            if not consuming.done() and not await in_database(draft.message.keep, draft.text):
                return True
        await consuming  # raises what it met
        return False
    finally:
        consuming.cancel()  # closes the request to the model server
        await asyncio.wait({consuming})


async def _consume(draft: Draft, writer: streams.Writer) -> None:
    generator = _generator(draft.generator_name)
    draft.trace["generator"] = draft.generator_name
    deployment = await in_database(_speak_for, draft, generator.base_model, generator.label)
    started = sent_at = time.monotonic()
    waiting = ""
    parts = generator.stream(
        prompts.build_messages(draft.question, draft.sources, draft.history),
        draft.sources,
        question=draft.trace["queries"][-1],
        adapter=deployment.adapter_name if deployment else "",
        max_tokens=settings.MAX_ANSWER_TOKENS,
    )
    try:
        async with aclosing(parts):
            async for part in parts:
                now = time.monotonic()
                if isinstance(part, UsagePart):
                    _record_usage(draft, part)
                    continue
                draft.trace.setdefault("first_text_ms", _ms_since(started))
                draft.text += part.text
                waiting += part.text
                if now - sent_at >= SEND_EVERY_S:
                    await writer.add("text", text=waiting)
                    waiting, sent_at = "", now
    finally:
        if waiting:
            await asyncio.shield(writer.add("text", text=waiting))
        draft.trace["generation_ms"] = _ms_since(started)


def _record_usage(draft: Draft, usage: UsagePart) -> None:
    draft.prompt_tokens, draft.completion_tokens = usage.prompt_tokens, usage.completion_tokens
    draft.trace["finish_reason"] = usage.finish_reason


def _ms_since(started: float) -> float:
    return round(1000 * (time.monotonic() - started), 1)


def _generator(name: str) -> Generator:
    backends = {settings.GENERATOR_NAME: "GENERATOR", "extractive": "FALLBACK_GENERATOR"}
    generator: Generator = get_backend(backends.get(name, "GENERATOR"))
    return generator


def _speak_for(draft: Draft, base_model: str, label: str) -> ModelDeployment | None:
    """Note on the row which model is about to speak; None for the base model as it is."""
    deployment = ModelDeployment.objects.current_for(draft.message.conversation, base_model)
    Message.objects.filter(pk=draft.message.pk).update(generator=label, deployment=deployment)
    return deployment


def _finish(draft: Draft, state: str) -> str:
    """Save the answer with what it cites, how well that carries it, and how it came about."""
    marks = {mark.marker for mark in citations.find_citations(draft.text)}
    support = citations.check_support(draft.text, draft.sources)
    with transaction.atomic():
        ended = draft.message.finish(
            state,
            text=draft.text,
            found_nothing=draft.text.strip() == prompts.NOT_IN_DOCUMENTS,
            support=[asdict(sentence) for sentence in support],
            trace=draft.trace,
            prompt_tokens=draft.prompt_tokens,
            completion_tokens=draft.completion_tokens,
        )
        if ended:
            draft.message.citations.filter(marker__in=marks).update(is_cited=True)
    return state


async def _end_failed(
    draft: Draft, writer: streams.Writer, sentence: str, *, retryable: bool
) -> None:
    code = "retryable" if retryable else "refused"
    await in_database(
        draft.message.finish,
        Message.State.FAILED,
        text=draft.text,
        error=sentence,
        error_code=code,
        trace=draft.trace,
    )
    await writer.add("failed", error=sentence, retryable=retryable)
