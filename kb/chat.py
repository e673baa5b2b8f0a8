"""Conversations: ask, start the answer, and let any number of tabs follow it."""

import asyncio
from collections.abc import AsyncGenerator

from django.db import transaction
from django.db.models import Prefetch
from django.utils import timezone
from redis.exceptions import RedisError

from kb import answering, streams
from kb.database import in_database
from kb.models import Citation, Conversation, Feedback, Message
from kb.models.chat import ANSWER_LEASE
from kb.streams import Event

MAX_QUESTION = 8_000
# Without Redis, a reader looks at the row this often.
FOLLOW_EVERY_S = 1.0
_running: set[asyncio.Task[None]] = set()


class QuestionRefused(Exception):
    """A question that cannot be taken; the message is a sentence for the person."""


# --- Writing turns ----------------------------------------------------------------------------


def ask(conversation: Conversation, text: str, *, parent: Message | None = None) -> Message:
    """Write the question below `parent` and its pending answer, which is returned.

    Raises QuestionRefused for an empty or overlong question.
    """
    text = text.strip().replace("\x00", "")
    if not text:
        raise QuestionRefused("Write a question first.")
    if len(text) > MAX_QUESTION:
        raise QuestionRefused(f"The question is longer than {MAX_QUESTION:,} characters.")
    with transaction.atomic():
        question = conversation.messages.create(role=Message.Role.USER, text=text, parent=parent)
        conversation.title = conversation.title or _title(text)
        conversation.updated_at = timezone.now()
        conversation.save(update_fields=["title", "updated_at"])
        return _pending(question)


def edit(question: Message, text: str) -> Message:
    """Ask again in other words: a branch beside the question; returns its pending answer."""
    return ask(question.conversation, text, parent=question.parent)


def regenerate(answer: Message, *, generator: str = "") -> Message:
    """Answer the same question again, beside the answer there is.

    `generator`: a name in settings.GENERATORS, or "" for the configured one.
    """
    assert answer.parent is not None
    return _pending(answer.parent, generator=generator)


def _pending(question: Message, *, generator: str = "") -> Message:
    # The lease covers the moment until a process starts on it; then the sweeper ends it.
    return Message.objects.create(
        conversation=question.conversation,
        parent=question,
        role=Message.Role.ASSISTANT,
        state=Message.State.PENDING,
        lease_until=timezone.now() + ANSWER_LEASE,
        trace={"asked_generator": generator} if generator else {},
    )


def _title(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 80 else line[:79].rsplit(" ", 1)[0] + "…"


def thread(conversation: Conversation, leaf: int | None = None) -> list[Message]:
    """Give one branch from its first question to its last turn, by default the newest.

    A `leaf` inside the tree is followed down its newest turns. Each message carries `branch_ids`,
    its own feedback and its citations.
    """
    turns = list(
        conversation.messages.select_related("deployment")
        .prefetch_related(
            Prefetch("citations", Citation.objects.order_by("marker")),
            Prefetch("feedback", Feedback.objects.filter(user=conversation.user)),
        )
        .order_by("pk")
    )
    by_id = {turn.pk: turn for turn in turns}
    children: dict[int | None, list[Message]] = {}
    for turn in turns:
        children.setdefault(turn.parent_id, []).append(turn)
    last = by_id.get(leaf) if leaf else turns[-1] if turns else None
    while last is not None and last.pk in children:
        last = children[last.pk][-1]
    path: list[Message] = []
    while last is not None:
        last.branch_ids = [turn.pk for turn in children[last.parent_id]]  # type: ignore[attr-defined]
        path.append(last)
        last = by_id.get(last.parent_id) if last.parent_id else None
    return path[::-1]


# --- Following --------------------------------------------------------------------------------


def start(answer_id: int) -> None:
    """Produce the answer on the running event loop; the row is claimed, so it happens once."""
    task = asyncio.get_running_loop().create_task(answering.answer(answer_id))
    _running.add(task)  # the loop itself keeps only a weak reference
    task.add_done_callback(_running.discard)


def end_abandoned() -> int:
    """End answers whose web process is gone, keeping what they have; gives their number."""
    return Message.objects.abandoned().update(
        state=Message.State.FAILED,
        error=answering.STOPPING,
        error_code="retryable",
        lease_until=None,
        finished_at=timezone.now(),
    )


async def tail(answer_id: int, last_id: str = "0") -> AsyncGenerator[Event, None]:
    """Give the events of an answer after `last_id`, as they come, until it has ended.

    "ping" comes at least every few seconds, so that the caller can look whether its reader still
    may read. Without Redis the row is followed instead.
    """
    seen = 0
    async with streams.connection() as redis:
        while True:
            try:
                events = await streams.read(redis, answer_id, last_id)
            except (RedisError, OSError):
                events = []
                await asyncio.sleep(FOLLOW_EVERY_S)
                text, _ = await in_database(_row, answer_id)
                if last_id == "0" and len(text) > seen:
                    yield Event(last_id, "text", {"text": text[seen:]})
                    seen = len(text)
            for event in events:
                yield event
                last_id = event.id
                if event.kind == "end":
                    return
            if not events:
                _, state = await in_database(_row, answer_id)
                if state not in (Message.State.PENDING, Message.State.STREAMING):
                    yield Event(last_id, "end", {"state": state})
                    return
                yield Event(last_id, "ping", {})


def _row(answer_id: int) -> tuple[str, str]:
    row: tuple[str, str] = Message.objects.values_list("text", "state").get(pk=answer_id)
    return row
