"""Turns: ask, follow the answer, stop it, ask again, rate it."""

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any

from django.contrib.auth import get_user
from django.http import HttpRequest, StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.response import Response

from kb import chat
from kb.api.base import ApiView, AsyncApiView, CallerRequest, find
from kb.api.inputs import EditInput, QuestionInput, RatingInput, RegenerateInput
from kb.api.problems import Code, Problem
from kb.api.turns import AskedSerializer, MessageSerializer, RatingSerializer, describe, with_parts
from kb.api.views.conversations import ASK, READ_OR_ASK
from kb.database import in_database
from kb.models import ApiToken, Conversation, Message, User
from kb.sse import event_stream

# `wait` answers with what there is after this long; the stream goes on.
LONGEST_WAIT_S = 120
LAST_EVENT = OpenApiParameter(
    "Last-Event-ID", str, OpenApiParameter.HEADER, description="Go on after this event."
)
EVENTS = """Follow an answer as server-sent events, from its beginning or from `Last-Event-ID` on.

`status` {state: searching or answering}, `sources` {sources: [{marker, title, heading_path,
page}]}, `text` {text}: more of the answer, `failed` {error, retryable}, and `end` {state}, after
which the stream closes. The stream is kept for an hour; afterwards read the message itself.
"""


class Messages(AsyncApiView):
    scopes = {"GET": READ_OR_ASK, "POST": ASK}
    limits = {"POST": "ask"}
    refusals = {"POST": (Code.QUESTION_REFUSED, Code.NOT_AN_ANSWER, Code.ANSWER_UNFINISHED)}
    paged = True

    @extend_schema(responses=MessageSerializer(many=True))
    async def get(self, request: CallerRequest, pk: int) -> Response:
        """List all turns of a conversation, of every branch, oldest first."""
        return await in_database(self._list, request.user, pk)

    @extend_schema(request=QuestionInput, responses={201: AskedSerializer}, operation_id="ask")
    async def post(self, request: CallerRequest, pk: int) -> Response:
        """Ask.

        Answers at once with the question, its pending answer and where to follow it; with
        `wait` when the answer is finished, or after two minutes with what there is.
        """
        wanted = self.body(QuestionInput)
        answer_pk = await in_database(_ask, request.user, pk, wanted)
        return await _asked(request.user, answer_pk, wanted)

    def _list(self, user: User, pk: int) -> Response:
        conversation = find(Conversation.objects.visible_to(user), pk)
        turns = with_parts(conversation.messages.order_by("pk"), user)
        found = describe(self.paginate_queryset(turns) or [], user)
        return self.get_paginated_response(MessageSerializer(found, many=True).data)


class OneMessage(ApiView):
    scopes = {"GET": READ_OR_ASK}

    @extend_schema(responses=MessageSerializer)
    def get(self, request: CallerRequest, pk: int) -> Response:
        """Read a turn; an answer with its citations, support and trace."""
        return Response(_shown(request.user, pk))


class Stream(AsyncApiView):
    scopes = {"GET": READ_OR_ASK}
    refusals = {"GET": (Code.NOT_AN_ANSWER,)}

    @extend_schema(
        responses={(200, "text/event-stream"): OpenApiTypes.STR},
        parameters=[LAST_EVENT],
        operation_id="follow_answer",
    )
    async def get(self, request: CallerRequest, pk: int) -> StreamingHttpResponse:
        answer = await in_database(_answer, request.user, pk)
        if not answer.is_final:
            chat.start(pk)
        may_read = partial(in_database, _may_still_read, request, pk)
        return event_stream(pk, request.headers.get("Last-Event-ID", "0"), may_read)

    get.__doc__ = EVENTS


class Stop(ApiView):
    scopes = {"POST": ASK}
    refusals = {"POST": (Code.NOT_AN_ANSWER,)}

    @extend_schema(request=None, responses={202: MessageSerializer})
    def post(self, request: CallerRequest, pk: int) -> Response:
        """Stop an answer; what was written stays. One that has ended is left as it is."""
        _answer(request.user, pk).request_stop()
        return Response(_shown(request.user, pk), status=202)


class Regenerate(AsyncApiView):
    scopes = {"POST": ASK}
    limits = {"POST": "ask"}
    refusals = {"POST": (Code.NOT_AN_ANSWER, Code.ANSWER_UNFINISHED)}

    @extend_schema(request=RegenerateInput, responses={201: AskedSerializer})
    async def post(self, request: CallerRequest, pk: int) -> Response:
        """Answer the same question again, beside the answer there is."""
        wanted = self.body(RegenerateInput)
        answer_pk = await in_database(_regenerate, request.user, pk, wanted)
        return await _asked(request.user, answer_pk, wanted)


class Edit(AsyncApiView):
    scopes = {"POST": ASK}
    limits = {"POST": "ask"}
    refusals = {"POST": (Code.QUESTION_REFUSED, Code.NOT_A_QUESTION)}

    @extend_schema(request=EditInput, responses={201: AskedSerializer})
    async def post(self, request: CallerRequest, pk: int) -> Response:
        """Ask a question again in other words: a branch beside it."""
        wanted = self.body(EditInput)
        answer_pk = await in_database(_edit, request.user, pk, wanted)
        return await _asked(request.user, answer_pk, wanted)


class Rating(ApiView):
    scopes = {"PUT": ASK, "DELETE": ASK}
    refusals = {"PUT": (Code.NOT_AN_ANSWER,), "DELETE": (Code.NOT_AN_ANSWER,)}

    @extend_schema(request=RatingInput, responses=RatingSerializer)
    def put(self, request: CallerRequest, pk: int) -> Response:
        """Rate an answer: 1 right, -1 wrong, with a reason and what would have been right."""
        wanted, answer = self.body(RatingInput), _answer(request.user, pk)
        rating = answer.rate(
            request.user,
            wanted["value"],
            reason=wanted.get("reason", ""),
            corrected=wanted.get("corrected_answer", ""),
        )
        return Response(RatingSerializer(rating).data)

    @extend_schema(responses={204: None})
    def delete(self, request: CallerRequest, pk: int) -> Response:
        """Take your rating back."""
        _answer(request.user, pk).take_rating_back(request.user)
        return Response(status=204)


def _message(user: User, pk: int) -> Message:
    messages = Message.objects.visible_to(user)
    return find(messages.select_related("parent", "conversation"), pk)


def _answer(user: User, pk: int) -> Message:
    message = _message(user, pk)
    if message.role != Message.Role.ASSISTANT:
        raise Problem(Code.NOT_AN_ANSWER)
    return message


def _finished(answer: Message) -> Message:
    if not answer.is_final:
        raise Problem(Code.ANSWER_UNFINISHED)
    return answer


def _ask(user: User, conversation_pk: int, wanted: dict[str, Any]) -> int:
    conversation = find(Conversation.objects.visible_to(user), conversation_pk)
    return chat.ask(conversation, wanted["text"], parent=_parent(conversation, wanted)).pk


def _parent(conversation: Conversation, wanted: dict[str, Any]) -> Message | None:
    """The answer a question goes on from; None for the first one or a fresh start."""
    if "parent" not in wanted:
        newest = conversation.messages.filter(role=Message.Role.ASSISTANT).order_by("-pk").first()
        return _finished(newest) if newest else None
    if wanted["parent"] is None:
        return None
    parent = find(conversation.messages.all(), wanted["parent"])
    if parent.role != Message.Role.ASSISTANT:
        raise Problem(Code.NOT_AN_ANSWER)
    return _finished(parent)


def _regenerate(user: User, pk: int, wanted: dict[str, Any]) -> int:
    answer = _finished(_answer(user, pk))
    return chat.regenerate(answer, generator=wanted.get("generator", "")).pk


def _edit(user: User, pk: int, wanted: dict[str, Any]) -> int:
    question = _message(user, pk)
    if question.role != Message.Role.USER:
        raise Problem(Code.NOT_A_QUESTION)
    return chat.edit(question, wanted["text"]).pk


async def _asked(user: User, answer_pk: int, wanted: dict[str, Any]) -> Response:
    """Set the answer going, wait for it if wanted, and show it with its question."""
    chat.start(answer_pk)
    if wanted.get("wait"):
        with suppress(TimeoutError):  # then the answer is shown as far as it is
            await asyncio.wait_for(_end_of(answer_pk), LONGEST_WAIT_S)
    return Response(await in_database(_exchange, user, answer_pk), status=201)


async def _end_of(answer_pk: int) -> None:
    async for _ in chat.tail(answer_pk):
        pass


def _exchange(user: User, answer_pk: int) -> dict[str, Any]:
    answer = find(with_parts(Message.objects.visible_to(user), user), answer_pk)
    question = find(with_parts(Message.objects.visible_to(user), user), answer.parent_id or 0)
    describe([question, answer], user)
    shown = MessageSerializer(answer).data
    return {
        "question": MessageSerializer(question).data,
        "answer": shown,
        "stream": shown["stream"],
    }


def _shown(user: User, pk: int) -> dict[str, Any]:
    message = find(with_parts(Message.objects.visible_to(user), user), pk)
    data: dict[str, Any] = MessageSerializer(describe([message], user)[0]).data
    return data


def _may_still_read(request: CallerRequest, answer_pk: int) -> bool:
    """Look again whether the token or session still holds and the message is still there."""
    if isinstance(request.auth, ApiToken):
        holds = ApiToken.objects.usable().filter(pk=request.auth.pk).exists()
        return holds and Message.objects.visible_to(request.user).filter(pk=answer_pk).exists()
    fresh = HttpRequest()
    fresh.session = type(request.session)(request.session.session_key)
    return Message.objects.visible_to(get_user(fresh)).filter(pk=answer_pk).exists()
