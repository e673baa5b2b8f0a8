"""One pair: everything about it, judge and edit it there, type a new one with its passages."""

from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from finetune import curation, staleness
from finetune.curation import CurationRefused
from finetune.forms import PairForm
from finetune.models import AuditEvent, Dataset, InstructionPair, Review
from finetune.views.review import REASONS, find_dataset, find_pair, judge
from finetune.views.shown import shown
from kb import search
from kb.embedders import EmbeddingError
from kb.models import Chunk, User
from kb.views.requests import PersonRequest, go_to, number_in

FOUND_PASSAGES = 8
MAX_PASSAGES = 20


@dataclass(frozen=True, slots=True)
class Entry:
    """A decision about a pair, with what it changed: (field, before, after)."""

    event: AuditEvent
    changes: list[tuple[str, str, str]]
    reason: str
    seconds: float


@require_GET
def pair(request: PersonRequest, pk: int) -> HttpResponse:
    """Show a pair with where it comes from and all that was decided about it."""
    return _page(request, find_pair(request, pk))


def _page(
    request: PersonRequest, found: InstructionPair, form: PairForm | None = None
) -> HttpResponse:
    context = {
        "dataset": found.dataset,
        "tab": "pairs",
        "pair": found,
        "shown": shown(found, request.user),
        "history": _history(found, request.user),
        "form": form or PairForm(instance=found),
        "is_editing": form is not None,
        "snapshots": staleness.snapshots_with([found.pk]),
        "reject_reasons": REASONS,
        "is_open": found.state in InstructionPair.OPEN,
        "judged": Review.objects.standing().filter(pair=found, reviewer=request.user).exists(),
    }
    return render(request, "finetune/pair.html", context)


def _history(found: InstructionPair, user: User) -> list[Entry]:
    of_pair = AuditEvent.objects.filter(subject_kind="instructionpair", subject_id=found.pk)
    events = curation.unbiased(of_pair, user)
    reviews = {review.pk: review for review in found.reviews.all()}
    return [
        _entry(event, reviews.get(event.detail.get("review", 0)))
        for event in events.order_by("-created_at", "-pk")[:200]
    ]


def _entry(event: AuditEvent, review: Review | None) -> Entry:
    before, after = event.detail.get("before", {}), event.detail.get("after", {})
    if review is not None and review.was_edited:
        before, after = review.before, review.after
    changes = [
        (name, _text(before.get(name)), _text(value))
        for name, value in after.items()
        if before.get(name) != value
    ]
    return Entry(event, changes, event.detail.get("reason", ""), review.seconds if review else 0)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value or "")


@require_POST
def pair_judge(request: PersonRequest, pk: int) -> HttpResponse:
    """Judge a pair on its page."""
    found = find_pair(request, pk)
    try:
        judge(request, found)
    except CurationRefused as refusal:
        messages.error(request, str(refusal))
    return redirect("pair", pk)


@require_POST
def pair_edit(request: PersonRequest, pk: int) -> HttpResponse:
    """Change what a pair says; a decided one has to be judged again."""
    found = find_pair(request, pk)
    form = PairForm(request.POST, instance=InstructionPair.objects.get(pk=found.pk))
    if not form.is_valid():
        return _page(request, found, form)
    try:
        curation.edit(found, request.user, form.cleaned_data)
    except CurationRefused as refusal:
        messages.error(request, str(refusal))
    else:
        messages.success(request, _("Saved."))
    return redirect("pair", pk)


@require_POST
def pair_reopen(request: PersonRequest, pk: int) -> HttpResponse:
    found = find_pair(request, pk)
    try:
        curation.reopen(found, request.user)
    except CurationRefused as refusal:
        messages.error(request, str(refusal))
    return redirect("pair", pk)


@require_http_methods(["GET", "POST"])
def pair_delete(request: PersonRequest, pk: int) -> HttpResponse:
    """Say what holds the pair, then delete it."""
    found = find_pair(request, pk)
    if request.method == "POST":
        curation.delete(found, request.user)
        messages.success(request, _("The pair was deleted."))
        return go_to(request, "dataset", found.dataset_id)
    context = {"pair": found, "snapshots": staleness.snapshots_with([found.pk])}
    return render(request, "finetune/pair_delete.html", context)


@require_http_methods(["GET", "POST"])
def pair_new(request: PersonRequest, pk: int) -> HttpResponse:
    """Type a pair by hand, with the passages it rests on."""
    dataset = find_dataset(request, pk)
    form = PairForm(request.POST or None)
    chunks = _chosen(request)
    is_search = "search" in request.POST
    is_sent = request.method == "POST" and not is_search and form.is_valid()
    if is_sent and (made := _create(request, dataset, form, chunks)):
        messages.success(request, _("The pair waits for its review."))
        return redirect("pair", made.pk)
    query = (request.POST.get("q") or request.POST.get("instruction") or "").strip()
    context = {
        "dataset": dataset,
        "tab": "pairs",
        "form": PairForm(initial=request.POST.dict()) if is_search else form,
        "chosen": chunks,
        "q": request.POST.get("q", ""),
        **_passages(request, query if is_search else "", chunks),
    }
    return render(request, "finetune/pair_new.html", context)


def _create(
    request: PersonRequest, dataset: Dataset, form: PairForm, chunks: list[Chunk]
) -> InstructionPair | None:
    try:
        return curation.create_pair(
            request.user,
            dataset,
            origin=InstructionPair.Origin.TYPED,
            content=form.cleaned_data,
            sources=[
                curation.source_of_chunk(chunk, marker)
                for marker, chunk in enumerate(chunks, start=1)
            ],
        )
    except CurationRefused as refusal:
        form.add_error(None, str(refusal))
        return None


def _chosen(request: PersonRequest) -> list[Chunk]:
    """Give the passages that the form names and the person may read, in the order named."""
    named = [n for text in request.POST.getlist("chunk")[:MAX_PASSAGES] if (n := number_in(text))]
    visible = Chunk.objects.visible_to(request.user).select_related("document", "version")
    found = visible.defer("version__text").in_bulk(named)
    return [found[pk] for pk in dict.fromkeys(named) if pk in found]


def _passages(request: PersonRequest, query: str, chosen: list[Chunk]) -> dict[str, Any]:
    """Search passages for the picker, in everything the person may read."""
    if not query:
        return {"hits": [], "searched": ""}
    taken = {chunk.pk for chunk in chosen}
    try:
        hits = search.search(request.user, query, limit=FOUND_PASSAGES)
    except EmbeddingError as error:
        messages.error(request, str(error))
        hits = []
    return {"hits": [hit for hit in hits if hit.chunk_id not in taken], "searched": query}
