"""Data sets: the curators' home, make one, change its settings."""

from dataclasses import dataclass, field

from django.contrib import messages
from django.db import transaction
from django.db.models import Count, QuerySet
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods

from finetune.forms import DatasetForm
from finetune.models import AuditEvent, Dataset, InstructionPair, KnowledgeGap, Review, TriageItem
from kb.models import Collection, User
from kb.views.context import scope
from kb.views.requests import PersonRequest, go_to

State = InstructionPair.State


@dataclass(slots=True)
class Card:
    """A data set as the home of curation shows it. `counts`: pairs that the person may see."""

    dataset: Dataset
    counts: dict[str, int] = field(default_factory=dict)
    is_owner: bool = False

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def waiting(self) -> int:
        return self.counts.get(State.SUGGESTED, 0) + self.stale

    @property
    def approved(self) -> int:
        return self.counts.get(State.APPROVED, 0)

    @property
    def rejected(self) -> int:
        return self.counts.get(State.REJECTED, 0)

    @property
    def stale(self) -> int:
        return self.counts.get(State.STALE, 0)


@require_GET
def curate(request: PersonRequest) -> HttpResponse:
    datasets = Dataset.objects.visible_to(request.user).select_related("collection")
    rated = TriageItem.objects.visible_to(request.user).to_sort()
    gaps = KnowledgeGap.objects.visible_to(request.user).exclude(state=KnowledgeGap.State.CLOSED)
    if chosen := scope(request):
        datasets = datasets.filter(collection=chosen)
        rated, gaps = rated.filter(collection=chosen), gaps.filter(collection=chosen)
    context = {
        "to_sort": rated.count(),
        "gap_count": gaps.count(),
        "cards": _cards(datasets.order_by("collection__name", "name"), request.user),
        "may_make": Collection.objects.writable_by(request.user).exists(),
        "today": judged_today(request.user),
    }
    return render(request, "finetune/curate.html", context)


def _cards(datasets: QuerySet[Dataset], user: User) -> list[Card]:
    """Complete data sets for the page, in three queries however many there are."""
    cards = {dataset.pk: Card(dataset) for dataset in datasets}
    pairs = InstructionPair.objects.visible_to(user).filter(dataset__in=list(cards))
    for pk, state, n in pairs.order_by().values_list("dataset", "state").annotate(n=Count("pk")):
        cards[pk].counts[state] = n
    owned = set(Dataset.objects.owned_by(user).values_list("pk", flat=True))
    for pk, card in cards.items():
        card.is_owner = pk in owned
    return list(cards.values())


def judged_today(user: User, dataset: Dataset | None = None) -> int:
    """Count what the person judged today."""
    reviews = Review.objects.filter(
        reviewer=user,
        undone_at=None,
        created_at__gte=timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0),
    )
    return reviews.filter(pair__dataset=dataset).count() if dataset else reviews.count()


@require_http_methods(["GET", "POST"])
def dataset_new(request: PersonRequest) -> HttpResponse:
    chosen = scope(request)
    form = DatasetForm(
        request.POST or None, user=request.user, initial={"collection": chosen and chosen.pk}
    )
    if request.method == "POST" and form.is_valid():
        form.instance.created_by = request.user
        with transaction.atomic():
            dataset = form.save()
            AuditEvent.objects.record(request.user, "created", dataset, dataset.collection)
        return redirect("dataset", dataset.pk)
    return render(request, "finetune/dataset_new.html", {"form": form})


@require_http_methods(["GET", "POST"])
def dataset_edit(request: PersonRequest, pk: int) -> HttpResponse:
    """Change a data set's settings; its owners may."""
    dataset = get_object_or_404(Dataset.objects.owned_by(request.user), pk=pk)
    form = DatasetForm(request.POST or None, instance=dataset, user=request.user)
    if request.method == "POST" and form.is_valid():
        with transaction.atomic():
            form.save()
            changed = {name: form.cleaned_data[name] for name in form.changed_data}
            AuditEvent.objects.record(
                request.user, "edited", dataset, dataset.collection, after=changed
            )
        messages.success(request, _("Saved."))
        return go_to(request, "dataset_edit", dataset.pk)
    context = {"dataset": dataset, "tab": "settings", "form": form}
    return render(request, "finetune/dataset_edit.html", context)
