"""What learned from documents: said where somebody is about to delete them."""

from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from finetune.models import DatasetSnapshot, InstructionPair, PairSource, SnapshotRow
from kb.models import Document
from kb.views.requests import PersonRequest, number_in

MAX_DOCUMENTS = 1_000
SHOWN_SNAPSHOTS = 20


@require_GET
def document_uses(request: PersonRequest) -> HttpResponse:
    """Name the pairs and snapshots, among those the person may see, that rest on documents."""
    named = request.GET.getlist("document")[:MAX_DOCUMENTS]
    visible = Document.objects.visible_to(request.user)
    ids = list(
        visible.filter(pk__in=filter(None, map(number_in, named))).values_list("pk", flat=True)
    )
    sources = PairSource.objects.filter(document__in=ids)
    pairs = InstructionPair.objects.visible_to(request.user).filter(pk__in=sources.values("pair"))
    rows = SnapshotRow.objects.filter(document_keys__overlap=ids)
    snapshots = DatasetSnapshot.objects.visible_to(request.user).filter(
        pk__in=rows.values("snapshot")
    )
    named_snapshots = snapshots.select_related("dataset").order_by("pk")[:SHOWN_SNAPSHOTS]
    context = {
        "pairs": pairs.count(),
        "approved": pairs.approved().count(),
        # The page that deletes a single document names its snapshots itself.
        "snapshots": named_snapshots if len(ids) > 1 else [],
    }
    return render(request, "finetune/_document_uses.html", context)
