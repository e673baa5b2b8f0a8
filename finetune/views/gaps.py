"""Knowledge gaps: what people ask and no document says, who could answer, and what was done."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Count, F, Max, Min, QuerySet
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_GET, require_POST

from finetune import gaps as journey
from finetune.gaps import GapRefused
from finetune.models import GapQuestion, KnowledgeGap
from kb.models import Document, User
from kb.views.context import scope
from kb.views.requests import PersonRequest, number_in

GAPS_A_PAGE = 20
MOST_TO_MERGE = 200
State = KnowledgeGap.State
SHOWN = {
    "": gettext_lazy("Open"),
    State.ASSIGNED: gettext_lazy("Assigned"),
    State.CLOSED: gettext_lazy("Closed"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """A gap in the list. `has_news`: a document came since it was last asked."""

    gap: Any
    has_news: bool
    could_answer: list[User]


@require_GET
def gaps(request: PersonRequest) -> HttpResponse:
    """List gaps, those asked most often first."""
    found = _gaps(request)
    show = request.GET.get("show", "") if request.GET.get("show") in SHOWN else ""
    narrowed = _narrowed(found, show).select_related("collection", "assigned_to")
    counted = narrowed.annotate(
        asked=Count("questions"),
        first=Min("questions__created_at"),
        last=Max("questions__created_at"),
    )
    page = Paginator(counted.order_by("-asked", "-last", "pk"), GAPS_A_PAGE).get_page(
        request.GET.get("page")
    )
    context = {
        "shows": [(name, label, _narrowed(found, name).count()) for name, label in SHOWN.items()],
        "show": show,
        "page": page,
        "rows": _rows(list(page.object_list)),
    }
    return render(request, "finetune/gaps.html", context)


def _gaps(request: PersonRequest) -> QuerySet[KnowledgeGap]:
    found = KnowledgeGap.objects.visible_to(request.user).named_for(request.user)
    chosen = scope(request)
    return found.filter(collection=chosen) if chosen else found


def _narrowed(found: QuerySet[KnowledgeGap], show: str) -> QuerySet[KnowledgeGap]:
    return found.filter(state=show) if show else found.exclude(state=State.CLOSED)


def _rows(found: list[Any]) -> list[Row]:
    """Complete gaps for the list, in three queries however many there are."""
    collections = {gap.collection_id for gap in found}
    newest: dict[int, datetime | None] = dict(
        Document.objects.filter(collection__in=collections)
        .order_by()
        .values_list("collection")
        .annotate(at=Max("current_version__published_at"))
    )
    curators = journey.curators_of(collections)
    return [
        Row(
            gap,
            bool((at := newest.get(gap.collection_id)) and gap.last and at > gap.last),
            curators[gap.collection_id],
        )
        for gap in found
    ]


@require_GET
def gap(request: PersonRequest, pk: int) -> HttpResponse:
    """Show a gap with its questions, the nearest passages, and who could answer."""
    found = _gap(request, pk)
    return _page(request, found)


def _page(request: PersonRequest, found: KnowledgeGap) -> HttpResponse:
    hits = journey.near_passages(found, request.user)
    first, last = journey.asked_between(found)
    others = KnowledgeGap.objects.visible_to(request.user).filter(collection=found.collection_id)
    # The number of questions is no secret of theirs; their text is, where a passage is closed.
    questions = GapQuestion.objects.visible_to(request.user).filter(gap=found)
    people = journey.who_could_answer(found, hits)
    context = {
        "gap": found,
        "questions": questions.order_by("-created_at").select_related("triage"),
        "count": found.questions.count(),
        "first": first,
        "last": last,
        "hits": hits[:3],
        "answer": journey.answered_by(found, hits) if found.state != State.CLOSED else None,
        "people": people,
        "others": others.exclude(pk=found.pk)
        .exclude(state=State.CLOSED)
        .named_for(request.user)
        .order_by(F("name"), "pk")[:MOST_TO_MERGE],
        "is_closed": found.state == State.CLOSED,
    }
    return render(request, "finetune/gap.html", context)


def _gap(request: PersonRequest, pk: int) -> KnowledgeGap:
    visible = KnowledgeGap.objects.visible_to(request.user).named_for(request.user)
    return get_object_or_404(visible.select_related("collection", "assigned_to"), pk=pk)


@require_POST
def gap_edit(request: PersonRequest, pk: int) -> HttpResponse:
    """Change title, note and who sees to it."""
    found = _gap(request, pk)
    chosen = number_in(request.POST.get("assigned_to", ""))
    person = journey.may_see_to(found).filter(pk=chosen).first() if chosen else None
    try:
        journey.change(
            found,
            request.user,
            title=_title(request, found),
            note=request.POST.get("note", "").replace("\0", "")[:4_000],
            assigned_to=person,
        )
    except GapRefused as refusal:
        messages.error(request, str(refusal))
    else:
        messages.success(request, _("Saved."))
    return redirect("gap", pk)


def _title(request: PersonRequest, found: KnowledgeGap) -> str:
    """Read the title; as the person was shown it, or empty where they were shown none, it stays."""
    title = request.POST.get("title", "").replace("\0", "").strip()[:500]
    return found.title if _bare(title) == _bare(found.name[:500]) else title


def _bare(text: str) -> str:
    # A field of one line drops the line breaks of a question.
    return "".join(text.split())


@require_POST
def gap_close(request: PersonRequest, pk: int) -> HttpResponse:
    """Close a gap, or open a closed one again."""
    found = _gap(request, pk)
    if found.state == State.CLOSED:
        journey.reopen(found, request.user)
        messages.success(request, _("The gap is open again."))
        return redirect("gap", pk)
    journey.close(found, request.user)
    messages.success(request, _("The gap was closed."))
    return redirect("gaps")


@require_POST
def gap_merge(request: PersonRequest, pk: int) -> HttpResponse:
    """Put a gap's questions to another gap of the collection."""
    found = _gap(request, pk)
    chosen = number_in(request.POST.get("into", "")) or 0
    into = KnowledgeGap.objects.visible_to(request.user).filter(pk=chosen).first()
    try:
        if into is None:
            raise GapRefused(_("Choose the gap to merge it with."))
        journey.merge(found, into, request.user)
    except GapRefused as refusal:
        messages.error(request, str(refusal))
        return redirect("gap", pk)
    messages.success(request, _("Merged."))
    return redirect("gap", into.pk)


@require_POST
def gap_split(request: PersonRequest, pk: int) -> HttpResponse:
    """Give one question of a gap a gap of its own; `pk` is the question's."""
    visible = GapQuestion.objects.visible_to(request.user)
    question = get_object_or_404(visible.select_related("gap__collection"), pk=pk)
    try:
        made = journey.split(question, request.user)
    except GapRefused as refusal:
        messages.error(request, str(refusal))
        return redirect("gap", question.gap_id)
    messages.success(request, _("The question has a gap of its own now."))
    return redirect("gap", made.pk)
