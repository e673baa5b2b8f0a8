"""Duplicates of a data set: look for them, compare the members of a cluster, decide."""

from dataclasses import dataclass

from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Count, Prefetch, QuerySet
from django.http import HttpResponse, HttpResponseBadRequest
from django.shortcuts import get_object_or_404, render
from django.utils.safestring import SafeString
from django.utils.translation import ngettext
from django.views.decorators.http import require_GET, require_POST

from finetune import duplicates as journey
from finetune import rendering
from finetune.duplicates import DecisionRefused
from finetune.models import Cleaning, Dataset, DuplicateCluster, DuplicateMember
from kb.views.requests import PersonRequest, go_to, number_in
from workers import tasks

CLUSTERS_A_PAGE = 20
# More members than a person compares are counted; the rest is decided with them.
SHOWN_MEMBERS = 9
# One request decides so many clusters, and says when more are left.
MOST_AT_ONCE = 500
FIELDS = ("instruction", "input", "output", "rejected")


@dataclass(frozen=True, slots=True)
class ShownMember:
    """A pair of a cluster; `texts`: (field, text), with what differs from the first one's."""

    member: DuplicateMember
    number: int
    texts: list[tuple[str, str | SafeString]]


@dataclass(frozen=True, slots=True)
class ShownCluster:
    cluster: DuplicateCluster
    members: list[ShownMember]

    @property
    def left_out(self) -> int:
        return self.cluster.size - len(self.members)


@require_GET
def duplicates(request: PersonRequest, pk: int) -> HttpResponse:
    """List the clusters of one kind, the open ones first asked for."""
    dataset = _dataset(request, pk)
    clusters = DuplicateCluster.objects.visible_to(request.user).filter(dataset=dataset)
    is_open = request.GET.get("decided") != "yes"
    narrowed = _narrowed(clusters, is_open=is_open)
    counts = dict(narrowed.order_by().values_list("kind").annotate(n=Count("pk")))
    kinds = [(kind, kind.label, counts.get(kind, 0)) for kind in DuplicateCluster.Kind]
    kind = request.GET.get("kind", "")
    if kind not in DuplicateCluster.Kind.values:
        kind = next((name for name, _label, count in kinds if count), DuplicateCluster.Kind.EXACT)
    wanted = with_members(narrowed.filter(kind=kind)).order_by("-decided_at", "pk")
    shown = Paginator(wanted, CLUSTERS_A_PAGE).get_page(request.GET.get("page"))
    cleaning = _last_cleaning(dataset)
    context = {
        "dataset": dataset,
        "tab": "duplicates",
        "cleaning": cleaning,
        "counts": cleaning.counts_for(request.user) if cleaning else {},
        "kinds": kinds,
        "kind": kind,
        "is_open": is_open,
        "page": shown,
        "clusters": [_shown(cluster) for cluster in shown],
        "most_at_once": MOST_AT_ONCE,
    }
    return render(request, "finetune/duplicates.html", context)


def _dataset(request: PersonRequest, pk: int) -> Dataset:
    found = Dataset.objects.visible_to(request.user).select_related("collection")
    return get_object_or_404(found, pk=pk)


def _narrowed(clusters: QuerySet[DuplicateCluster], *, is_open: bool) -> QuerySet[DuplicateCluster]:
    undecided = DuplicateCluster.Decision.OPEN
    return clusters.filter(decision=undecided) if is_open else clusters.exclude(decision=undecided)


def _last_cleaning(dataset: Dataset) -> Cleaning | None:
    return dataset.cleanings.select_related("job", "started_by").order_by("-created_at").first()


def with_members(clusters: QuerySet[DuplicateCluster]) -> QuerySet[DuplicateCluster]:
    """Read what the page shows of clusters along, in two queries more however many there are."""
    members = (
        DuplicateMember.objects.filter(position__lt=SHOWN_MEMBERS)
        .select_related("pair__dataset", "pair__pair_import")
        .order_by("position")
    )
    wanted = clusters.select_related("dataset", "decided_by")
    return wanted.prefetch_related(Prefetch("members", members))


def _shown(cluster: DuplicateCluster) -> ShownCluster:
    members = list(cluster.members.all())
    return ShownCluster(
        cluster,
        [
            ShownMember(member, number, _texts(members[0], member))
            for number, member in enumerate(members, start=1)
        ],
    )


def _texts(first: DuplicateMember, member: DuplicateMember) -> list[tuple[str, str | SafeString]]:
    """Give the fields of a pair; of a later one only those that differ, with the difference."""
    found: list[tuple[str, str | SafeString]] = []
    for name in FIELDS:
        old, new = getattr(first.pair, name), getattr(member.pair, name)
        if member == first and new:
            found.append((name, new))
        elif old != new:
            found.append((name, rendering.difference(old, new)))
    return found


@require_POST
def duplicates_find(request: PersonRequest, pk: int) -> HttpResponse:
    """Start a search, unless one is under way."""
    journey.start(_dataset(request, pk), request.user)
    tasks.hint_workers()
    return go_to(request, "duplicates", pk)


@require_GET
def duplicates_state(request: PersonRequest, pk: int) -> HttpResponse:
    """Draw the line about a running search again."""
    dataset = _dataset(request, pk)
    cleaning = _last_cleaning(dataset)
    counts = cleaning.counts_for(request.user) if cleaning else {}
    context = {"dataset": dataset, "cleaning": cleaning, "counts": counts}
    response = render(request, "finetune/_duplicates_state.html", context)
    if cleaning is None or cleaning.job.is_final:
        response["HX-Refresh"] = "true"
    return response


@require_POST
def duplicates_decide(request: PersonRequest, pk: int) -> HttpResponse:
    """Decide about one cluster: `keep` names the pair, "all" or, to take it back, nothing."""
    visible = DuplicateCluster.objects.visible_to(request.user)
    cluster = get_object_or_404(visible.select_related("dataset"), pk=pk)
    keep = request.POST.get("keep", "")
    refusal = ""
    try:
        if keep == "all":
            journey.keep_all(cluster, request.user)
        elif keep == "":
            journey.ask_again(cluster, request.user)
        elif (pair := number_in(keep)) is not None:
            journey.keep_one(cluster, request.user, pair)
        else:
            return HttpResponseBadRequest()
    except DecisionRefused as error:
        refusal = str(error)
    if not request.htmx:
        if refusal:
            messages.error(request, refusal)
        return go_to(request, "duplicates", cluster.dataset_id)
    found = with_members(visible.filter(pk=pk)).first()
    context = {"shown": _shown(found) if found else None, "refusal": refusal}
    return render(request, "finetune/_cluster.html", context)


@require_POST
def duplicates_decide_all(request: PersonRequest, pk: int) -> HttpResponse:
    """Keep the first pair of every open cluster of a kind."""
    dataset = _dataset(request, pk)
    kind = request.POST.get("kind", "")
    visible = DuplicateCluster.objects.visible_to(request.user).filter(dataset=dataset, kind=kind)
    clusters = _narrowed(visible, is_open=True).order_by("pk")
    decided = rejected = 0
    for cluster in clusters[:MOST_AT_ONCE]:
        try:
            rejected += journey.keep_one(cluster, request.user)
            decided += 1
        except DecisionRefused:
            continue  # somebody else was quicker
    messages.success(
        request,
        ngettext(
            "Decided %(n)s cluster; %(rejected)s pairs were set aside.",
            "Decided %(n)s clusters; %(rejected)s pairs were set aside.",
            decided,
        )
        % {"n": decided, "rejected": rejected},
    )
    return go_to(request, "duplicates", dataset.pk)
