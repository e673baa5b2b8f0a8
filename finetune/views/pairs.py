"""The pairs of a data set: the list."""

from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_GET

from finetune.models import Dataset, InstructionPair
from kb.views.requests import PersonRequest


@require_GET
def dataset(request: PersonRequest, pk: int) -> HttpResponse:
    found = get_object_or_404(
        Dataset.objects.visible_to(request.user).select_related("collection"), pk=pk
    )
    pairs = InstructionPair.objects.visible_to(request.user).filter(dataset=found)
    context = {"dataset": found, "tab": "pairs", "pairs": pairs.order_by("-pk")[:50]}
    return render(request, "finetune/dataset.html", context)
