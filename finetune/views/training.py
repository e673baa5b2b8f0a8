"""Runs: plan one, read its pre-flight, follow it, compare a sweep; and what came out."""

import secrets
from dataclasses import fields
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpResponse
from django.shortcuts import get_list_or_404, get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_GET, require_http_methods, require_POST
from django_htmx.http import HttpResponseClientRefresh

from finetune import activation, advice, curves, devices
from finetune import training as journey
from finetune.hyperparameters import TrainingConfig
from finetune.models import Adapter, Dataset, DatasetSnapshot, TrainingRun
from finetune.training import RunRefused
from finetune.training_forms import RunForm
from kb.models import User
from kb.views.requests import PersonRequest, number_in

RUNS_SHOWN = 200
MOST_AN_HOUR = 1e6  # of any currency


def startable_by(user: User) -> QuerySet[DatasetSnapshot]:
    """Frozen snapshots the user may train on: readable, of a data set whose collection they own."""
    return DatasetSnapshot.objects.visible_to(user).filter(
        dataset__in=Dataset.objects.owned_by(user), state=DatasetSnapshot.State.READY
    )


def _runs(request: PersonRequest) -> QuerySet[TrainingRun]:
    related = ("snapshot__dataset__collection", "job", "preflight_job", "created_by", "adapter")
    return TrainingRun.objects.visible_to(request.user).select_related(*related)


@require_GET
def train(request: PersonRequest) -> HttpResponse:
    """List the runs, newest first."""
    context = {
        "runs": _runs(request).order_by("-pk")[:RUNS_SHOWN],
        "may_start": startable_by(request.user).exists(),
    }
    return render(request, "finetune/train.html", context)


@require_http_methods(["GET", "POST"])
def run_new(request: PersonRequest) -> HttpResponse:
    """Plan a run, or several that differ in learning rate and rank."""
    snapshots = startable_by(request.user).select_related("dataset__collection").order_by("-pk")
    initial = {
        "snapshot": number_in(request.GET.get("snapshot", "")),
        "base_model": settings.BASE_MODEL,
    }
    form = RunForm(request.POST or None, snapshots=snapshots, initial=initial)
    if request.method == "POST" and form.is_valid():
        try:
            run = _planned(form, request.user)
        except RunRefused as refusal:
            form.add_error("snapshot", str(refusal))
        else:
            return redirect("sweep", run.sweep) if run.sweep else redirect("run", run.pk)
    status = 400 if form.errors else 200
    return render(request, "finetune/run_new.html", {"form": form}, status=status)


@transaction.atomic
def _planned(form: RunForm, user: User) -> TrainingRun:
    """Plan all runs of the form or none, and give the last. Raises RunRefused."""
    configs, snapshot = form.configs(), form.cleaned_data["snapshot"]
    sweep = secrets.token_hex(8) if len(configs) > 1 else ""
    return [
        journey.plan(snapshot, user, name=name, config=config, sweep=sweep)
        for name, config in configs
    ][-1]


@require_GET
def run(request: PersonRequest, pk: int) -> HttpResponse:
    """Show a run from its pre-flight to its adapter; the part that changes polls itself."""
    found = get_object_or_404(_runs(request), pk=pk)
    if request.htmx and request.GET.get("was") != _stage(found):
        return HttpResponseClientRefresh()
    if request.htmx:
        return render(request, "finetune/_run.html", _run_context(request, found))
    context = _run_context(request, found) | _card_context(request, found)
    return render(request, "finetune/run.html", context)


def _card_context(request: PersonRequest, found: TrainingRun) -> dict[str, Any]:
    """Estimate the run on other cards, and on the one that was chosen at its price."""
    price = _price(request.GET.get("price", ""))
    cards = devices.estimates(found.preflight, hour_price=price, energy_price=settings.ENERGY_PRICE)
    named = request.GET.get("card", "")
    return {
        "cards": cards,
        "card": next((each for each in cards if each.device.name == named), None),
        "price": price,
        "utilisation": round(100 * devices.UTILISATION),
    }


def _price(text: str) -> float:
    try:
        price = float(text)
    except ValueError:
        return settings.DEVICE_HOUR_PRICE
    return price if 0 <= price <= MOST_AN_HOUR else settings.DEVICE_HOUR_PRICE


def _stage(run: TrainingRun) -> str:
    """Name what the rest of the page depends on."""
    looked_at = "looked-at" if run.preflight else "new"
    return f"{run.state}-{looked_at}{'-wrong' if run.error else ''}"


def _run_context(request: PersonRequest, found: TrainingRun) -> dict[str, Any]:
    loss, checked = _series(found, "loss"), _series(found, "evaluation_loss")
    return {
        "run": found,
        "config": _in_order(found.config),
        "report": found.preflight,
        "stage": _stage(found),
        "is_part": bool(request.htmx),
        "readers": advice.readers(found),
        "may_manage": startable_by(request.user).filter(pk=found.snapshot_id).exists(),
        "loss_chart": curves.chart([(_("training"), loss), (_("validation"), checked)]),
        "rate_chart": curves.chart(
            [(_("learning rate"), _series(found, "learning_rate"))], digits=2
        ),
        "last": found.metrics.exclude(loss=None).order_by("step").last(),
        "changes": not found.is_final
        and (found.state != TrainingRun.State.DRAFT or not found.preflight)
        and not found.error,
    }


def _in_order(config: dict[str, Any]) -> dict[str, Any]:
    """Give the settings as TrainingConfig lists them; the database keeps no order."""
    names = [field.name for field in fields(TrainingConfig)]
    return {name: config[name] for name in names if name in config}


@require_POST
def run_start(request: PersonRequest, pk: int) -> HttpResponse:
    found = _manageable(request, pk)
    try:
        journey.start(found, request.user)
    except RunRefused as refusal:
        messages.error(request, str(refusal))
    return redirect("run", pk)


@require_POST
def run_cancel(request: PersonRequest, pk: int) -> HttpResponse:
    if not journey.cancel(_manageable(request, pk), request.user):
        messages.info(request, _("This run has ended already."))
    return redirect("run", pk)


@require_POST
def run_resume(request: PersonRequest, pk: int) -> HttpResponse:
    try:
        journey.go_on(_manageable(request, pk), request.user)
    except RunRefused as refusal:
        messages.error(request, str(refusal))
    return redirect("run", pk)


def _manageable(request: PersonRequest, pk: int) -> TrainingRun:
    runs = TrainingRun.objects.filter(snapshot__in=startable_by(request.user))
    return get_object_or_404(runs, pk=pk)


@require_GET
def sweep(request: PersonRequest, key: str) -> HttpResponse:
    """Compare the runs of a sweep in one chart."""
    runs = get_list_or_404(_runs(request).order_by("pk"), sweep=key)
    context = {
        "runs": runs,
        "key": key,
        "loss_chart": curves.chart([(each.name, _series(each, "loss")) for each in runs]),
        "checked_chart": curves.chart(
            [(each.name, _series(each, "evaluation_loss")) for each in runs]
        ),
        "drafts": sum(each.state == TrainingRun.State.DRAFT for each in runs),
        "may_manage": startable_by(request.user).filter(pk=runs[0].snapshot_id).exists(),
    }
    return render(request, "finetune/sweep.html", context)


def _series(run: TrainingRun, name: str) -> list[curves.Point]:
    """Give (step, value) of one measure, where it was taken."""
    return list(
        run.metrics.filter(**{f"{name}__isnull": False}).order_by("step").values_list("step", name)
    )


@require_POST
def sweep_start(request: PersonRequest, key: str) -> HttpResponse:
    """Start every run of a sweep whose pre-flight allows it."""
    runs = get_list_or_404(TrainingRun, snapshot__in=startable_by(request.user), sweep=key)
    refused = sum(not _started(each, request.user) for each in runs)
    if refused:
        sentence = ngettext(
            "%(n)s run was not started; its page says why.",
            "%(n)s runs were not started; their pages say why.",
            refused,
        )
        messages.error(request, sentence % {"n": refused})
    return redirect("sweep", key)


def _started(run: TrainingRun, user: User) -> bool:
    if run.state != TrainingRun.State.DRAFT:
        return True
    try:
        journey.start(run, user)
    except RunRefused:
        return False
    return True


@require_GET
def adapters(request: PersonRequest) -> HttpResponse:
    """List the adapters that learned only from what the person may read, and whom each answers."""
    visible = Adapter.objects.visible_to(request.user).with_gate(request.user)
    found = visible.select_related("run__snapshot__dataset").order_by("-pk")
    layers = activation.speaking_adapters()
    rows = [(each, layers.get(each.name)) for each in found]
    return render(request, "finetune/adapters.html", {"rows": rows})


@require_GET
def adapter(request: PersonRequest, pk: int) -> HttpResponse:
    """Show an adapter: its card, files, contract, evaluations and activations."""
    visible = Adapter.objects.visible_to(request.user).select_related("run__snapshot__dataset")
    found = get_object_or_404(visible, pk=pk)
    context = {
        "adapter": found,
        "run": found.run,
        "may_see_run": TrainingRun.objects.visible_to(request.user)
        .filter(pk=found.run_id)
        .exists(),
        "may_manage": Adapter.objects.managed_by(request.user).filter(pk=pk).exists(),
        "audience": found.audience.order_by("name"),
    }
    return render(request, "finetune/adapter.html", context)
