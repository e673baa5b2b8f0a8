"""The pairs of a data set: narrow and sort the list, save a view of it, act on many at once."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC
from math import isfinite
from typing import Any

from django.contrib import messages
from django.db.models import Count, F, FloatField, Q, QuerySet, Value
from django.db.models.functions import Cast, Coalesce
from django.http import Http404, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext_lazy
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from finetune import bulk
from finetune.forms import SORTS, PairFilterForm, RejectForm, TagPairsForm
from finetune.models import Dataset, InstructionPair, SavedView
from finetune.views.review import find_dataset, storable
from kb.views.requests import PersonRequest, number_in

PAGE_ROWS = 50
MAX_SELECTED = 1_000
# A support that is not known sorts behind all others.
_UNKNOWN_SUPPORT = 2.0
# Columns that the list never shows, and that are long.
_UNSHOWN = ("messages", "input", "rejected", "system", "findings", "bands", "extra")


@dataclass(frozen=True, slots=True)
class StateCount:
    """How many pairs are in a state that the list can be narrowed to; "" is any."""

    state: str
    label: str
    number: int


@require_GET
def dataset(request: PersonRequest, pk: int) -> HttpResponse:
    """List the pairs of a data set that the person may see."""
    found = find_dataset(request, pk)
    visible = InstructionPair.objects.visible_to(request.user).filter(dataset=found)
    form = PairFilterForm(request.GET)
    sort = request.GET.get("sort", "")
    sort = sort if sort in SORTS else "newest"
    rows, after = _page(form.narrow(visible), sort, request.GET.get("after", ""))
    context = {
        "dataset": found,
        "tab": "pairs",
        "rows": rows,
        "after": after,
        "sort": sort,
        "form": form,
        "is_narrowing": form.is_narrowing,
    }
    if request.htmx and request.GET.get("after"):
        return render(request, "finetune/_pair_rows.html", context)
    context |= {
        "counts": _counts(visible),
        "chosen_state": form.cleaned_data.get("state", ""),
        "languages": _languages(visible),
        "views": SavedView.objects.filter(user=request.user, dataset=found).order_by("name"),
        "query_string": _query_string(request.GET),
        "sorts": [(name, label) for name, (_by, label, _down) in SORTS.items()],
    }
    return render(request, "finetune/dataset.html", context)


def _page(
    pairs: QuerySet[InstructionPair], sort: str, after: str
) -> tuple[list[InstructionPair], str]:
    """Give one page after a cursor ("" for the first) and the next cursor ("" at the end).

    Pages are found by the last row's values: the thousandth costs as much as the first.
    """
    column, _label, descends = SORTS[sort]
    name, way = column, "lt" if descends else "gt"
    if column == "support":
        unknown = Value(_UNKNOWN_SUPPORT, output_field=FloatField())
        pairs, name = pairs.annotate(by=Coalesce("support", unknown)), "by"
    elif column in ("priority", "repetition"):
        pairs, name = pairs.annotate(by=Cast(F(column), FloatField())), "by"
    elif column == "flags__len":
        pairs, name = pairs.annotate(by=F(column)), "by"
    text, _sep, number = after.rpartition("~")
    value, pk = _value(column, text), number_in(number)
    if pk is not None and column == "pk":
        pairs = pairs.filter(**{f"pk__{way}": pk})
    elif pk is not None and value is not None:
        pairs = pairs.filter(Q(**{f"{name}__{way}": value}) | Q(**{name: value, f"pk__{way}": pk}))
    sign = "-" if descends else ""
    ordered = pairs.order_by(*dict.fromkeys([f"{sign}{name}", f"{sign}pk"]))
    found = list(ordered.defer(*_UNSHOWN).select_related("reviewer")[: PAGE_ROWS + 1])
    rows = found[:PAGE_ROWS]
    if len(found) <= PAGE_ROWS:
        return rows, ""
    last = getattr(rows[-1], name)
    return rows, f"{last.isoformat() if column == 'updated_at' else last}~{rows[-1].pk}"


def _value(column: str, text: str) -> Any:
    """Read the last row's value of a column from a cursor; None when it is none."""
    if column == "language":
        return storable(text)
    if column in ("word_count", "output_words", "flags__len"):
        return number_in(text)
    try:
        if column == "updated_at":
            at = parse_datetime(text)
            return at.astimezone(UTC) if at and at.tzinfo else None
        number = float(text)
    except (ValueError, OverflowError):
        return None
    return number if isfinite(number) else None


def _counts(pairs: QuerySet[InstructionPair]) -> list[StateCount]:
    by_state = dict(pairs.order_by().values_list("state").annotate(n=Count("pk")))
    counts = [StateCount("", _("All"), sum(by_state.values()))]
    for value, label in InstructionPair.State.choices:
        if number := by_state.get(value, 0):
            counts.append(StateCount(value, label, number))
    return counts


def _languages(pairs: QuerySet[InstructionPair]) -> list[str]:
    """Give the most frequent languages; a file of noise must not make a list of hundreds."""
    found = pairs.exclude(language="").order_by().values_list("language")
    counted = found.annotate(n=Count("pk")).order_by("-n")[:30]
    return sorted(language for language, _n in counted)


def _query_string(values: QueryDict) -> str:
    kept = values.copy()
    kept.pop("after", None)
    for name in [name for name, value in kept.items() if not value]:
        del kept[name]
    return kept.urlencode()


# --- Saved views ---------------------------------------------------------------------------------


@require_POST
def view_save(request: PersonRequest, pk: int) -> HttpResponse:
    """Keep the present filter under a name; the same name again replaces it."""
    found = find_dataset(request, pk)
    name = " ".join(storable(request.POST.get("name", "")).split())[:80]
    query = _query_string(QueryDict(storable(request.POST.get("query", ""))[:2000]))
    if name:
        SavedView.objects.update_or_create(
            user=request.user, dataset=found, name=name, defaults={"query": query}
        )
    else:
        messages.error(request, _("Give the view a name."))
    return redirect(f"{reverse('dataset', args=[pk])}?{query}")


@require_POST
def view_delete(request: PersonRequest, pk: int) -> HttpResponse:
    mine = SavedView.objects.filter(
        user=request.user, dataset__in=Dataset.objects.visible_to(request.user)
    )
    view = get_object_or_404(mine, pk=pk)
    view.delete()
    return redirect("dataset", view.dataset_id)


# --- Many at once --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BulkAction:
    """Something to do with many pairs. `which` narrows them to those it can be done with."""

    title: Any
    button: Any
    done: Any
    which: Callable[..., QuerySet[InstructionPair]]
    form: type[RejectForm] | type[TagPairsForm] | None = None
    rule: Any = ""
    is_dangerous: bool = False


def _all(pairs: QuerySet[InstructionPair], *_user: Any) -> QuerySet[InstructionPair]:
    return pairs


ACTIONS: dict[str, BulkAction] = {
    "approve": BulkAction(
        gettext_lazy("Approve pairs"),
        gettext_lazy("Approve"),
        ngettext_lazy("%d pair was judged.", "%d pairs were judged."),
        bulk.approvable,
        rule=gettext_lazy(
            "Only imported and typed pairs without a flag can be approved together. Drafts of a"
            " model, rated answers and stale pairs want a person who looks at each."
        ),
    ),
    "reject": BulkAction(
        gettext_lazy("Reject pairs"),
        gettext_lazy("Reject"),
        ngettext_lazy("%d pair was judged.", "%d pairs were judged."),
        bulk.rejectable,
        form=RejectForm,
    ),
    "tag": BulkAction(
        gettext_lazy("Tag pairs"),
        gettext_lazy("Add the tags"),
        ngettext_lazy("%d pair was tagged.", "%d pairs were tagged."),
        _all,
        form=TagPairsForm,
    ),
    "reopen": BulkAction(
        gettext_lazy("Open pairs again"),
        gettext_lazy("Open again"),
        ngettext_lazy("%d pair waits again.", "%d pairs wait again."),
        lambda pairs, _user: bulk.decided(pairs),
        rule=gettext_lazy("What was judged of them counts no longer."),
    ),
    "delete": BulkAction(
        gettext_lazy("Delete pairs"),
        gettext_lazy("Delete"),
        ngettext_lazy("%d pair was deleted.", "%d pairs were deleted."),
        _all,
        rule=gettext_lazy("Snapshots that hold them keep their copies. This cannot be undone."),
        is_dangerous=True,
    ),
}


@require_http_methods(["GET", "POST"])
def pairs_act(request: PersonRequest, pk: int, action: str) -> HttpResponse:
    """Say what an action would do with the selected pairs, or with all of a filter; then do it."""
    found = find_dataset(request, pk)
    if action not in ACTIONS:
        raise Http404
    chosen, values = ACTIONS[action], request.POST or request.GET
    selected = _selected(request, found, values)
    form = chosen.form(request.POST or None) if chosen.form else None
    if request.method == "POST" and (form is None or form.is_valid()):
        count = _act(action, selected, found, request, form.cleaned_data if form else {})
        messages.success(request, chosen.done % count)
        address = f"{reverse('dataset', args=[pk])}?{values.get('query', '')[:2000]}"
        if request.htmx:
            return HttpResponse(status=204, headers={"HX-Redirect": address})
        return redirect(address)
    possible, count = chosen.which(selected, request.user).count(), selected.count()
    context = {
        "dataset": found,
        "action": action,
        "chosen": chosen,
        "form": form,
        "count": count,
        "possible": possible,
        "left": count - possible,
        "ids": values.getlist("pair")[:MAX_SELECTED] if not values.get("whole") else [],
        "whole": values.get("whole", ""),
        "query_string": values.get("query", "")[:2000],
        "used": is_in_snapshot(selected) if action == "delete" else False,
    }
    return render(request, "finetune/pairs_act.html", context)


def is_in_snapshot(pairs: QuerySet[InstructionPair]) -> bool:
    """Whether any of the pairs stands in a snapshot."""
    return pairs.filter(snapshot_rows__isnull=False).exists()


def _selected(
    request: PersonRequest, found: Dataset, values: QueryDict
) -> QuerySet[InstructionPair]:
    """The pairs that a request names, or all of its filter. 404 when it names none or others'."""
    visible = InstructionPair.objects.visible_to(request.user).filter(dataset=found)
    if values.get("whole"):
        return PairFilterForm(QueryDict(values.get("query", "")[:2000])).narrow(visible)
    named = {
        number for text in values.getlist("pair")[:MAX_SELECTED] if (number := number_in(text))
    }
    selected = visible.filter(pk__in=named)
    if not named or selected.count() != len(named):
        raise Http404
    return selected


def _act(
    action: str,
    pairs: QuerySet[InstructionPair],
    found: Dataset,
    request: PersonRequest,
    typed: dict[str, Any],
) -> int:
    if action == "approve":
        return bulk.approve_all(pairs, found, request.user)
    if action == "reject":
        return bulk.reject_all(pairs, found, request.user, typed["reason"])
    if action == "tag":
        return bulk.tag_all(pairs, found, request.user, typed["tags"])
    if action == "reopen":
        return bulk.reopen_all(pairs, found, request.user)
    return bulk.delete_all(pairs, found, request.user)
