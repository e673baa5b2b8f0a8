"""Take pairs out of a data set as a file."""

from django.db.models import Count
from django.http import HttpResponseBase
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_http_methods

from finetune import exporting
from finetune.forms import ExportForm
from finetune.models import Dataset, InstructionPair
from kb.downloads import send
from kb.views.requests import PersonRequest


@require_http_methods(["GET", "POST"])
def export(request: PersonRequest, pk: int) -> HttpResponseBase:
    """Choose pairs and a kind of file; the answer to the form is the file."""
    found = Dataset.objects.visible_to(request.user).select_related("collection")
    dataset = get_object_or_404(found, pk=pk)
    kinds = {name: kind.label for name, kind in exporting.KINDS.items()}
    initial = {"state": [InstructionPair.State.APPROVED]}
    form = ExportForm(request.POST or None, kinds=kinds, initial=initial)
    if request.method == "POST" and form.is_valid():
        wanted = form.cleaned_data
        pieces = exporting.export(
            request.user,
            dataset,
            wanted["kind"],
            states=wanted["state"],
            tags=wanted["tag"],
            with_provenance=wanted["provenance"],
        )
        kind = exporting.KINDS[wanted["kind"]]
        return send(request, pieces, exporting.file_name(dataset, wanted["kind"]), kind.media_type)
    pairs = exporting.select(request.user, dataset).order_by()
    counts = dict(pairs.values_list("state").annotate(n=Count("pk")))
    context = {
        "dataset": dataset,
        "tab": "export",
        "form": form,
        "states": [
            (value, label, counts.get(value, 0)) for value, label in InstructionPair.State.choices
        ],
        "chosen": form["state"].value() or [],
    }
    return render(request, "finetune/export.html", context)
