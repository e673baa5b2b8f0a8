"""The loop in one picture, when to train again, and what training cost."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, Q, QuerySet
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_GET, require_http_methods

from finetune import activation as journey
from finetune import guard, ledger, retraining
from finetune.intervals import Share
from finetune.models import (
    Activation,
    Adapter,
    Dataset,
    DatasetSnapshot,
    Evaluation,
    InstructionPair,
    RetrainRule,
    TrainingRun,
)
from finetune.serving_forms import RuleForm
from finetune.views.activation import layers
from kb.models import Citation, Collection, Document, Message, User
from kb.views.context import scope
from kb.views.requests import PersonRequest

RATED_DAYS = timedelta(days=30)
SHOWN_ACTIVATIONS = 8
SHOWN_RUNS = 100


@dataclass(frozen=True, slots=True)
class Box:
    """A station of the loop: what it holds, since when, and its one next action.

    `is_due`: something waits here. `share`: drawn with its interval, where there is one.
    """

    title: str
    icon: str
    number: str
    unit: str
    since: datetime | None
    action: str
    address: str
    note: str = ""
    is_due: bool = False
    share: Share | None = None


@require_GET
def loop(request: PersonRequest) -> HttpResponse:
    """Draw the loop of the chosen collection, or of all that the person curates."""
    user, chosen = request.user, scope(request)
    collections = Collection.objects.writable_by(user)
    if chosen is not None:
        collections = collections.filter(pk=chosen.pk)
    datasets = Dataset.objects.visible_to(user).filter(collection__in=collections)
    boxes = _boxes(user, collections, datasets)
    due = [at for at, box in enumerate(boxes) if box.is_due]
    context = {
        "boxes": boxes,
        # Nearest to the readers first: what is ready to go on should not wait.
        "next": due[-1] if due else None,
        "has_collections": collections.exists(),
        "asking": _asking(user, datasets),
        "rules": _rules(user, datasets),
        "layers": layers(user),
        "compared": _compared(user, collections),
        "tab": "loop",
    }
    return render(request, "finetune/loop.html", context)


def _boxes(user: User, collections: QuerySet[Collection], datasets: QuerySet[Dataset]) -> list[Box]:
    training = datasets.filter(purpose=Dataset.Purpose.TRAINING)
    snapshot = _newest(
        DatasetSnapshot.objects.visible_to(user).filter(dataset__in=training, state="ready")
    )
    run = _newest(TrainingRun.objects.visible_to(user).filter(snapshot__dataset__in=training))
    adapters = Adapter.objects.managed_by(user)
    adapter = adapters.filter(run__snapshot__dataset__in=training).order_by("-pk").first()
    return [
        _documents(collections),
        _pairs(user, training),
        _snapshot(user, training, snapshot),
        _run(snapshot, run),
        _evaluation(adapter),
        _serving(user, adapter),
        _ratings(collections),
    ]


def _newest(rows: QuerySet) -> DatasetSnapshot | TrainingRun | None:
    found: DatasetSnapshot | TrainingRun | None = rows.order_by("-pk").first()
    return found


def _documents(collections: QuerySet[Collection]) -> Box:
    documents = Document.objects.filter(collection__in=collections)
    failed = documents.filter(state=Document.State.FAILED).count()
    newest = documents.order_by("-pk").first()
    note = ngettext("%(n)s failed", "%(n)s failed", failed) % {"n": failed} if failed else ""
    count = documents.count()
    return Box(
        _("Documents"), "documents", f"{count:,}", ngettext("document", "documents", count),
        newest.created_at if newest else None, _("Add documents"), reverse("documents"), note,
        is_due=not count,
    )  # fmt: skip


def _pairs(user: User, datasets: QuerySet[Dataset]) -> Box:
    pairs = InstructionPair.objects.visible_to(user).filter(dataset__in=datasets)
    approved = pairs.approved().count()
    waiting = pairs.filter(state__in=InstructionPair.OPEN)
    fullest = waiting.order_by().values("dataset").annotate(n=Count("pk")).order_by("-n").first()
    last = pairs.exclude(reviewed_at=None).order_by("-reviewed_at").first()
    action, address = _("Make pairs"), reverse("curate")
    if fullest:
        action = _("Review %(n)s") % {"n": f"{fullest['n']:,}"}
        address = reverse("review", args=[fullest["dataset"]])
    stale = waiting.filter(state=InstructionPair.State.STALE).count()
    return Box(
        _("Pairs"), "curate", f"{approved:,}", _("approved"), last.reviewed_at if last else None,
        action, address, _("%(n)s stale") % {"n": f"{stale:,}"} if stale else "",
        is_due=bool(fullest) or not approved,
    )  # fmt: skip


def _snapshot(
    user: User, datasets: QuerySet[Dataset], newest: DatasetSnapshot | TrainingRun | None
) -> Box:
    address = reverse("curate")
    if not isinstance(newest, DatasetSnapshot):
        dataset = datasets.filter(pairs__state="approved").first()
        address = reverse("snapshots", args=[dataset.pk]) if dataset else address
        return Box(
            _("Snapshot"), "lock", "0", _("frozen"), None, _("Freeze one"), address,
            is_due=dataset is not None,
        )  # fmt: skip
    count = sum(newest.counts.values())
    approved = InstructionPair.objects.visible_to(user).approved()
    new = approved.filter(dataset=newest.dataset_id, reviewed_at__gt=newest.created_at).count()
    note = _("%(n)s approved since") % {"n": f"{new:,}"} if new else ""
    address = reverse(
        "snapshots" if new else "snapshot", args=[newest.dataset_id if new else newest.pk]
    )
    return Box(
        _("Snapshot"), "lock", f"{count:,}", _("pairs frozen"), newest.created_at,
        _("Freeze again") if new else _("Look at it"), address, note,
    )  # fmt: skip


def _run(
    snapshot: DatasetSnapshot | TrainingRun | None, run: DatasetSnapshot | TrainingRun | None
) -> Box:
    plan = reverse("run_new") + (f"?snapshot={snapshot.pk}" if snapshot else "")
    if not isinstance(run, TrainingRun):
        return Box(
            _("Run"), "train", "0", _("runs"), None, _("Plan a run"), plan,
            is_due=snapshot is not None,
        )  # fmt: skip
    is_new = snapshot is not None and run.snapshot_id < snapshot.pk and run.is_final
    action, address = _("Look at it"), reverse("run", args=[run.pk])
    if run.state == TrainingRun.State.DRAFT:
        action = _("See its pre-flight")
    elif not run.is_final:
        action = _("Follow it")
    elif is_new:
        action, address = _("Train on the new snapshot"), plan
    return Box(
        _("Run"), "train", run.get_state_display(), "", run.finished_at or run.created_at,
        action, address, run.name, is_due=is_new or run.state == TrainingRun.State.DRAFT,
    )  # fmt: skip


def _evaluation(adapter: Adapter | None) -> Box:
    title, icon = _("Evaluation"), "check"
    if adapter is None:
        return Box(title, icon, "–", "", None, _("See the adapters"), reverse("adapters"))
    address = reverse("adapter", args=[adapter.pk])
    newest = adapter.evaluations.order_by("-pk").first()
    if newest is None:
        return Box(
            title, icon, _("Not yet"), "", adapter.created_at, _("Evaluate"), address,
            adapter.name, is_due=True,
        )  # fmt: skip
    words = (
        {True: _("Passed"), False: _("Not passed")}.get(bool(newest.passed), "")
        if newest.state == Evaluation.State.DONE
        else newest.get_state_display()
    )
    return Box(
        title, icon, words, "", newest.finished_at or newest.created_at, _("See why"), address,
        adapter.name,
    )  # fmt: skip


def _serving(user: User, adapter: Adapter | None) -> Box:
    title, icon = _("Serving"), "send"
    rows = journey.visible_to(user)
    moving = rows.filter(state__in=journey.UNDER_WAY).order_by("-pk").first()
    if moving is not None:
        return Box(
            title, icon, moving.get_state_display(), "", moving.created_at, _("Follow it"),
            reverse("activation", args=[moving.pk]), moving.adapter.name,
            is_due=moving.state == Activation.State.WAITING,
        )  # fmt: skip
    standing = rows.filter(state=Activation.State.DEPLOYED).order_by("-deployed_at").first()
    may_go = (
        adapter is not None
        and not adapter.activations.exists()
        and not journey.gate(adapter)
        and not journey.unfit(adapter)
    )
    action, address = _("See what serves"), reverse("activations")
    if may_go and adapter is not None:
        action, address = _("Activate"), reverse("activate", args=[adapter.pk])
    number, since, note = _("Base model"), None, ""
    if standing is not None:
        number, since, note = f"{standing.share:.0%}", standing.deployed_at, standing.adapter.name
    unit = _("of conversations") if standing else ""
    return Box(title, icon, number, unit, since, action, address, note, is_due=bool(may_go))


def _ratings(collections: QuerySet[Collection]) -> Box:
    """Of answers that offered a passage of the collections, in the last 30 days."""
    cited = Citation.objects.filter(collection__in=collections).values("message")
    answers = Message.objects.filter(
        pk__in=cited, role=Message.Role.ASSISTANT, created_at__gte=timezone.now() - RATED_DAYS
    )
    counted = guard.count(answers)
    newest = answers.filter(feedback__isnull=False).order_by("-feedback__created_at").first()
    share = counted.good_share
    number = f"{share.value:.0%}" if share.total else "–"
    return Box(
        _("Ratings"), "up", number, _("good in 30 days") if share.total else _("none in 30 days"),
        newest.created_at if newest else None, _("Sort them"), reverse("triage"), share=share,
    )  # fmt: skip


def _asking(user: User, datasets: QuerySet[Dataset]) -> list[tuple[Dataset, str]]:
    """Data sets whose rule asks for a run, and those with an adapter that serves what was erased."""
    rules = RetrainRule.objects.filter(dataset__in=datasets, is_on=True).select_related("dataset")
    asked = [(rule.dataset, rule.last_reason) for rule in rules if retraining.is_asking(rule)]
    marked = Adapter.objects.managed_by(user).filter(
        ~Q(erasure_note=""), name__in=journey.speaking_names()
    )
    return asked + [
        (adapter.run.snapshot.dataset, f"{adapter.name}: {adapter.erasure_note}")
        for adapter in marked.select_related("run__snapshot__dataset")
        if adapter.run.snapshot.dataset in datasets
    ]


def _rules(user: User, datasets: QuerySet[Dataset]) -> list[tuple[Dataset, RetrainRule | None]]:
    owned = Dataset.objects.owned_by(user).filter(
        pk__in=datasets.values("pk"), purpose=Dataset.Purpose.TRAINING
    )
    rules = {rule.dataset_id: rule for rule in RetrainRule.objects.filter(dataset__in=owned)}
    return [(dataset, rules.get(dataset.pk)) for dataset in owned.order_by("name")]


def _compared(
    user: User, collections: QuerySet[Collection]
) -> list[tuple[Activation, guard.Comparison]]:
    rows = journey.visible_to(user).filter(
        deployed_at__isnull=False, adapter__run__snapshot__dataset__collection__in=collections
    )
    newest = rows.order_by("-deployed_at")[:SHOWN_ACTIVATIONS]
    return [(row, guard.compare(row)) for row in newest]


@require_http_methods(["GET", "POST"])
def rule(request: PersonRequest, pk: int) -> HttpResponse:
    """Say when a data set should be trained again."""
    owned = Dataset.objects.owned_by(request.user).select_related("collection")
    dataset = get_object_or_404(owned, pk=pk)
    existing = RetrainRule.objects.filter(dataset=dataset).first()
    form = RuleForm(request.POST or None, instance=existing or RetrainRule(dataset=dataset))
    if request.method == "POST" and form.is_valid():
        form.save()
        return redirect("loop")
    context = {"dataset": dataset, "form": form, "met": retraining.reasons(form.instance)}
    status = 400 if form.errors else 200
    return render(request, "finetune/rule.html", context, status=status)


@require_GET
def ledger_page(request: PersonRequest) -> HttpResponse:
    """Sum what runs cost, by month and in all."""
    runs = ledger.runs_of(request.user)
    context = {
        "months": ledger.months(runs),
        "total": ledger.total(runs),
        "runs": [
            (run, ledger.of_run(run))
            for run in runs.select_related("snapshot__dataset").order_by("-started_at")[:SHOWN_RUNS]
        ],
        "tab": "ledger",
    }
    return render(request, "finetune/ledger.html", context)
