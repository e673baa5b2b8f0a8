"""What learned from documents: said where somebody is about to delete them."""

from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from finetune.models import DatasetSnapshot, InstructionPair, PairSource
from finetune.snapshots import using_document
from kb.models import Document
from kb.views.requests import PersonRequest, number_in

MAX_DOCUMENTS = 1_000
SHOWN_SNAPSHOTS = 20


@require_GET
def document_uses(request: PersonRequest) -> HttpResponse:
    """Name the pairs and snapshots that rest on documents; snapshots one may not see are counted."""
    named = request.GET.getlist("document")[:MAX_DOCUMENTS]
    visible = Document.objects.visible_to(request.user)
    ids = list(
        visible.filter(pk__in=filter(None, map(number_in, named))).values_list("pk", flat=True)
    )
    sources = PairSource.objects.filter(document__in=ids)
    pairs = InstructionPair.objects.visible_to(request.user).filter(pk__in=sources.values("pair"))
    # The page that deletes a single document names its snapshots itself.
    using = using_document(*ids) if len(ids) > 1 else DatasetSnapshot.objects.none()
    snapshots = DatasetSnapshot.objects.visible_to(request.user).filter(pk__in=using.values("pk"))
    context = {
        "documents": len(ids),
        "pairs": pairs.count(),
        "approved": pairs.approved().count(),
        "snapshots": snapshots.select_related("dataset").order_by("pk")[:SHOWN_SNAPSHOTS],
        "more": max(snapshots.count() - SHOWN_SNAPSHOTS, 0),
        "hidden_count": using.count() - snapshots.count(),
    }
    return render(request, "finetune/_document_uses.html", context)
