"""Conversations: private to the person who started them."""

from collections.abc import Sequence
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.response import Response

from kb import chat
from kb.api.base import ApiView, CallerRequest, find
from kb.api.inputs import ConversationInput, ConversationQuery, FiltersInput, ThreadQuery
from kb.api.problems import Code, Problem
from kb.api.turns import ConversationSerializer, ThreadSerializer, describe
from kb.models import ApiToken, Collection, Conversation, User

READ, ASK = (ApiToken.Scope.READ,), (ApiToken.Scope.ASK,)
# A token that may only ask still has to read what it asked.
READ_OR_ASK = READ + ASK


class Conversations(ApiView):
    scopes = {"GET": READ_OR_ASK, "POST": ASK}
    query_forms = {"GET": ConversationQuery}
    paged = True

    @extend_schema(responses=ConversationSerializer(many=True))
    def get(self, request: CallerRequest) -> Response:
        """List your conversations, the latest first."""
        conversations = _own(request.user).prefetch_related("collections")
        if words := self.query().get("search"):
            conversations = conversations.matching(words)  # type: ignore[attr-defined]
        return self.page(conversations.order_by("-updated_at", "-pk"), ConversationSerializer)

    @extend_schema(request=ConversationInput, responses={201: ConversationSerializer})
    def post(self, request: CallerRequest) -> Response:
        """Start a conversation; its title is taken from the first question unless given."""
        conversation = Conversation(user=request.user)
        _change(conversation, self.body(ConversationInput))
        return Response(ConversationSerializer(conversation).data, status=201)


class OneConversation(ApiView):
    scopes = {"GET": READ_OR_ASK, "PATCH": ASK, "DELETE": ASK}
    query_forms = {"GET": ThreadQuery}

    @extend_schema(responses=ThreadSerializer)
    def get(self, request: CallerRequest, pk: int) -> Response:
        """Read a conversation with one branch of its turns."""
        conversation = find(_own(request.user), pk)
        leaf = self.query().get("leaf")
        conversation.thread = describe(_thread(conversation, leaf), request.user)  # type: ignore[attr-defined]
        return Response(ThreadSerializer(conversation).data)

    @extend_schema(request=ConversationInput, responses=ConversationSerializer)
    def patch(self, request: CallerRequest, pk: int) -> Response:
        """Rename a conversation, or change where it looks; fields left out stay."""
        conversation = find(_own(request.user), pk)
        _change(conversation, self.body(ConversationInput))
        return Response(ConversationSerializer(conversation).data)

    @extend_schema(responses={204: None})
    def delete(self, request: CallerRequest, pk: int) -> Response:
        """Delete a conversation with its turns."""
        find(_own(request.user), pk).delete()
        return Response(status=204)


def _own(user: User) -> QuerySet[Conversation]:
    return Conversation.objects.visible_to(user)


def _thread(conversation: Conversation, leaf: int | None) -> list[Any]:
    thread = chat.thread(conversation, leaf)
    if leaf and not thread:
        raise Problem(Code.NOT_FOUND)
    return thread


def _change(conversation: Conversation, wanted: dict[str, Any]) -> None:
    """Save what a ConversationInput names."""
    collections = _readable(conversation.user, wanted.get("collections", ()))
    conversation.title = wanted.get("title", conversation.title)
    if "filters" in wanted:
        # Dates as text: the column is JSON.
        conversation.filters = dict(FiltersInput(wanted["filters"]).data)
    with transaction.atomic():
        conversation.save()
        if "collections" in wanted:
            conversation.collections.set(collections)


def _readable(user: User, ids: Sequence[int]) -> list[Collection]:
    found = list(Collection.objects.readable_by(user).filter(pk__in=ids))
    if len(found) != len(set(ids)):
        sentence = ErrorDetail("You may not read all of these.", code="does_not_exist")
        raise ValidationError({"collections": [sentence]})
    return found
