"""Activations: ask for one, follow it, approve, take back; what serves now and to whom."""

from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from finetune import activation as journey
from finetune import guard
from finetune.activation import ActivationRefused
from finetune.models import Activation, Adapter
from finetune.serving_forms import ActivateForm
from kb.backends import get_backend
from kb.models import ModelDeployment, User
from kb.views.requests import PersonRequest, go_to
from workers import tasks

SHOWN = 100
# So far is each state on the way, for the page of an activation.
STEPS = ("requested", "placed", "loaded", "probed", "deployed")


@require_GET
def activations(request: PersonRequest) -> HttpResponse:
    """Say what serves now and to whom, and list the activations of one's adapters."""
    rows = journey.visible_to(request.user).order_by("-pk")[:SHOWN]
    context = {
        "layers": layers(request.user),
        "base_model": get_backend("GENERATOR").base_model,
        "rows": [(row, _compared(row)) for row in rows],
        "tab": "activations",
    }
    return render(request, "finetune/activations.html", context)


@dataclass(frozen=True, slots=True)
class Layer:
    """Who answers whom the layers above do not reach; `is_base`: everybody who is left.

    `adapter` is None too where the person may not see it.
    """

    name: str
    adapter: Adapter | None = None
    deployment: ModelDeployment | None = None
    is_base: bool = False


def layers(user: User) -> list[Layer]:
    """Give what speaks, asked first in front; the base model is asked last."""
    speaking = journey.speaking(get_backend("GENERATOR").base_model)
    names = [layer.adapter_name for layer in speaking]
    visible = Adapter.objects.visible_to(user).filter(name__in=names)
    seen = {adapter.name: adapter for adapter in visible.prefetch_related("audience")}
    found = [
        Layer(
            journey.shown_name(each, user),
            seen.get(each.adapter_name),
            each,
            is_base=not each.adapter_name,
        )
        for each in speaking
    ]
    base = Layer(journey.shown_name(None, user), is_base=True)
    return found if found and found[-1].is_base else [*found, base]


def _compared(row: Activation) -> guard.Comparison | None:
    return guard.compare(row) if row.deployed_at else None


@require_http_methods(["GET", "POST"])
def activate(request: PersonRequest, pk: int) -> HttpResponse:
    """Ask that an adapter serves: everybody, a share, or some groups."""
    managed = Adapter.objects.managed_by(request.user)
    adapter = get_object_or_404(managed.select_related("run__snapshot__dataset"), pk=pk)
    against = journey.gate(adapter)
    form = ActivateForm(request.POST or None, is_open=not against)
    if request.method == "POST" and form.is_valid():
        given = form.cleaned_data
        try:
            made = journey.request(
                adapter,
                request.user,
                reason=given["reason"],
                share=given["share"] / 100,
                groups=given.get("groups", ()),
                override_reason=given.get("override_reason", ""),
            )
        except ActivationRefused as refusal:
            form.add_error(None, str(refusal))
        else:
            tasks.hint_workers()
            return redirect("activation", made.pk)
    context = {
        "adapter": adapter,
        "form": form,
        "against": against,
        "unfit": journey.unfit(adapter),
        "audience": adapter.audience.order_by("name"),
        "layers": layers(request.user),
    }
    status = 400 if form.errors else 200
    return render(request, "finetune/activate.html", context, status=status)


def _rows(request: PersonRequest) -> QuerySet[Activation]:
    return journey.visible_to(request.user)


@require_GET
def activation(request: PersonRequest, pk: int) -> HttpResponse:
    """Show how far an activation is and what the probe found; the page follows it until its end."""
    found = get_object_or_404(_rows(request), pk=pk)
    template = "finetune/_activation.html" if request.htmx else "finetune/activation.html"
    return render(request, template, _context(request, found))


def _context(request: PersonRequest, found: Activation) -> dict[str, Any]:
    state = Activation.State
    # What ended after it was deployed had come all the way.
    reached = found.state if found.state in STEPS else ("deployed" if found.deployed_at else "")
    here = STEPS.index(reached) if reached else -1
    # What failed or was taken back on the way says so, and waits for nothing any more.
    shown = STEPS if reached or found.state in journey.UNDER_WAY else ()
    return {
        "activation": found,
        "steps": [(state(step).label, at <= here, at == here + 1) for at, step in enumerate(shown)],
        "moves": found.state in journey.UNDER_WAY and found.state != state.WAITING,
        "compared": _compared(found),
        "may_approve": found.state == state.WAITING and found.requested_by != request.user,
        "groups": found.groups.order_by("name"),
        "following": _following(found, request) if found.state == state.DEPLOYED else "",
    }


def _following(found: Activation, request: PersonRequest) -> str:
    """Name the adapter that answers again; "" for the base model."""
    following = journey.what_would_serve(found)
    return journey.shown_name(following[0], request.user) if following else ""


@require_POST
def activation_approve(request: PersonRequest, pk: int) -> HttpResponse:
    """Let an activation start that somebody else asked for."""
    found = get_object_or_404(_rows(request), pk=pk)
    try:
        journey.approve(found, request.user)
        tasks.hint_workers()
    except ActivationRefused as refusal:
        messages.error(request, str(refusal))
    return go_to(request, "activation", pk)


@require_POST
def activation_withdraw(request: PersonRequest, pk: int) -> HttpResponse:
    """Take back what waits for a second person."""
    found = get_object_or_404(_rows(request), pk=pk)
    try:
        journey.withdraw(found, request.user)
    except ActivationRefused as refusal:
        messages.error(request, str(refusal))
    return go_to(request, "activation", pk)


@require_POST
def activation_back(request: PersonRequest, pk: int) -> HttpResponse:
    """Let what served before serve again."""
    found = get_object_or_404(_rows(request), pk=pk)
    try:
        now = journey.roll_back(found, request.user, reason=request.POST.get("reason", "")[:1_000])
        messages.success(request, _("%(name)s answers again.") % {"name": now})
    except ActivationRefused as refusal:
        messages.error(request, str(refusal))
    return go_to(request, "activation", pk)


@require_POST
def adapter_retire(request: PersonRequest, pk: int) -> HttpResponse:
    """Take an adapter that answers nobody off the server."""
    adapter = get_object_or_404(Adapter.objects.managed_by(request.user), pk=pk)
    try:
        journey.retire(adapter, request.user, reason=request.POST.get("reason", "")[:1_000])
        messages.success(request, _("The server has unloaded it. Its files are kept."))
    except ActivationRefused as refusal:
        messages.error(request, str(refusal))
    return go_to(request, "adapter", pk)
