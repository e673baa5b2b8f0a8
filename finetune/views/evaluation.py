"""An evaluation with its gate, and the arena in which people compare blindly."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from finetune import arena as journey
from finetune import evaluation as evaluating
from finetune import metrics
from finetune.gate import InvalidRules, p_in_words
from finetune.models import Adapter, Evaluation, EvaluationItem
from finetune.suites import SAFETY
from kb.views.requests import PersonRequest, number_in

SHOWN_SAMPLES = 12
CELL_NAMES = {
    "base": gettext_lazy("Base"),
    "base+retrieval": gettext_lazy("Base with sources"),
    "adapter": gettext_lazy("Adapter"),
    "adapter+retrieval": gettext_lazy("Adapter with sources"),
}
MEASURE_NAMES = {
    "f1": gettext_lazy("Token F1"),
    "rouge_l": gettext_lazy("ROUGE-L"),
    "exact": gettext_lazy("Exact match"),
    "bleu": gettext_lazy("BLEU"),
    "nats": gettext_lazy("Perplexity of the expected answer"),
    "citations": gettext_lazy("Citation accuracy"),
    "grounded": gettext_lazy("Groundedness"),
    "abstention": gettext_lazy("Right to answer or to decline"),
    "answered_wrongly": gettext_lazy("Answered what the sources do not hold"),
    "abstained_wrongly": gettext_lazy("Declined what the sources hold"),
    "ended": gettext_lazy("Ended by the stop token"),
}
LESS_IS_BETTER = {"nats", "answered_wrongly", "abstained_wrongly"}


@require_GET
def evaluation(request: PersonRequest, pk: int) -> HttpResponse:
    """Show what was measured, what the gate says, and answers side by side."""
    found = get_object_or_404(evaluating.visible_to(request.user), pk=pk)
    context = {
        "evaluation": found,
        "adapter": found.adapter,
        "is_managed": Adapter.objects.managed_by(request.user).filter(pk=found.adapter_id).exists(),
        **_shown(found),
    }
    template = "finetune/_evaluation.html" if request.htmx else "finetune/evaluation.html"
    return render(request, template, context)


def _shown(found: Evaluation) -> dict[str, Any]:
    if found.state != Evaluation.State.DONE or not found.results:
        return {}
    results = found.results
    return {
        "groups": _groups(results["cells"]),
        "tests": _in_words(results["tests"]),
        "more_tests": [
            (_("Adapter against base, question alone"), _in_words(results["tests_alone"])),
            (_("What sources add to the adapter"), _in_words(results["tests_retrieval"])),
        ],
        "regression": _in_words(results["regression"]["tests"]),
        "forgetting": results["forgetting"] and _forgetting(results["forgetting"]),
        "safety": [
            (suite, results["safety"][suite]) for suite in SAFETY if suite in results["safety"]
        ],
        "judge": results["judge"],
        "samples": list(_samples(found)),
        "tally": journey.tally(found.adapter),
    }


@dataclass(frozen=True, slots=True)
class Bar:
    """A cell's mean as a bar from 0 to 100, with its interval; `text` is the number."""

    name: str
    place: int
    width: float
    low: float
    high: float
    text: str
    interval: str


@dataclass(frozen=True, slots=True)
class Group:
    """One measure in the cells that have it. `direction` says what is better."""

    name: str
    n: int
    bars: list[Bar]
    less_is_better: bool


def _groups(cells: Mapping[str, Any]) -> list[Group]:
    found = []
    for measure, name in MEASURE_NAMES.items():
        estimates = {cell: cells[cell][measure] for cell in CELL_NAMES if measure in cells[cell]}
        if estimates:
            bars = _bars(measure, estimates)
            n = max(each["n"] for each in estimates.values())
            found.append(Group(str(name), n, bars, measure in LESS_IS_BETTER))
    return found


def _bars(measure: str, estimates: Mapping[str, Mapping[str, float]]) -> list[Bar]:
    of = metrics.perplexity if measure == "nats" else float
    values = {
        cell: [of(each[key]) for key in ("mean", "low", "high")] for cell, each in estimates.items()
    }
    top = max(value[2] for value in values.values()) if measure == "nats" else 1.0
    bars = []
    for cell, value in values.items():
        mean, low, high = (round(min(100.0, 100 * part / (top or 1)), 2) for part in value)
        shown = [f"{part:,.4g}" if measure == "nats" else f"{part:.1%}" for part in value]
        place = list(CELL_NAMES).index(cell)
        bars.append(
            Bar(str(CELL_NAMES[cell]), place, mean, low, high, shown[0], f"{shown[1]}–{shown[2]}")
        )
    return bars


@dataclass(frozen=True, slots=True)
class Said:
    """One paired test in words; `verdict`: "better", "worse" or "same" at p < 0.05."""

    name: str
    verdict: str
    difference: str
    interval: str
    p: str
    n: int


def _in_words(tests: Mapping[str, Any]) -> list[Said]:
    return [
        _said(str(title), name, tests[name])
        for name, title in MEASURE_NAMES.items()
        if name in tests
    ]


def _said(title: str, name: str, test: Mapping[str, Any]) -> Said:
    good = test["difference"] < 0 if name in LESS_IS_BETTER else test["difference"] > 0
    verdict = "same" if test["p"] >= 0.05 else "better" if good else "worse"
    unit, factor = (_("nats a token"), 1) if name == "nats" else (_("points"), 100)
    low, high, apart = (factor * test[key] for key in ("low", "high", "difference"))
    digits = 3 if name == "nats" else 1
    return Said(
        _("Likelihood of the expected answer") if name == "nats" else title,
        verdict,
        f"{apart:+.{digits}f} {unit}".replace("-", "−"),
        f"{low:+.{digits}f} … {high:+.{digits}f}".replace("-", "−"),
        p_in_words(test["p"]),
        test["n"],
    )


def _forgetting(found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "before": f"{metrics.perplexity(found['base']['mean']):,.4g}",
        "after": f"{metrics.perplexity(found['adapter']['mean']):,.4g}",
        "said": _said("", "nats", found["test"]),
    }


@dataclass(frozen=True, slots=True)
class Sample:
    """A question with the answers of base and adapter, both with sources, and their F1, 0–1."""

    base: EvaluationItem
    adapter: EvaluationItem

    @property
    def gain(self) -> float:
        return float(self.adapter.scores.get("f1", 0) - self.base.scores.get("f1", 0))


def _samples(found: Evaluation) -> Iterator[Sample]:
    """Give the questions that lost most, then those that gained most."""
    every = sorted(
        (Sample(*pair) for pair in evaluating.both_answers(found)), key=lambda each: each.gain
    )
    half = SHOWN_SAMPLES // 2
    yield from every[:half]
    yield from every[max(half, len(every) - half) :][::-1]


@require_POST
def adapter_evaluate(request: PersonRequest, pk: int) -> HttpResponse:
    """Queue an evaluation of an adapter that one manages."""
    adapter = get_object_or_404(Adapter.objects.managed_by(request.user), pk=pk)
    try:
        made = evaluating.start(adapter, request.user)
    except InvalidRules as refusal:
        messages.error(request, str(refusal))
        return redirect("adapter", pk)
    return redirect("evaluation", made.pk)


@require_http_methods(["GET", "POST"])
def arena(request: PersonRequest, pk: int) -> HttpResponse:
    """Show two answers without names; after a vote say whose they were, and show the next two."""
    adapter = get_object_or_404(journey.visible_to(request.user), pk=pk)
    last = None
    if request.method == "POST":
        key = number_in(request.POST.get("vote", "")) or 0
        last = journey.vote(key, request.POST.get("verdict", ""), request.user)
        if last is None or last.adapter_id != adapter.pk:
            raise Http404
    context = {
        "adapter": adapter,
        "last": last,
        "shown": journey.draw(adapter, request.user),
        "tally": journey.tally(adapter),
    }
    template = "finetune/_arena.html" if request.htmx else "finetune/arena.html"
    return render(request, template, context)
