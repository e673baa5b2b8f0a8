"""How much of a body is read. Django writes all of it to the disk before it asks who sent it."""

import json
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from io import BytesIO
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user
from django.core.handlers.asgi import ASGIRequest
from django.utils.module_loading import import_string
from rest_framework.exceptions import APIException
from rest_framework.request import Request

from kb.api.authentication import TokenAuthentication
from kb.api.problems import MEDIA_TYPE, Code, Problem, response_for
from kb.database import in_database

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]


class BodyLimit:
    """An ASGI application that answers 413 where the one behind it would read too much.

    A form with files of somebody who signed in may be as large as an upload, with some room for its
    other fields; everything else as large as Django takes a form without files.
    """

    def __init__(self, application: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await self._application(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        size, limit = 0, settings.DATA_UPLOAD_MAX_MEMORY_SIZE

        async def count(more: int) -> bool:
            """Say whether it is too much by now; who sends it is asked once it is much."""
            nonlocal size, limit
            size += more
            if size > limit == settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
                limit = await in_database(_limit_of, scope)
            return size > limit

        async def counted() -> Mapping[str, Any]:
            message = await receive()
            if await count(len(message.get("body", b""))):
                return {"type": "http.disconnect"}  # Django lets go of what it has read
            return message

        if not await count(_declared(scope)):
            size = 0
            await self._application(scope, counted, send)
        if size > limit:
            await _refuse(scope, send, limit)


def _declared(scope: Scope) -> int:
    value = dict(scope["headers"]).get(b"content-length", b"0")
    return int(value) if value.isdigit() else 0


def _limit_of(scope: Scope) -> int:
    """Give the most bytes that this sender may send."""
    limit: int = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    kind = dict(scope["headers"]).get(b"content-type", b"").lower()
    if kind.startswith(b"multipart/form-data") and _is_known(scope):
        return settings.MAX_UPLOAD_BYTES + limit
    return limit


def _is_known(scope: Scope) -> bool:
    """Whether a person with a session, or a program with a token, sends this."""
    try:
        request = ASGIRequest(scope, BytesIO())
        if TokenAuthentication().authenticate(Request(request)):
            return True
    except (APIException, Problem, UnicodeDecodeError):
        return False
    key = request.COOKIES.get(settings.SESSION_COOKIE_NAME, "")
    engine = import_string(f"{settings.SESSION_ENGINE}.SessionStore")
    request.session = engine(key if key.isalnum() else None)
    return get_user(request).is_authenticated


async def _refuse(scope: Scope, send: Send, limit: int) -> None:
    said = f"This is larger than {limit // 2**20} MB, the most that is taken here."
    if limit == settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
        said += " Only files of somebody who signed in may be larger."
    kind, body = "text/plain; charset=utf-8", said
    if scope["path"].startswith("/api/"):
        kind, body = MEDIA_TYPE, json.dumps(response_for(Code.TOO_LARGE, said).data)
    headers = {"Content-Type": kind, "X-Content-Type-Options": "nosniff"}
    await send(
        {
            "type": "http.response.start",
            "status": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": body.encode()})
