"""The review page: one pair after the other, by keyboard, without loading the page again."""

from typing import Any

from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from finetune import curation
from finetune.curation import CurationRefused
from finetune.models import Dataset, InstructionPair
from finetune.views.datasets import judged_today
from finetune.views.shown import shown
from kb.views.requests import PersonRequest, number_in

# Picked by number; the words are kept as the reason.
REASONS = [
    gettext_lazy("The answer is wrong"),
    gettext_lazy("The passage does not say this"),
    gettext_lazy("The question makes no sense"),
    gettext_lazy("Too trivial to learn from"),
    gettext_lazy("Badly worded"),
    gettext_lazy("Personal data or a secret"),
    gettext_lazy("Says the same as another pair"),
]
MOST_SKIPPED = 500
MAX_FIELD = 200_000
EDITABLE = ("system", "instruction", "input", "output", "rejected")


def find_dataset(request: PersonRequest, pk: int) -> Dataset:
    """Get a data set the person curates, or answer 404."""
    visible = Dataset.objects.visible_to(request.user).select_related("collection")
    return get_object_or_404(visible, pk=pk)


def find_pair(request: PersonRequest, pk: int) -> InstructionPair:
    """Get a pair the person curates and may read every source of, or answer 404."""
    visible = InstructionPair.objects.visible_to(request.user)
    return get_object_or_404(visible.select_related("dataset__collection"), pk=pk)


@require_GET
@never_cache
def review(request: PersonRequest, pk: int) -> HttpResponse:
    """Show the pair of `?pair=` if it can be had, else the next one."""
    dataset = find_dataset(request, pk)
    wanted = InstructionPair.objects.visible_to(request.user).awaiting(request.user)
    pair = wanted.filter(dataset=dataset, pk=number_in(request.GET.get("pair", "")) or 0).first()
    if pair is None or not curation.claim(pair, request.user):
        pair = curation.claim_next(dataset, request.user, besides=_skipped(request, dataset))
    context = {
        **_progress(request, dataset),
        "tab": "review",
        "shown": shown(pair, request.user) if pair else None,
        "reject_reasons": REASONS,
    }
    return render(request, "finetune/review.html", context)


def _progress(request: PersonRequest, dataset: Dataset) -> dict[str, Any]:
    """Count what the person judged today and what still waits for them."""
    waiting = InstructionPair.objects.visible_to(request.user).awaiting(request.user)
    today, left = judged_today(request.user, dataset), waiting.filter(dataset=dataset).count()
    return {"dataset": dataset, "today": today, "left": left, "of": max(today + left, 1)}


def _skipped(request: PersonRequest, dataset: Dataset) -> list[int]:
    skipped: list[int] = request.session.get("skipped", {}).get(str(dataset.pk), [])
    return skipped


@require_POST
def review_next(request: PersonRequest, pk: int) -> HttpResponse:
    """Claim another pair and draw it; `like` asks for the most similar to one. 204: none waits."""
    dataset = find_dataset(request, pk)
    like = None
    if number := number_in(request.POST.get("like", "")):
        like = find_pair(request, number)
    pair = curation.claim_next(dataset, request.user, besides=_skipped(request, dataset), like=like)
    return _drawn(request, pair)


def _drawn(request: PersonRequest, pair: InstructionPair | None) -> HttpResponse:
    if pair is None:
        return HttpResponse(status=204)
    context = {"shown": shown(pair, request.user), "dataset": pair.dataset}
    return render(request, "finetune/_review_pair.html", context)


@require_POST
def review_undo(request: PersonRequest, pk: int) -> HttpResponse:
    """Take back the person's last judgement and draw its pair. 204: there is none."""
    dataset = find_dataset(request, pk)
    return _drawn(request, curation.undo(request.user, dataset))


@require_POST
def review_hold(request: PersonRequest, pk: int) -> HttpResponse:
    """Keep the named pairs for longer, give them back, or skip them for this session."""
    dataset = find_dataset(request, pk)
    named = [number for text in request.POST.getlist("pair")[:50] if (number := number_in(text))]
    action = request.POST.get("action", "")
    if action == "keep":
        visible = InstructionPair.objects.visible_to(request.user)
        for pair in visible.filter(dataset=dataset, pk__in=named):
            curation.claim(pair, request.user)
    elif action in ("release", "skip"):
        curation.release(request.user, named)
    else:
        raise Http404
    if action == "skip":
        skipped = [*_skipped(request, dataset), *named][-MOST_SKIPPED:]
        request.session["skipped"] = {
            **request.session.get("skipped", {}), str(dataset.pk): skipped,
        }  # fmt: skip
    return HttpResponse(status=204)


@require_POST
def review_judge(request: PersonRequest, pk: int) -> HttpResponse:
    """Approve or reject a pair, with its edit; gives the progress, or a sentence with 409."""
    pair = find_pair(request, pk)
    try:
        judge(request, pair)
    except CurationRefused as refusal:
        return HttpResponse(str(refusal), status=409, content_type="text/plain; charset=utf-8")
    return render(request, "finetune/_review_progress.html", _progress(request, pair.dataset))


def judge(request: PersonRequest, pair: InstructionPair) -> InstructionPair:
    """Do what a form says: `verdict`, `reason`, `seconds`, and the fields that were edited."""
    values, verdict = request.POST, request.POST.get("verdict", "")
    seconds = min(float(number_in(values.get("seconds", "")) or 0), 3600.0)
    if verdict == "reject":
        return curation.reject(
            pair, request.user, storable(values.get("reason", "")), seconds=seconds
        )
    if verdict != "approve":
        raise CurationRefused(_("Choose to accept or to reject."))
    return curation.approve(pair, request.user, content=edited(request), seconds=seconds)


def edited(request: PersonRequest) -> dict[str, Any] | None:
    """Read the fields a form edits; None when it has none."""
    found = {name: request.POST[name] for name in EDITABLE if name in request.POST}
    if any(len(text) > MAX_FIELD for text in found.values()):
        raise CurationRefused(_("A field is longer than anybody reads. Shorten it."))
    return {name: storable(text) for name, text in found.items()} or None


def storable(text: str) -> str:
    """Give the text as it was typed: a browser sends line ends as CRLF."""
    return text.replace("\r\n", "\n")
