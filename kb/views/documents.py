"""The list of documents: narrow it, add files to it, and act on many at once."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.core.files.uploadedfile import UploadedFile
from django.db import transaction
from django.db.models import Count, Q, QuerySet, Sum
from django.http import Http404, HttpResponse, HttpResponseBadRequest
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from kb import limits
from kb.forms import WORKING, DocumentFilterForm, TagDocumentsForm, TagsField
from kb.models import Collection, Document, DocumentVersion, User
from kb.models.documents import Added, UploadRefused
from kb.views.context import scope
from kb.views.requests import PersonRequest, go_to, number_in
from workers import tasks

PAGE_ROWS = 50
# More than a page can show; a hand-made request does not get to name a million rows.
MAX_SELECTED = 1_000
UNFINISHED = (Document.State.QUEUED, Document.State.INGESTING)
SORTS = {"updated": ("-updated_at", "-pk"), "name": ("name", "pk")}


@dataclass(frozen=True, slots=True)
class Row:
    """A document as the list shows it. `version` is its newest one, with its job."""

    document: Document
    version: DocumentVersion
    may_write: bool


def rows_of(documents: Iterable[Document], user: User) -> list[Row]:
    """Complete documents for the list, in two queries however many there are."""
    documents = list(documents)
    newest = (
        DocumentVersion.objects.filter(document__in=documents)
        .order_by("document", "-number")
        .distinct("document")
        .select_related("job")
        .defer("text")
    )
    versions = {version.document_id: version for version in newest}
    writable = set(Collection.objects.writable_by(user).values_list("pk", flat=True))
    return [
        Row(document, versions[document.pk], document.collection_id in writable)
        for document in documents
    ]


def for_rows(documents: QuerySet[Document]) -> QuerySet[Document]:
    return documents.select_related("collection", "added_by")


@require_GET
def documents(request: PersonRequest) -> HttpResponse:
    return _list(request, scope(request))


@require_GET
def collection(request: PersonRequest, pk: int) -> HttpResponse:
    readable = Collection.objects.readable_by(request.user)
    return _list(request, get_object_or_404(readable, pk=pk))


def _list(request: PersonRequest, collection: Collection | None) -> HttpResponse:
    found = Document.objects.visible_to(request.user)
    if collection:
        found = found.filter(collection=collection)
    form = DocumentFilterForm(request.GET)
    sort = request.GET.get("sort", "")
    sort = sort if sort in SORTS else "updated"
    page, after = _page(form.narrow(found), sort, request.GET.get("after", ""))
    rows = rows_of(page, request.user)
    counts = _counts(found)
    context = {
        "collection": collection,
        "form": form,
        "rows": rows,
        "sort": sort,
        "after": after,
        "chosen_state": form.cleaned_data.get("state", ""),
        "counts": counts,
        "unfinished": [row for row in rows if not row.document.is_final],
        "working": any(count.state == WORKING for count in counts),
        "may_select": any(row.may_write for row in rows),
    }
    if request.htmx and request.GET.get("after"):
        return render(request, "kb/_document_rows.html", {**context, "is_continued": True})
    context |= {"targets": _targets(request.user, collection)}
    if request.htmx and not request.htmx.history_restore_request:
        return render(request, "kb/_document_table.html", {**context, "is_update": True})
    context |= {
        **_standing(request, collection),
        "max_upload_bytes": settings.MAX_UPLOAD_BYTES,
        "max_upload_mb": settings.MAX_UPLOAD_BYTES // 2**20,
    }
    return render(request, "kb/documents.html", context)


def _standing(request: PersonRequest, collection: Collection | None) -> dict[str, bool]:
    """Say which pages about the collection the person may open, where the list is its page."""
    match = request.resolver_match
    if collection is None or match is None or match.url_name != "collection":
        return {}
    user, memberships = request.user, collection.memberships
    is_owner = Collection.objects.owned_by(user).filter(pk=collection.pk).exists()
    mine = memberships.filter(Q(user=user) | Q(group__in=user.groups.all()))
    return {
        "is_page_of_collection": True,
        "is_owner": is_owner,
        "is_member": is_owner or mine.exists(),
    }


def _page(documents: QuerySet[Document], sort: str, after: str) -> tuple[list[Document], str]:
    """Give one page after a cursor ("" for the first) and the next cursor ("" at the end).

    Pages are found by the last row's values, not by counting rows: the thousandth page costs as
    much as the first.
    """
    value, _sep, number = after.rpartition("~")
    pk = number_in(number)
    if pk is not None and sort == "name":
        documents = documents.filter(Q(name__gt=value) | Q(name=value, pk__gt=pk))
    elif pk is not None and (moment := _moment(value)):
        documents = documents.filter(Q(updated_at__lt=moment) | Q(updated_at=moment, pk__lt=pk))
    found = list(for_rows(documents).order_by(*SORTS[sort])[: PAGE_ROWS + 1])
    page = found[:PAGE_ROWS]
    if len(found) <= PAGE_ROWS:
        return page, ""
    last = page[-1]
    reached = last.name if sort == "name" else last.updated_at.isoformat()
    return page, f"{reached}~{last.pk}"


def _moment(text: str) -> datetime | None:
    try:
        moment = parse_datetime(text)
    except ValueError:
        return None
    return moment if moment and moment.tzinfo else None


@dataclass(frozen=True, slots=True)
class StateCount:
    """How many documents are in a state that the list can be narrowed to; "" is any."""

    state: str
    label: str
    number: int


def _counts(documents: QuerySet[Document]) -> list[StateCount]:
    """Count documents by state; what nobody is in is left out, except "all" and "ready"."""
    by_state: dict[str, int] = dict(
        documents.order_by().values_list("state").annotate(n=Count("pk"))
    )
    working = sum(by_state.get(state, 0) for state in UNFINISHED)
    counts = [
        StateCount("", _("All"), sum(by_state.values())),
        StateCount(Document.State.READY, _("Ready"), by_state.get(Document.State.READY, 0)),
        StateCount(WORKING, _("Being read"), working),
        StateCount(Document.State.FAILED, _("Failed"), by_state.get(Document.State.FAILED, 0)),
    ]
    return [count for count in counts if count.number or count.state in ("", "ready")]


def _targets(user: User, collection: Collection | None) -> list[Collection]:
    """Collections that files dropped here can go to, the one that is looked at alone if chosen."""
    writable = Collection.objects.writable_by(user).order_by("name")
    if collection:
        writable = writable.filter(pk=collection.pk)
    return list(writable)


@require_GET
def documents_progress(request: PersonRequest) -> HttpResponse:
    """Draw the rows that were unfinished a moment ago again; the page asks for all in one go."""
    visible = Document.objects.visible_to(request.user)
    found = visible.filter(pk__in=_selected(request.GET, "row"))
    chosen = number_in(request.GET.get("collection", "")) or 0
    if chosen:
        visible = visible.filter(collection=chosen)
    rows, counts = rows_of(for_rows(found), request.user), _counts(visible)
    context = {
        "collection": Collection.objects.readable_by(request.user).filter(pk=chosen).first(),
        "rows": rows,
        "counts": counts,
        "chosen_state": request.GET.get("state", ""),
        "unfinished": [row for row in rows if not row.document.is_final],
        "working": any(count.state == WORKING for count in counts),
    }
    return render(request, "kb/_document_progress.html", context)


@require_POST
def documents_add(request: PersonRequest) -> HttpResponse:
    """Take files into a collection. A page with a script sends them one by one and shows each."""
    writable = Collection.objects.writable_by(request.user)
    chosen = number_in(request.POST.get("collection", ""))
    collection = get_object_or_404(writable, pk=chosen or 0)
    if not limits.allow("upload", str(request.user.pk)):
        return HttpResponse(
            _("Many files at once. The rest follows in a minute."),
            status=429,
            headers={"Retry-After": str(limits.WINDOW_S)},
        )
    try:
        tags = TagsField(required=False).clean(request.POST.get("tags", ""))
    except ValidationError as error:
        return HttpResponseBadRequest("; ".join(error.messages))
    paths = request.POST.getlist("path")
    files = request.FILES.getlist("file")
    results = [
        _add(request, collection, file, path or file.name or "", tags)
        for file, path in zip(files, paths + [""] * len(files), strict=False)
    ]
    tasks.hint_workers()
    if request.htmx:
        return render(request, "kb/_upload_results.html", {"results": results})
    for result in results:
        messages.add_message(
            request,
            messages.ERROR if result.is_refused else messages.SUCCESS,
            f"{result.name}: {result.sentence}",
        )
    return redirect("collection", collection.pk)


@dataclass(frozen=True, slots=True)
class UploadResult:
    """What became of one file. `outcome`: an Added value, or "refused"."""

    name: str
    outcome: str
    sentence: str
    document: Document | None = None

    @property
    def is_refused(self) -> bool:
        return self.document is None


def _add(
    request: PersonRequest, collection: Collection, file: UploadedFile, name: str, tags: list[str]
) -> UploadResult:
    sentences = {
        Added.NEW: _("Added."),
        Added.NEW_VERSION: _("A new version; the present one answers until it is read."),
        Added.SAME: _("Already here, the same file."),
    }
    try:
        document, added = collection.add_document(file, name=name, added_by=request.user, tags=tags)
    except UploadRefused as error:
        return UploadResult(name, "refused", str(error))
    return UploadResult(document.name, added.name.lower(), sentences[added], document)


def _selected(values: Any, field: str) -> list[int]:
    """Read the ids a request names; what is no id names nothing."""
    named = map(number_in, values.getlist(field)[:MAX_SELECTED])
    return [pk for pk in named if pk is not None]


def _selected_writable(request: PersonRequest) -> QuerySet[Document]:
    """The documents a request selects. 404 when one is missing or may not be changed."""
    values = request.POST if request.method == "POST" else request.GET
    ids = set(_selected(values, "document"))
    found = Document.objects.writable_by(request.user).filter(pk__in=ids)
    if not ids or found.count() != len(ids):
        raise Http404
    return found


@require_POST
def documents_retry(request: PersonRequest) -> HttpResponse:
    """Read failed documents once more."""
    again = sum(document.retry() for document in _selected_writable(request))
    tasks.hint_workers()
    messages.success(
        request,
        ngettext("%(n)s document is read again.", "%(n)s documents are read again.", again)
        % {"n": again},
    )
    return back_to_list(request)


@require_http_methods(["GET", "POST"])
def documents_tag(request: PersonRequest) -> HttpResponse:
    """Add tags to documents; those they have stay."""
    found = _selected_writable(request)
    form = TagDocumentsForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        with transaction.atomic():
            for document in found.select_for_update():
                document.tags = list(dict.fromkeys([*document.tags, *form.cleaned_data["tags"]]))
                document.save(update_fields=["tags"])
        messages.success(request, _("Tagged."))
        return back_to_list(request)
    context = {**_selection(found), "form": form, "count": found.count()}
    return render(request, "kb/documents_tag.html", context)


@require_http_methods(["GET", "POST"])
def documents_delete(request: PersonRequest) -> HttpResponse:
    """Say what deleting takes away, then delete."""
    found = _selected_writable(request)
    if request.method == "POST":
        count = 0
        for document in found:
            document.remove()
            count += 1
        messages.success(
            request,
            ngettext("%(n)s document was deleted.", "%(n)s documents were deleted.", count)
            % {"n": count},
        )
        return back_to_list(request)
    context = {**_selection(found), **what_goes(found)}
    return render(request, "kb/documents_delete.html", context)


def _selection(documents: QuerySet[Document]) -> dict[str, Any]:
    """What a dialog says of the documents it is about, and what its form names again."""
    return {
        "selected": documents.order_by("title")[:5],
        "selected_ids": list(documents.values_list("pk", flat=True)),
    }


def what_goes(documents: QuerySet[Document]) -> dict[str, int]:
    """Count what deleting these documents takes away."""
    passages = documents.aggregate(n=Count("pk"), passages=Sum("chunk_count"))
    versions = DocumentVersion.objects.filter(document__in=documents).aggregate(
        n=Count("pk"), size=Sum("size_bytes")
    )
    return {
        "count": passages["n"],
        "passages": passages["passages"] or 0,
        "versions": versions["n"],
        "size_bytes": versions["size"] or 0,
    }


def back_to_list(request: PersonRequest) -> HttpResponse:
    """Go back to the list the action was started from."""
    if chosen := number_in(request.POST.get("collection", "")):
        return go_to(request, "collection", chosen)
    return go_to(request, "documents")
