"""Server-sent events of an answer, for as long as its reader may see it."""

import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress

from django.http import StreamingHttpResponse

from kb import chat
from kb.models import Message
from kb.streams import Event

# chat.tail speaks at least this often, so a reader whose access ended is gone within seconds.
LOOK_EVERY_S = 3.0
EVENT_ID = re.compile(r"\d{1,19}(-\d{1,19})?")


def event_stream(
    answer_id: int, last_id: str, may_read: Callable[[], Awaitable[bool]]
) -> StreamingHttpResponse:
    """Follow an answer after the event `last_id`; ends early when `may_read` says no.

    A `last_id` that is none, as a client may send, stands for the beginning.
    """
    after = last_id if EVENT_ID.fullmatch(last_id) else "0"
    return StreamingHttpResponse(
        _events(answer_id, after, may_read),
        content_type="text/event-stream",
        # A proxy that buffers would hold the words back.
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _events(
    answer_id: int, last_id: str, may_read: Callable[[], Awaitable[bool]]
) -> AsyncIterator[str]:
    looked_at = time.monotonic()
    with suppress(Message.DoesNotExist):  # deleted while it was read
        async with aclosing(chat.tail(answer_id, last_id)) as events:
            async for event in events:
                if time.monotonic() - looked_at >= LOOK_EVERY_S:
                    if not await may_read():
                        return
                    looked_at = time.monotonic()
                yield _text_of(event)


def _text_of(event: Event) -> str:
    if event.kind == "ping":
        return ": still here\n\n"
    data = json.dumps(event.data, ensure_ascii=False)
    return f"id: {event.id}\nevent: {event.kind}\ndata: {data}\n\n"
