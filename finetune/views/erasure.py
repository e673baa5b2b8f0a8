"""Forget a document or a person: what learned from it, one action that undoes it, and deletion."""

from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from finetune import erasure as journey
from finetune.erasure import StillNeeded, Subject
from finetune.models import Dataset, DatasetSnapshot, TrainingRun
from finetune.serving_forms import TraceForm
from kb.models import User
from kb.views.requests import PersonRequest

SHOWN_PAIRS = 50
Row = TypeVar("Row", TrainingRun, DatasetSnapshot)


@require_http_methods(["GET", "POST"])
def erasure(request: PersonRequest) -> HttpResponse:
    """Look for what learned from something; a POST turns the pairs stale and marks the adapters."""
    form = TraceForm(request.POST or request.GET or None)
    choices = _subjects(request, form) if form.is_valid() else []
    subject = choices[0] if len(choices) == 1 else None
    if request.method == "POST" and subject is not None:
        done = journey.erase(subject, request.user, reason=request.POST.get("reason", "")[:1_000])
        messages.success(
            request,
            _("%(pairs)s pairs are stale, %(adapters)s adapters are marked.")
            % {"pairs": f"{done.pairs:,}", "adapters": len(done.adapters)},
        )
        query = urlencode({"kind": subject.kind, "name": form.cleaned_data["name"]})
        return redirect(f"{request.path}?{query}")
    found = journey.trace(subject, request.user) if subject else None
    context = {
        "form": form,
        "looked": form.is_bound and form.is_valid(),
        "subject": subject,
        "choices": choices,
        "found": found,
        "pairs": found.pairs[:SHOWN_PAIRS] if found else (),
        "tab": "erasure",
    }
    return render(request, "finetune/erasure.html", context)


def _subjects(request: PersonRequest, form: TraceForm) -> list[Subject]:
    find = {"document": journey.find_documents, "person": journey.find_people}
    return find[form.cleaned_data["kind"]](request.user, form.cleaned_data["name"].strip())


@require_http_methods(["GET", "POST"])
def run_delete(request: PersonRequest, pk: int) -> HttpResponse:
    """Say what goes with a run, then delete it."""
    runs = TrainingRun.objects.visible_to(request.user).select_related("adapter")
    owned = Dataset.objects.owned_by(request.user)
    found = get_object_or_404(runs.filter(snapshot__dataset__in=owned), pk=pk)
    return _delete(request, found, journey.delete_run, reverse("run", args=[pk]), reverse("train"))


@require_http_methods(["GET", "POST"])
def snapshot_delete(request: PersonRequest, pk: int) -> HttpResponse:
    """Say what goes with a snapshot, then delete it."""
    snapshots = DatasetSnapshot.objects.visible_to(request.user)
    owned = Dataset.objects.owned_by(request.user)
    found = get_object_or_404(snapshots.filter(dataset__in=owned), pk=pk)
    after = reverse("snapshots", args=[found.dataset_id])
    return _delete(request, found, journey.delete_snapshot, reverse("snapshot", args=[pk]), after)


def _delete(
    request: PersonRequest, row: Row, delete: Callable[[Row, User], None], back: str, after: str
) -> HttpResponse:
    if request.method == "GET":
        context = {"row": row, "is_run": isinstance(row, TrainingRun), "back": back}
        return render(request, "finetune/delete.html", context)
    try:
        delete(row, request.user)
    except StillNeeded as refusal:
        messages.error(request, str(refusal))
        return redirect(back)
    messages.success(request, _("“%(name)s” was deleted.") % {"name": row})
    return redirect(after)
