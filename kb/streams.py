"""The events of a running answer: written once into a Redis Stream, read by any number of tabs.

The stream is a convenience with a short life. When Redis is away, writing is skipped and reading
falls back to the row, which is saved every second.
"""

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from redis.asyncio import Redis
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)
KEPT_S = 3600
# Long enough to be quiet, short enough that a reader whose access ended is noticed.
BLOCK_MS = 3_000


@dataclass(frozen=True, slots=True)
class Event:
    """`id` orders events and is where a reader resumes. `kind`: status, sources, text, failed, end."""

    id: str
    kind: str
    data: dict[str, Any]


@asynccontextmanager
async def connection() -> AsyncIterator[Redis]:
    """Open a connection for one writer or reader; it belongs to the running event loop."""
    redis = Redis.from_url(settings.REDIS_URL, socket_connect_timeout=2, socket_timeout=15)
    try:
        yield redis
    finally:
        await redis.aclose()


class Writer:
    """Appends the events of one answer."""

    def __init__(self, redis: Redis, answer_id: int) -> None:
        self._redis, self._key = redis, key(answer_id)

    async def add(self, kind: str, **data: Any) -> None:
        try:
            await self._redis.xadd(self._key, {"kind": kind, "data": json.dumps(data)})
            await self._redis.expire(self._key, KEPT_S)
        except (RedisError, OSError) as error:
            logger.warning("event %s of %s is not streamed: %s", kind, self._key, error)


async def read(redis: Redis, answer_id: int, last_id: str) -> list[Event]:
    """Wait up to BLOCK_MS for events after `last_id`. Raises RedisError when Redis is away."""
    found: Any = await redis.xread({key(answer_id): last_id}, count=500, block=BLOCK_MS)
    entries = found[0][1] if found else []
    return [
        Event(id_.decode(), fields[b"kind"].decode(), json.loads(fields[b"data"]))
        for id_, fields in entries
    ]


def key(answer_id: int) -> str:
    return f"answer:{answer_id}"
