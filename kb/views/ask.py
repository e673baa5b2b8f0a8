"""Asking: the conversations of a person, and the questions put in them."""

from dataclasses import replace

from django.contrib import messages
from django.db.models import Q
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import (
    require_GET,
    require_http_methods,
    require_POST,
    require_safe,
)

from kb import chat
from kb.chat import QuestionRefused
from kb.database import in_database
from kb.models import Chunk, Conversation, Document, Message, User
from kb.models.chat import ConversationQuerySet
from kb.views.answers import count_question, refuse, turn_of, turns_of
from kb.views.context import scope
from kb.views.narrowing import Narrowing, keep_narrowing, narrowing_kept, narrowing_of
from kb.views.requests import PersonRequest, go_to, number_in

LISTED = 60
EXAMPLES = 3
MAX_EXAMPLE = 110
# Passages of each document that an example may come from.
LOOKED_AT = 6
MAX_TITLE = 200


# --- Pages ------------------------------------------------------------------------------------


@require_safe
def ask(request: PersonRequest) -> HttpResponse:
    """An empty conversation: what to ask, and a composer."""
    narrowing = narrowing_of(request.GET, request.user)
    if not narrowing.collections and (chosen := scope(request)):
        narrowing = replace(narrowing, collections=(chosen,))
    context = {
        "examples": _examples(request.user, narrowing),
        "question": request.GET.get("q", "")[: chat.MAX_QUESTION],
        **_composer(narrowing),
        **_list(request),
    }
    return render(request, "kb/ask.html", context)


@require_GET
def conversation(request: PersonRequest, pk: int) -> HttpResponse:
    chosen = get_object_or_404(_conversations(request).select_related("user"), pk=pk)
    turns = chat.thread(chosen, number_in(request.GET.get("leaf", "")))
    context = {
        "conversation": chosen,
        "turns": turns_of(turns, request.user),
        "leaf": turns[-1].pk if turns else "",
        **_composer(narrowing_kept(chosen)),
        **_list(request),
    }
    return render(request, "kb/conversation.html", context)


@require_GET
def conversations(request: PersonRequest) -> HttpResponse:
    """The list in the rail, for what was typed above it."""
    return render(request, "kb/_conversations.html", _list(request))


def _composer(narrowing: Narrowing) -> dict[str, object]:
    return {"narrowing": narrowing, "longest": chat.MAX_QUESTION}


def _list(request: PersonRequest) -> dict[str, object]:
    words = request.GET.get("find", "").strip()
    found = _conversations(request).matching(words) if words else _conversations(request)
    rows = list(found.order_by("-updated_at")[: LISTED + 1])
    return {"conversations": rows[:LISTED], "more": len(rows) > LISTED, "find": words}


def _conversations(request: PersonRequest) -> ConversationQuerySet:
    return Conversation.objects.visible_to(request.user)


def _examples(user: User, narrowing: Narrowing) -> list[str]:
    """Word a few first questions from the headings of what the person can read."""
    recent = Document.objects.visible_to(user).filter(state=Document.State.READY)
    if narrowing.collections:
        recent = recent.filter(collection__in=narrowing.collections)
    newest = list(recent.order_by("-updated_at").values_list("pk", flat=True)[: 4 * EXAMPLES])
    headed = Chunk.objects.visible_to(user).filter(
        ~Q(heading_path=[]), document__in=newest, position__lt=LOOKED_AT
    )
    worded: dict[str, str] = {}
    places = headed.order_by("-document__updated_at", "position")
    for title, path in places.values_list("document__title", "heading_path"):
        heading = path[-1]
        if title not in worded and heading.casefold() != title.casefold():
            worded[title] = _("What does “%(title)s” say about %(heading)s?") % {
                "title": title,
                "heading": heading,
            }
    return [question for question in worded.values() if len(question) < MAX_EXAMPLE][:EXAMPLES]


# --- Asking -----------------------------------------------------------------------------------


@require_POST
async def conversation_begin(request: PersonRequest) -> HttpResponse:
    """Ask the first question of a new conversation."""
    try:
        answer = await in_database(_begin, request)
    except QuestionRefused as refused:
        return await in_database(refuse, request, str(refused), "ask")
    chat.start(answer.pk)
    return go_to(request, "conversation", answer.conversation_id)


@require_POST
async def conversation_ask(request: PersonRequest, pk: int) -> HttpResponse:
    """Ask below the turn that the page shows last; gives the question and its pending answer."""
    try:
        answer = await in_database(_continue, request, pk)
    except QuestionRefused as refused:
        return await in_database(refuse, request, str(refused), "conversation", pk)
    chat.start(answer.pk)
    if not request.htmx:
        return redirect("conversation", pk)
    return await in_database(_render_exchange, request, answer)


def _begin(request: PersonRequest) -> Message:
    count_question(request.user)
    begun = Conversation.objects.create(user=request.user)
    try:
        keep_narrowing(begun, narrowing_of(request.POST, request.user))
        return chat.ask(begun, request.POST.get("text", ""))
    except QuestionRefused:
        begun.delete()
        raise


def _continue(request: PersonRequest, pk: int) -> Message:
    going_on = get_object_or_404(_conversations(request), pk=pk)
    count_question(request.user)
    leaf = number_in(request.POST.get("leaf", ""))
    parent = going_on.messages.filter(pk=leaf).first() if leaf else None
    if parent is not None and not parent.is_final:
        raise QuestionRefused(
            _("The answer above is still being written. Stop it, or wait until it has ended.")
        )
    keep_narrowing(going_on, narrowing_of(request.POST, request.user))
    return chat.ask(going_on, request.POST.get("text", ""), parent=parent)


def _render_exchange(request: PersonRequest, answer: Message) -> HttpResponse:
    assert answer.parent is not None
    turns = [turn_of(answer.parent, request.user), turn_of(answer, request.user)]
    return render(request, "kb/_exchange.html", {"turns": turns, "leaf": answer.pk})


# --- Keeping order ----------------------------------------------------------------------------


@require_http_methods(["GET", "POST"])
def conversation_rename(request: PersonRequest, pk: int) -> HttpResponse:
    renamed = get_object_or_404(_conversations(request), pk=pk)
    if request.method != "POST":
        return render(request, "kb/_conversation_rename.html", {"conversation": renamed})
    title = " ".join(request.POST.get("title", "").split())
    if title:
        renamed.title = title[:MAX_TITLE]
        renamed.save(update_fields=["title"])
    return go_to(request, "conversation", pk)


@require_http_methods(["GET", "POST"])
def conversation_delete(request: PersonRequest, pk: int) -> HttpResponse:
    deleted = get_object_or_404(_conversations(request), pk=pk)
    if request.method != "POST":
        return render(request, "kb/_conversation_delete.html", {"conversation": deleted})
    deleted.delete()
    messages.success(request, _("The conversation is deleted."))
    return go_to(request, "ask")
