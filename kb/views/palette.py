"""The command palette: places whose name holds what was typed."""

from dataclasses import dataclass

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import urlencode
from django.utils.translation import gettext, gettext_lazy
from django.views.decorators.http import require_GET

from kb.models import Conversation, Document

SHOWN = 6
PAGES = [
    ("ask", gettext_lazy("Ask"), "ask"),
    ("search", gettext_lazy("Search"), "search"),
    ("documents", gettext_lazy("Documents"), "documents"),
    ("collections", gettext_lazy("Collections"), "collection"),
    ("account", gettext_lazy("Account and tokens"), "person"),
]


@dataclass(frozen=True, slots=True)
class Place:
    url: str
    label: str
    icon: str
    hint: str = ""


@require_GET
def palette(request: HttpRequest) -> HttpResponse:
    typed = request.GET.get("q", "").strip()
    groups = [(gettext("Pages"), _pages(typed))]
    if typed:
        groups += [
            (gettext("Documents"), _documents(request, typed)),
            (gettext("Conversations"), _conversations(request, typed)),
            (gettext("In the documents"), [_search(typed)]),
        ]
    return render(request, "kb/_palette_list.html", {"groups": [g for g in groups if g[1]]})


def _pages(typed: str) -> list[Place]:
    return [
        Place(reverse(route), str(label), icon)
        for route, label, icon in PAGES
        if typed.lower() in str(label).lower()
    ]


def _documents(request: HttpRequest, typed: str) -> list[Place]:
    found = Document.objects.visible_to(request.user).filter(title__icontains=typed)
    return [
        Place(reverse("document", args=[row.pk]), row.title, "document", row.collection.name)
        for row in found.select_related("collection").order_by("-updated_at")[:SHOWN]
    ]


def _conversations(request: HttpRequest, typed: str) -> list[Place]:
    found = Conversation.objects.visible_to(request.user).filter(title__icontains=typed)
    return [
        Place(reverse("conversation", args=[row.pk]), row.title, "ask")
        for row in found.order_by("-updated_at")[:SHOWN]
    ]


def _search(typed: str) -> Place:
    url = f"{reverse('search')}?{urlencode({'q': typed})}"
    return Place(url, gettext("Search for “%(words)s”") % {"words": typed}, "search")
