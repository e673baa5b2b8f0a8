"""Rated answers: the list, and one after the other with what can be done about it."""

from dataclasses import dataclass

from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Count
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_GET, require_POST

from finetune import preferences, triage
from finetune.curation import CurationRefused
from finetune.markers import carried_share, source
from finetune.models import Dataset, TriageItem
from finetune.models.triage import TriageItemQuerySet
from finetune.triage import TriageRefused
from kb.embedders import EmbeddingError
from kb.models import Chunk, Citation, Collection, User
from kb.search import Filters, Hit, search
from kb.views.context import scope
from kb.views.requests import PersonRequest, number_in

ITEMS_A_PAGE = 30
FOUND = 6
MAX_OUTPUT = 20_000
SHOWN = {
    "": gettext_lazy("To sort"),
    "up": gettext_lazy("Rated right"),
    "done": gettext_lazy("Done"),
    "dismissed": gettext_lazy("Dismissed"),
}
EMBEDDER_AWAY = gettext_lazy("The embedding model is away. Try again in a moment.")


@require_GET
def triage_list(request: PersonRequest) -> HttpResponse:
    """List the rated answers of the collections that the person curates."""
    items = _items(request)
    show = request.GET.get("show", "") if request.GET.get("show") in SHOWN else ""
    guess = request.GET.get("guess", "")
    narrowed = _narrowed(items, show).select_related("collection", "pair", "decided_by")
    sorted_by = "category" if show == "done" else "guess"
    guesses = dict(narrowed.order_by().values_list(sorted_by).annotate(n=Count("pk")))
    if guess in TriageItem.Category.values and guess:
        narrowed = narrowed.filter(**{sorted_by: guess})
    page = Paginator(narrowed.order_by("-created_at", "-pk"), ITEMS_A_PAGE)
    context = {
        "shows": [(name, label, _narrowed(items, name).count()) for name, label in SHOWN.items()],
        "show": show,
        "guesses": [
            (category.value, category.label, guesses.get(category.value, 0))
            for category in TriageItem.Category
            if category.value
        ],
        "guess": guess,
        "page": page.get_page(request.GET.get("page")),
        "total": items.count(),
    }
    return render(request, "finetune/triage.html", context)


def _items(request: PersonRequest) -> TriageItemQuerySet:
    items = TriageItem.objects.visible_to(request.user)
    chosen = scope(request)
    return items.filter(collection=chosen) if chosen else items


def _narrowed(items: TriageItemQuerySet, show: str) -> TriageItemQuerySet:
    if show == "up":
        return items.open().filter(signal=TriageItem.Signal.UP)
    if show:
        return items.filter(state=show)
    return items.to_sort()


# --- One answer ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage that the answer was offered; `is_open`: its document can be opened."""

    citation: Citation
    is_open: bool


@dataclass(frozen=True, slots=True)
class Candidate:
    """A passage that search finds now. `is_new`: the answer was not offered it."""

    hit: Hit
    is_new: bool
    is_chosen: bool


@require_GET
def triage_item(request: PersonRequest, pk: int) -> HttpResponse:
    """Show a rated answer, what may have gone wrong, and what can be done about it."""
    item = _item(request, pk)
    passages = triage.passages_of(item, request.user)
    query = request.GET.get("q", "").strip() or f"{item.question} {item.corrected_answer}".strip()
    content, _rows = triage.prefill(item, request.user)
    context = {
        "item": item,
        "passages": [Passage(one, one.document_id is not None) for one in passages],
        "hidden": item.message.citations.count() - len(passages),
        "q": query,
        "candidates": _candidates(item, request.user, query, passages),
        "output": content["output"],
        "datasets": _datasets(item, request.user),
        "default_dataset": preferences.DATASET,
        "following": _next(request, item),
        "is_open": item.state == TriageItem.State.OPEN,
        "max_output": MAX_OUTPUT,
    }
    return render(request, "finetune/triage_item.html", context)


def _item(request: PersonRequest, pk: int) -> TriageItem:
    items = TriageItem.objects.visible_to(request.user)
    joined = items.select_related("collection", "message", "pair", "gap_question__gap")
    return get_object_or_404(joined, pk=pk)


def _candidates(
    item: TriageItem, user: User, query: str, offered: list[Citation]
) -> list[Candidate]:
    """Search again, with the words of the correction, in the collections the person curates."""
    writable = Collection.objects.writable_by(user).values_list("pk", flat=True)
    filters = Filters(collection_ids=tuple(writable))
    hits = search(user, query[:2_000], filters=filters, limit=FOUND)
    places = {(one.version_id, one.start) for one in offered}
    fresh = [hit for hit in hits if (hit.version_id, hit.start) not in places]
    chosen = next((hit for hit in fresh if _carries(hit, item.corrected_answer)), None)
    return [Candidate(hit, hit in fresh, hit is chosen) for hit in hits]


def _carries(hit: Hit, right: str) -> bool:
    passage = source(1, hit.text, title=hit.title, heading_path=hit.heading_path)
    return carried_share(right, [passage]) >= triage.CARRIED


def _datasets(item: TriageItem, user: User) -> list[Dataset]:
    visible = Dataset.objects.visible_to(user).filter(collection=item.collection_id)
    return list(visible.exclude(name=preferences.DATASET).order_by("name"))


def _next(request: PersonRequest, item: TriageItem) -> TriageItem | None:
    """Give the open answer below this one in the list, else the first."""
    others = _items(request).to_sort().exclude(pk=item.pk).order_by("-created_at", "-pk")
    below = others.filter(created_at__lte=item.created_at)
    return below.first() or others.first()


# --- Deciding ------------------------------------------------------------------------------------


@require_POST
def triage_sort(request: PersonRequest, pk: int) -> HttpResponse:
    """Do what the pressed button says about a rated answer, then show the next one."""
    item = _item(request, pk)
    following = _next(request, item)
    try:
        said = _act(request, item)
    except (TriageRefused, CurationRefused) as refusal:
        messages.error(request, str(refusal))
        return redirect("triage_item", pk)
    except EmbeddingError:
        messages.error(request, EMBEDDER_AWAY)
        return redirect("triage_item", pk)
    messages.success(request, said)
    return redirect("triage_item", following.pk) if following else redirect("triage")


def _act(request: PersonRequest, item: TriageItem) -> str | SafeString:
    """Raises TriageRefused, CurationRefused and EmbeddingError."""
    wanted, user = request.POST.get("category"), request.user
    chunk = _chosen_chunk(request)
    if wanted == TriageItem.Category.NOT_FOUND:
        return _keep_question(request, item, chunk)
    if wanted == TriageItem.Category.WRONG_ANSWER:
        pair = triage.draft_pair(item, user, _dataset(request, item), output=_output(request))
        return _linked(_("A pair was drafted."), "pair", pair.pk, _("Review it"))
    if wanted == TriageItem.Category.NO_DOCUMENT:
        gap = triage.list_gap(item, user)
        return _linked(_("Listed as a knowledge gap."), "gap", gap.pk, _("Open it"))
    triage.dismiss(item, user)
    return _("Dismissed.")


def _keep_question(request: PersonRequest, item: TriageItem, chunk: Chunk | None) -> SafeString:
    if chunk is None:
        raise TriageRefused(_("Choose the passage that answers the question."))
    if "pair" not in request.POST:
        triage.save_question(item, request.user, chunk)
        address = f"{reverse('triage')}?show=done"
        return format_html(
            '{} <a href="{}">{}</a>', _("Saved for measuring search."), address, _("Done so far")
        )
    pair = triage.save_question_with_pair(
        item, request.user, chunk, _dataset(request, item), output=_output(request)
    )
    return _linked(_("Saved for measuring search, and a pair was drafted."), "pair", pair.pk,
                   _("Review it"))  # fmt: skip


def _linked(sentence: str, to: str, pk: int, action: str) -> SafeString:
    return format_html('{} <a href="{}">{}</a>', sentence, reverse(to, args=[pk]), action)


def _chosen_chunk(request: PersonRequest) -> Chunk | None:
    """Read the chosen passage; one outside the person's own collections is as good as none."""
    pk = number_in(request.POST.get("chunk", ""))
    writable = Collection.objects.writable_by(request.user)
    chunks = Chunk.objects.filter(collection__in=writable).select_related("document", "version")
    return chunks.filter(pk=pk).first() if pk else None


def _output(request: PersonRequest) -> str:
    return request.POST.get("output", "").replace("\0", "").strip()[:MAX_OUTPUT]


def _dataset(request: PersonRequest, item: TriageItem) -> Dataset:
    chosen = number_in(request.POST.get("dataset", ""))
    if chosen is None:
        return preferences.dataset_for(item.collection)
    visible = Dataset.objects.visible_to(request.user).filter(collection=item.collection_id)
    found = visible.filter(pk=chosen).first()
    if found is None:
        raise TriageRefused(_("Choose a data set of the collection that was asked."))
    return found


@require_POST
def triage_undo(request: PersonRequest) -> HttpResponse:
    """Take back the person's last decision about a rated answer."""
    try:
        item = triage.undo(request.user)
    except TriageRefused as refusal:
        messages.error(request, str(refusal))
        return redirect("triage")
    if item is None:
        messages.info(request, _("There is nothing to take back."))
        return redirect("triage")
    messages.success(request, _("Taken back."))
    return redirect("triage_item", item.pk)
