"""One turn of a conversation: how it is shown, followed, stopped, asked again and rated."""

import json
from collections.abc import Callable
from dataclasses import dataclass

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.models import AnonymousUser
from django.http import Http404, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from kb import chat, limits
from kb.chat import QuestionRefused
from kb.database import in_database
from kb.models import Citation, Feedback, Message, User
from kb.models.chat import MessageQuerySet
from kb.rendering import CitationLink, render_answer
from kb.sse import event_stream
from kb.templatetags.tacit import page_range
from kb.views.requests import PersonRequest, go_to

NEAREST = 3
REASONS = [
    gettext_lazy("It is wrong"),
    gettext_lazy("It leaves something out"),
    gettext_lazy("The sources do not say this"),
    gettext_lazy("It does not answer the question"),
    gettext_lazy("It is hard to read"),
]
MERITS = [
    gettext_lazy("It is right and complete"),
    gettext_lazy("It says what the sources say"),
    gettext_lazy("It is short and clear"),
]


# --- How a turn is shown ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SourceLine:
    """A passage below an answer. Closed: the person may not read the document any more."""

    citation: Citation
    is_open: bool
    media_type: str

    @property
    def url(self) -> str:
        return reverse("source_citation", args=[self.citation.pk])

    @property
    def label(self) -> str:
        cited = self.citation
        page = page_range(cited.page_first, cited.page_last, self.media_type)
        name = _("Source %(marker)s: %(title)s") % {"marker": cited.marker, "title": cited.title}
        return f"{name}, {page}" if page else name


@dataclass(frozen=True, slots=True)
class ShownTurn:
    """A message with what its template draws. `branch`: its place among `branches`, from 1."""

    message: Message
    html: SafeString
    cited: list[SourceLine]
    others: list[SourceLine]
    doubts: int
    rating: Feedback | None
    branch: int
    branches: list[int]

    @property
    def earlier(self) -> int | None:
        return self.branches[self.branch - 2] if self.branch > 1 else None

    @property
    def later(self) -> int | None:
        return self.branches[self.branch] if self.branch < len(self.branches) else None

    @property
    def nearest(self) -> list[SourceLine]:
        return [line for line in self.others if line.is_open][:NEAREST]

    @property
    def offers_extractive(self) -> bool:
        """Whether the passages themselves are another way to answer than the one that failed."""
        asked = self.message.trace.get("asked_generator") or settings.GENERATOR_NAME
        return bool(asked != "extractive")


def turns_of(turns: list[Message], user: User) -> list[ShownTurn]:
    """Draw the turns of a thread, with one query for what may still be opened."""
    openable = Citation.objects.openable_by(user).filter(message__in=turns)
    opened = {pk: media or "" for pk, media in openable.values_list("pk", "document__media_type")}
    return [_shown(turn, opened) for turn in turns]


def turn_of(message: Message, user: User) -> ShownTurn:
    message.branch_ids = message.branches()  # type: ignore[attr-defined]
    return turns_of([message], user)[0]


def _shown(message: Message, opened: dict[int, str]) -> ShownTurn:
    lines = [
        SourceLine(citation, citation.pk in opened, opened.get(citation.pk, ""))
        for citation in sorted(message.citations.all(), key=lambda citation: citation.marker)
    ]
    cited = [line for line in lines if line.citation.is_cited]
    doubts = [(s["start"], s["end"]) for s in message.support if not s["supported"]]
    links = {
        line.citation.marker: CitationLink(line.citation.marker, line.url, line.label)
        for line in lines
        if line.is_open
    }
    branches: list[int] = message.branch_ids  # type: ignore[attr-defined]
    return ShownTurn(
        message=message,
        html=render_answer(message.text, links=links, doubts=doubts),
        cited=cited,
        others=[line for line in lines if not line.citation.is_cited],
        doubts=len(doubts),
        rating=next(iter(message.feedback.all()), None),
        branch=branches.index(message.pk) + 1,
        branches=branches,
    )


@require_GET
@never_cache
def message(request: PersonRequest, pk: int) -> HttpResponse:
    """One answer as the conversation shows it; swapped in when its stream has ended."""
    turn = turn_of(get_object_or_404(_answers(request), pk=pk), request.user)
    return render(request, "kb/_answer.html", {"turn": turn})


@require_GET
@never_cache
def message_why(request: PersonRequest, pk: int) -> HttpResponse:
    """How an answer came about: what was searched and found, what wrote it, how long it took."""
    turn = turn_of(get_object_or_404(_answers(request), pk=pk), request.user)
    trace = turn.message.trace
    by_marker = dict(enumerate(trace.get("hits", []), start=1))
    found = [
        (line, by_marker.get(line.citation.marker, {}))
        for line in sorted(turn.cited + turn.others, key=lambda line: line.citation.marker)
    ]
    return render(request, "kb/_why.html", {"turn": turn, "trace": trace, "found": found})


# --- Following --------------------------------------------------------------------------------


@require_GET
async def message_stream(request: PersonRequest, pk: int) -> HttpResponseBase:
    """The answer as server-sent events, from the start or after Last-Event-ID."""
    user = await request.auser()

    async def may_follow() -> bool:
        return await in_database(_may_follow, user, pk)

    if not await may_follow():
        raise Http404
    chat.start(pk)  # a pending answer whose process died before it began is taken up here
    return event_stream(pk, request.headers.get("Last-Event-ID", "0"), may_follow)


def _may_follow(user: User | AnonymousUser, pk: int) -> bool:
    """Look again, so that a person who was removed stops reading within seconds."""
    answers = Message.objects.visible_to(user).filter(role=Message.Role.ASSISTANT)
    return answers.filter(pk=pk, conversation__user__is_active=True).exists()


# --- Acting on a turn -------------------------------------------------------------------------


@require_POST
def message_stop(request: PersonRequest, pk: int) -> HttpResponse:
    answer = get_object_or_404(_answers(request), pk=pk)
    answer.request_stop()
    if request.htmx:
        return HttpResponse(status=204)
    return redirect("conversation", answer.conversation_id)


@require_http_methods(["GET", "POST"])
async def message_edit(request: PersonRequest, pk: int) -> HttpResponse:
    """Ask a question again in other words; the first wording stays as a branch."""
    if request.method != "POST":
        return await in_database(_edit_form, request, pk)
    return await _ask_again(request, _edit, pk)


@require_POST
async def message_regenerate(request: PersonRequest, pk: int) -> HttpResponse:
    """Answer the same question again; the answer there is stays as a branch."""
    return await _ask_again(request, _regenerate, pk)


async def _ask_again(
    request: PersonRequest, write: Callable[[PersonRequest, int], Message], pk: int
) -> HttpResponse:
    try:
        answer = await in_database(write, request, pk)
    except QuestionRefused as refused:
        return await in_database(refuse, request, str(refused), "ask")
    chat.start(answer.pk)
    return go_to(request, "conversation", answer.conversation_id)


def _edit_form(request: PersonRequest, pk: int) -> HttpResponse:
    turn = turn_of(get_object_or_404(_questions(request), pk=pk), request.user)
    template = "kb/_question.html" if "cancel" in request.GET else "kb/_question_edit.html"
    return render(request, template, {"turn": turn, "longest": chat.MAX_QUESTION})


def _edit(request: PersonRequest, pk: int) -> Message:
    question = get_object_or_404(_questions(request), pk=pk)
    count_question(request.user)
    return chat.edit(question, request.POST.get("text", ""))


def _regenerate(request: PersonRequest, pk: int) -> Message:
    answer = get_object_or_404(_answers(request), pk=pk)
    if not answer.is_final:
        raise QuestionRefused(_("This answer is still being written. Stop it first."))
    count_question(request.user)
    wanted = "extractive" if request.POST.get("generator") == "extractive" else ""
    return chat.regenerate(answer, generator=wanted)


@require_http_methods(["GET", "POST"])
def message_rate(request: PersonRequest, pk: int) -> HttpResponse:
    """Keep what the person thinks of an answer; 0 takes it back, the form asks for reasons."""
    answer = get_object_or_404(_answers(request), pk=pk)
    if request.method != "POST":
        return render(request, "kb/_rate.html", _rating_form(request, answer))
    said = _("Thank you. The curators see this.")
    if request.POST.get("value") == "0":
        answer.take_rating_back(request.user)
        said = _("Your rating is taken back.")
    else:
        value = Feedback.Value.DOWN if request.POST.get("value") == "-1" else Feedback.Value.UP
        parts = [*request.POST.getlist("reason"), request.POST.get("detail", "").strip()]
        reason = ". ".join(part.rstrip(".") for part in parts if part)
        answer.rate(request.user, value, reason=reason, corrected=request.POST.get("corrected", ""))
    if not request.htmx:
        return redirect("conversation", answer.conversation_id)
    response = render(request, "kb/_answer_actions.html", {"turn": turn_of(answer, request.user)})
    response.headers["HX-Trigger"] = json.dumps({"toast": {"value": said}, "close-sheet": ""})
    return response


def _rating_form(request: PersonRequest, answer: Message) -> dict[str, object]:
    """Give what the form shows; what the person said before, if they rated it the same way."""
    turn = turn_of(answer, request.user)
    is_right = request.GET.get("value") == "1"
    reasons = [str(reason) for reason in (MERITS if is_right else REASONS)]
    value = Feedback.Value.UP if is_right else Feedback.Value.DOWN
    given = turn.rating if turn.rating and turn.rating.value == value else None
    said = given.reason.split(". ") if given else []
    return {
        "turn": turn,
        "value": value,
        "reasons": [(reason, reason in said) for reason in reasons],
        "detail": ". ".join(part for part in said if part not in reasons),
        "corrected": given.corrected_answer if given else "",
    }


@require_http_methods(["GET", "POST"])
def message_compare(request: PersonRequest, pk: int) -> HttpResponse:
    """Two answers to one question beside each other; choosing one rates both."""
    answer = get_object_or_404(_answers(request), pk=pk)
    others = list(_others(request, answer))
    named = request.POST.get("over") or request.GET.get("with", "")
    other = next((one for one in others if str(one.pk) == named), None)
    if request.method == "POST":
        if other is None:
            raise Http404
        answer.prefer_to(other, request.user)
        messages.success(request, _("Thank you. The curators see which answer is better."))
        address = reverse("conversation", args=[answer.conversation_id])
        return go_to(request, f"{address}?leaf={answer.pk}#m{answer.pk}")
    if not others:
        raise Http404
    if other is None:  # the one before it, or the one after the first
        other = next((one for one in reversed(others) if one.pk < answer.pk), others[0])
    pair = sorted((answer, other), key=lambda one: one.pk)
    return render(
        request,
        "kb/_compare.html",
        {
            "question": answer.parent,
            "answer": answer,
            "turns": [turn_of(one, request.user) for one in pair],
            "others": [turn_of(one, request.user) for one in others if one.pk != other.pk],
        },
    )


def _others(request: PersonRequest, answer: Message) -> MessageQuerySet:
    """Give the finished answers to the same question, oldest first."""
    same = _answers(request).filter(parent=answer.parent_id).exclude(pk=answer.pk)
    finished = same.filter(state__in=[Message.State.DONE, Message.State.STOPPED])
    return finished.exclude(text="").order_by("pk")


# --- Shared -----------------------------------------------------------------------------------


def count_question(user: User) -> None:
    """Raise QuestionRefused when the person asks too fast."""
    if not limits.allow("ask", str(user.pk)):
        raise QuestionRefused(_("Too many questions within a minute. Wait a little and ask again."))


def refuse(request: PersonRequest, sentence: str, to: str, *args: object) -> HttpResponse:
    """Say why a question was not taken; with JavaScript what was typed stays in its box."""
    if request.htmx:
        said = json.dumps({"toast": {"value": sentence}})
        return HttpResponse(status=422, headers={"HX-Trigger": said})
    messages.error(request, sentence)
    return redirect(to, *args)


def _answers(request: PersonRequest) -> MessageQuerySet:
    answers = Message.objects.visible_to(request.user).filter(role=Message.Role.ASSISTANT)
    return answers.select_related("conversation", "parent")


def _questions(request: PersonRequest) -> MessageQuerySet:
    return Message.objects.visible_to(request.user).filter(role=Message.Role.USER)
