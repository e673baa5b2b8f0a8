"""One document: read it beside its passages, its versions, who may read it; change it."""

from dataclasses import dataclass
from pathlib import PurePosixPath

from django.contrib import messages
from django.core.files.uploadedfile import UploadedFile
from django.db.models import Max, Q, QuerySet
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, render
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from kb import reading
from kb.downloads import download
from kb.forms import DocumentForm
from kb.models import Chunk, Collection, Document, DocumentVersion, Membership
from kb.models.documents import Added, UploadRefused
from kb.reading import Tint
from kb.views.documents import for_rows, rows_of, what_goes
from kb.views.requests import PersonRequest, go_to, number_in
from kb.views.source import stretch_of
from workers import tasks

PART_CHARACTERS = 20_000


def _visible(request: PersonRequest, pk: int) -> Document:
    return get_object_or_404(for_rows(Document.objects.visible_to(request.user)), pk=pk)


def _writable(request: PersonRequest, pk: int) -> Document:
    return get_object_or_404(for_rows(Document.objects.writable_by(request.user)), pk=pk)


def _versions(document: Document) -> QuerySet[DocumentVersion]:
    """Give a document's versions, newest first, without their text."""
    found = document.versions.select_related("job", "added_by").defer("text")
    return found.order_by("-number")


def shown_version(request: PersonRequest, document: Document) -> DocumentVersion:
    """Give the version `?version=` names, else the one that answers, else the newest."""
    if number := request.GET.get("version", ""):
        return get_object_or_404(_versions(document), number=number_in(number) or 0)
    serving = _versions(document).filter(pk=document.current_version_id or 0).first()
    return serving or get_object_or_404(_versions(document)[:1])


@require_GET
def document(request: PersonRequest, pk: int) -> HttpResponse:
    """Show the text beside its passages; asked by htmx, the part that follows what is shown."""
    found = _visible(request, pk)
    shown = shown_version(request, found)
    at = request.GET.get("at", "")
    context = {
        "document": found,
        "shown": shown,
        "is_serving": shown.pk == found.current_version_id,
        "part": part_of(shown, number_in(at) or 0),
    }
    if request.htmx and at:
        return render(request, "kb/_document_part.html", {**context, "is_continued": True})
    row = rows_of([found], request.user)[0]
    context |= {"row": row, "may_write": row.may_write, "tab": "read"}
    return render(request, "kb/document.html", context)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a document's text with the passages cut from it. `after`: where the next starts."""

    html: SafeString
    passages: list[Chunk]
    after: int | None


def part_of(version: DocumentVersion, at: int) -> Part:
    """Draw about PART_CHARACTERS of a version from `at` on, to the end of a passage."""
    length = version.pages.aggregate(length=Max("end"))["length"] or 0
    at = min(at, length)
    end = min(length, at + PART_CHARACTERS)
    passages = list(
        Chunk.objects.filter(version=version, start__gte=at, start__lt=end).order_by("position")
    )
    if passages and end < length:
        end = passages[-1].end
    tints = [Tint(passage.start, passage.end, passage.position) for passage in passages]
    stretch = stretch_of(version, at, end)
    return Part(reading.draw(stretch, tints), passages, end if end < length else None)


@require_GET
def document_state(request: PersonRequest, pk: int) -> HttpResponse:
    """Draw the line about a document's state again while it is read."""
    row = rows_of([_visible(request, pk)], request.user)[0]
    response = render(request, "kb/_document_state.html", {"row": row, "document": row.document})
    if row.document.is_final:
        response["HX-Refresh"] = "true"
    return response


@require_GET
def document_versions(request: PersonRequest, pk: int) -> HttpResponse:
    found = _visible(request, pk)
    row = rows_of([found], request.user)[0]
    context = {
        "document": found,
        "collection": found.collection,
        "row": row,
        "may_write": row.may_write,
        "versions": _versions(found),
        "memberships": _readers(request, found.collection),
        "tab": "versions",
    }
    return render(request, "kb/document_versions.html", context)


def _readers(request: PersonRequest, collection: Collection) -> list[Membership]:
    """Give who may read a collection, to those who belong to it themselves."""
    memberships = collection.memberships.select_related("user", "group")
    mine = Q(user=request.user) | Q(group__in=request.user.groups.all())
    if not (request.user.is_superuser or memberships.filter(mine).exists()):
        return []
    return sorted(memberships, key=lambda m: str(m.user or m.group).casefold())


@require_GET
def document_download(request: PersonRequest, pk: int) -> HttpResponseBase:
    found = _visible(request, pk)
    return download(request, shown_version(request, found), PurePosixPath(found.name).name)


@require_http_methods(["GET", "POST"])
def document_edit(request: PersonRequest, pk: int) -> HttpResponse:
    """Change title and tags."""
    found = _writable(request, pk)
    form = DocumentForm(request.POST or None, instance=found)
    if request.method == "POST" and form.is_valid():
        found = _writable(request, pk)
        found.rename(form.cleaned_data["title"])
        found.tags = form.cleaned_data["tags"]
        found.save(update_fields=["tags"])
        tasks.hint_workers()
        messages.success(request, _("Saved."))
        return go_to(request, "document", pk)
    return render(
        request, "kb/document_edit.html", {"document": _writable(request, pk), "form": form}
    )


@require_http_methods(["GET", "POST"])
def document_replace(request: PersonRequest, pk: int) -> HttpResponse:
    """Take a new version; it keeps the document's name, whatever the file is called."""
    found, error = _writable(request, pk), ""
    file = request.FILES.get("file")
    if request.method == "POST" and isinstance(file, UploadedFile):
        try:
            _same, added = found.collection.add_document(
                file, name=found.name, added_by=request.user, tags=found.tags
            )
        except UploadRefused as refusal:
            error = str(refusal)
        else:
            tasks.hint_workers()
            if added == Added.SAME:
                messages.info(request, _("This is the same file. Nothing was changed."))
            return go_to(request, "document", pk)
    elif request.method == "POST":
        error = _("Choose a file first.")
    context = {"document": found, "error": error, "suffix": PurePosixPath(found.name).suffix}
    return render(request, "kb/document_replace.html", context)


@require_POST
def document_retry(request: PersonRequest, pk: int) -> HttpResponse:
    """Read a failed document once more."""
    found = _writable(request, pk)
    found.retry()
    tasks.hint_workers()
    if request.htmx:  # from the list: draw the row, which then follows its progress
        row = rows_of([_writable(request, pk)], request.user)[0]
        return render(
            request,
            "kb/_document_progress.html",
            {"rows": [row], "unfinished": [row], "swap": True},
        )
    return go_to(request, "document", pk)


@require_http_methods(["GET", "POST"])
def document_delete(request: PersonRequest, pk: int) -> HttpResponse:
    """Say what deleting takes away, then delete."""
    found = _writable(request, pk)
    if request.method == "POST":
        collection_pk, title = found.collection_id, found.title
        found.remove()
        messages.success(request, _("“%(title)s” was deleted.") % {"title": title})
        return go_to(request, "collection", collection_pk)
    goes = what_goes(Document.objects.filter(pk=pk))
    return render(request, "kb/document_delete.html", {"document": found, **goes})
