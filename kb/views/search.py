"""The search page: a query, what narrows it, and the passages found."""

from dataclasses import dataclass, replace

from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_GET

from kb import facets, search
from kb.search import Hit, Results
from kb.views.context import scope
from kb.views.narrowing import Narrowing, narrowing_of
from kb.views.requests import PersonRequest, number_in

HITS_A_PAGE = 10
LAST_PAGE = 100
ASKED_ABOUT = 10
# Each facet is also the name of its parameter.
FACETS = {
    "collection": _("Collection"),
    "type": _("Format"),
    "tag": _("Tag"),
    "language": _("Language"),
    "year": _("Year"),
}


@dataclass(frozen=True, slots=True)
class ShownHit:
    """A hit with its snippet as HTML, query words marked."""

    hit: Hit
    snippet: SafeString
    url: str


@dataclass(frozen=True, slots=True)
class Choice:
    value: str
    label: str
    count: int
    is_chosen: bool


@require_GET
def search_page(request: PersonRequest) -> HttpResponse:
    query = " ".join(request.GET.get("q", "").split())
    narrowing = narrowing_of(request.GET, request.user)
    chosen = scope(request)
    if chosen and not narrowing.collections:
        narrowing = replace(narrowing, collections=(chosen,))
    context: dict[str, object] = {"q": query, "narrowing": narrowing}
    if query:
        page = _page_number(request)
        found = search.search_page(
            request.user,
            query,
            filters=narrowing.filters,
            limit=HITS_A_PAGE,
            offset=(page - 1) * HITS_A_PAGE,
        )
        context |= _found(request, narrowing, found, page)
    return render(request, _template(request), context)


def _template(request: PersonRequest) -> str:
    part = request.htmx and not request.htmx.history_restore_request
    return "kb/_search_results.html" if part else "kb/search.html"


def _page_number(request: PersonRequest) -> int:
    return min(LAST_PAGE, max(1, number_in(request.GET.get("page", "")) or 1))


def _found(
    request: PersonRequest, narrowing: Narrowing, found: Results, page: int
) -> dict[str, object]:
    pages = Paginator(range(min(found.total, LAST_PAGE * HITS_A_PAGE)), HITS_A_PAGE)
    documents = list(dict.fromkeys(hit.document_id for hit in found.hits))[:ASKED_ABOUT]
    return {
        "hits": [_shown(hit) for hit in found.hits],
        "total": found.total,
        "took_ms": round(sum(found.took_ms.values())),
        "page": pages.get_page(page),
        "facets": [
            (name, label, choices)
            for name, label in FACETS.items()
            if len(choices := _choices(found, name, _chosen(request, narrowing, name))) > 1
            or any(choice.is_chosen for choice in choices)
        ],
        "documents": documents,
        "only_near": bool(found.hits) and not any(hit.text_score for hit in found.hits),
    }


def _chosen(request: PersonRequest, narrowing: Narrowing, facet: str) -> list[str]:
    """Give what is chosen of a facet; a word such as "pdf" stands for its media types."""
    return list(narrowing.media_types) if facet == "type" else request.GET.getlist(facet)


def _choices(found: Results, facet: str, chosen: list[str]) -> list[Choice]:
    """Give a facet's values with their counts; chosen ones stay though nothing is left of them."""
    counted = [
        Choice(value, label, count, value in chosen)
        for value, label, count in found.facets.get(facet, [])
    ]
    values = {choice.value for choice in counted}
    gone = [
        Choice(value, facets.label_of(facet, value), 0, True)
        for value in chosen
        if value and value not in values
    ]
    return counted + ([] if facet == "collection" else gone)


def _shown(hit: Hit) -> ShownHit:
    return ShownHit(hit, _snippet(hit), reverse("source_chunk", args=[hit.chunk_id]))


def _snippet(hit: Hit) -> SafeString:
    """Give the best stretch of the passage, escaped, with the query's words marked."""
    start, end = hit.snippet_start, hit.snippet_end
    parts, position = ["… " if start else ""], start
    for first, last in hit.marks:
        first, last = max(first, position), min(last, end)
        if first < last:
            parts += [
                escape(hit.text[position:first]),
                f"<mark>{escape(hit.text[first:last])}</mark>",
            ]
            position = last
    parts += [escape(hit.text[position:end]), " …" if end < len(hit.text) else ""]
    return mark_safe("".join(parts))
