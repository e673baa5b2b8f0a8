"""Drafting pairs from passages: choose, follow, stop, go on."""

from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from finetune import drafting
from finetune.forms import DraftForm
from finetune.models import Drafting
from finetune.views.review import find_dataset
from kb.views.requests import PersonRequest
from workers import tasks

SHOWN_RUNS = 20


@require_http_methods(["GET", "POST"])
def draft(request: PersonRequest, pk: int) -> HttpResponse:
    """Choose what to draft from, and see how earlier runs went."""
    dataset = find_dataset(request, pk)
    form = DraftForm(request.POST or None, user=request.user, dataset=dataset)
    if request.method == "POST" and form.is_valid():
        drafting.start(
            dataset, request.user, wanted=form.cleaned_data["wanted"], choice=form.choice()
        )
        tasks.hint_workers()
        return redirect("draft", pk)
    runs = dataset.draftings.select_related("job", "started_by").order_by("-pk")
    context = {
        "dataset": dataset,
        "tab": "draft",
        "form": form,
        "has_model": drafting.has_model(),
        "runs": runs[:SHOWN_RUNS],
        "is_running": any(not run.job.is_final for run in runs[:1]),
    }
    return render(request, "finetune/draft.html", context)


@require_GET
def drafting_state(request: PersonRequest, pk: int) -> HttpResponse:
    """The line about a run; follows itself until it has ended."""
    return render(request, "finetune/_drafting.html", {"run": _run(request, pk)})


@require_POST
def drafting_stop(request: PersonRequest, pk: int) -> HttpResponse:
    run = _run(request, pk)
    drafting.stop(run)
    return redirect("draft", run.dataset_id)


@require_POST
def drafting_go_on(request: PersonRequest, pk: int) -> HttpResponse:
    run = _run(request, pk)
    if drafting.go_on(run):
        tasks.hint_workers()
    return redirect("draft", run.dataset_id)


def _run(request: PersonRequest, pk: int) -> Drafting:
    runs = Drafting.objects.visible_to(request.user).select_related("job", "dataset", "started_by")
    return get_object_or_404(runs, pk=pk)
