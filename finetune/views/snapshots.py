"""Snapshots of a data set: freeze, read the report, compare, take the file."""

import json
from dataclasses import dataclass
from typing import Any

from django.db.models import Q, QuerySet
from django.http import HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_http_methods

from finetune import snapshots as journey
from finetune.forms import FreezeForm
from finetune.models import Dataset, DatasetSnapshot, InstructionPair
from finetune.splitting import PARTS
from kb.downloads import send
from kb.models import User
from kb.views.requests import PersonRequest, number_in
from workers import tasks

SHOWN_LEAKS = 10
SHOWN_DIFFERENCES = 50


@require_http_methods(["GET", "POST"])
def snapshots(request: PersonRequest, pk: int) -> HttpResponse:
    """List the snapshots of a data set; the form freezes another."""
    visible = Dataset.objects.visible_to(request.user).select_related("collection")
    dataset = get_object_or_404(visible, pk=pk)
    form = FreezeForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        made = journey.start(
            dataset,
            request.user,
            seed=form.cleaned_data["seed"],
            train_share=form.cleaned_data["train"] / 100,
            validation_share=form.cleaned_data["validation"] / 100,
        )
        tasks.hint_workers()
        return redirect("snapshot", made.pk)
    pairs = InstructionPair.objects.visible_to(request.user).filter(dataset=dataset)
    context = {
        "dataset": dataset,
        "tab": "snapshots",
        "form": form,
        "approved": pairs.approved().count(),
        "snapshots": _snapshots(request).filter(dataset=dataset).order_by("-number"),
    }
    status = 400 if form.errors else 200
    return render(request, "finetune/snapshots.html", context, status=status)


def _snapshots(request: PersonRequest) -> QuerySet[DatasetSnapshot]:
    visible = DatasetSnapshot.objects.visible_to(request.user)
    return visible.select_related("dataset__collection", "job", "created_by")


@require_GET
def snapshot(request: PersonRequest, pk: int) -> HttpResponse:
    """Show what a snapshot holds, what leaks, who may read it, and how it differs from another."""
    found = get_object_or_404(_snapshots(request), pk=pk)
    ready = DatasetSnapshot.State.READY
    others = _snapshots(request).filter(dataset=found.dataset_id, state=ready).exclude(pk=pk)
    other = others.filter(pk=number_in(request.GET.get("with", "")) or 0).first()
    context: dict[str, Any] = {
        "dataset": found.dataset,
        "tab": "snapshots",
        "snapshot": found,
        "others": others.order_by("-number"),
        "other": other,
        "may_delete": Dataset.objects.owned_by(request.user).filter(pk=found.dataset_id).exists()
        and not found.runs.exists(),
    }
    if found.state == ready:
        context |= {
            "parts": _parts(found),
            "bars": _length_bars(found),
            "leaks": _leaks_between(found),
            "exams": _exams(request, found),
            "audience": found.audience.order_by("name"),
            "readers_count": _readers_count(found),
        }
    if other is not None and found.state == ready:
        context["difference"] = _difference(other, found)
    return render(request, "finetune/snapshot.html", context)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the snapshot in a bar 100 wide: from `start`, `width` long."""

    name: str
    count: int
    start: float
    width: float
    tokens: dict[str, Any]


def _parts(found: DatasetSnapshot) -> list[Part]:
    parts, start = [], 0.0
    total = sum(found.counts.values()) or 1
    for name in PARTS:  # the database has its own order
        count = found.counts[name]
        width = round(100 * count / total, 3)
        parts.append(Part(name, count, round(start, 3), width, found.statistics["tokens"][name]))
        start += width
    return parts


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of the lengths: so many pairs of up to `label` tokens; coordinates of the drawing."""

    label: str
    count: int
    x: int
    y: float
    height: float


_HEIGHT, _STEP = 80, 76


def _length_bars(found: DatasetSnapshot) -> list[Bar]:
    tokens, edges = found.statistics["tokens"].values(), found.statistics["token_edges"]
    counts = [sum(each) for each in zip(*(part["histogram"] for part in tokens), strict=True)]
    labels = [f"≤ {edge}" for edge in edges] + [f"> {edges[-1]}"]
    most = max(counts) or 1
    return [
        Bar(label, count, place * _STEP, round(_HEIGHT * (1 - count / most), 1) + 18,
            round(_HEIGHT * count / most, 1))
        for place, (label, count) in enumerate(zip(labels, counts, strict=True))
    ]  # fmt: skip


def _leaks_between(found: DatasetSnapshot) -> dict[str, Any]:
    between = found.leakage["between"]
    shown = [
        (kind, leak) for kind, leaks in between["shown"].items() for leak in leaks[:SHOWN_LEAKS]
    ]
    is_clean = not any(between[kind] for kind in ("exact", "near", "documents"))
    left_out = sum(found.counts.values()) - found.leakage["compared_by_meaning"]
    return {**between, "shown": shown, "is_clean": is_clean, "left_out": left_out}


def _exams(request: PersonRequest, found: DatasetSnapshot) -> list[dict[str, Any]]:
    """Give the data sets it was compared with that the person may see."""
    compared = found.leakage["evaluation"]
    visible = Dataset.objects.visible_to(request.user).in_bulk(
        [each["dataset"] for each in compared]
    )
    return [
        {
            **each,
            "name": visible[each["dataset"]],
            "left_out": each["pairs"] - each.get("compared_by_meaning", each["pairs"]),
            "shown": [
                (kind, leak)
                for kind, leaks in each["shown"].items()
                for leak in leaks[:SHOWN_LEAKS]
            ],
        }
        for each in compared
        if each["dataset"] in visible
    ]


def _readers_count(found: DatasetSnapshot) -> int:
    """Count the people who may read every collection of the audience, administrators among them."""
    people = User.objects.filter(is_active=True)
    for collection in found.audience.filter(is_public=False):
        member = Q(pk__in=collection.memberships.values("user"))
        member |= Q(groups__in=collection.memberships.exclude(group=None).values("group"))
        people = people.filter(member | Q(is_superuser=True))
    return people.distinct().count()


def _difference(one: DatasetSnapshot, other: DatasetSnapshot) -> list[tuple[str, int, list[int]]]:
    found = journey.compare(one, other)
    kinds = {
        "added": found.added,
        "removed": found.removed,
        "changed": found.changed,
        "moved": found.moved,
    }
    return [(kind, len(pairs), pairs[:SHOWN_DIFFERENCES]) for kind, pairs in kinds.items()]


@require_GET
def snapshot_state(request: PersonRequest, pk: int) -> HttpResponse:
    """Draw the line about a snapshot that is being frozen again."""
    found = get_object_or_404(_snapshots(request), pk=pk)
    response = render(request, "finetune/_snapshot_state.html", {"snapshot": found})
    if found.job.is_final:
        response["HX-Refresh"] = "true"
    return response


@require_GET
def snapshot_file(request: PersonRequest, pk: int) -> HttpResponseBase:
    """Download the frozen file, JSON lines."""
    found = _ready(request, pk)
    return send(request, journey.pieces(found), f"{_name(found)}.jsonl", "application/jsonl")


@require_GET
def snapshot_manifest(request: PersonRequest, pk: int) -> HttpResponseBase:
    """Download what is needed to make the same file again."""
    found = _ready(request, pk)
    manifest = json.dumps(found.manifest, indent=1, ensure_ascii=False).encode()
    return send(request, iter([manifest]), f"{_name(found)}.manifest.json", "application/json")


def _ready(request: PersonRequest, pk: int) -> DatasetSnapshot:
    return get_object_or_404(_snapshots(request).filter(state=DatasetSnapshot.State.READY), pk=pk)


def _name(found: DatasetSnapshot) -> str:
    return f"{found.dataset.name} {found.number}"
