"""Sources: the passage behind a citation or a hit, in its document, with its words marked."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from django.core.cache import cache
from django.db.models import Max, QuerySet
from django.db.models.functions import Substr
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_GET

from kb import extraction, reading
from kb.models import Chunk, Citation, Document, DocumentPage, DocumentVersion
from kb.reading import Span, Stretch
from kb.views.requests import PersonRequest, number_in

# Characters around the passage that a panel shows, at first and with each "show more".
AROUND = (1_500, 6_000, 25_000, 100_000)
# Characters of one page of the reader.
READER_PAGE = 30_000
DRAWN_WIDTH_PX = 1_400
KEPT_DRAWN_S = 3_600
Box = tuple[float, float, float, float]
PRIVATE = cache_control(private=True, no_cache=True)


@dataclass(frozen=True, slots=True)
class DrawnPage:
    """A page as a picture with boxes over the lines of the passage, in points from the top left."""

    page: DocumentPage
    boxes: list[Box]
    said: list[Box]
    url: str


@dataclass(frozen=True, slots=True)
class Source:
    """What the panel shows of a version: `drawn` pages, or `html` where nothing can be drawn.

    Beside drawn pages `html` is the passage alone, for those who cannot see them. `has_said`: the
    words that the answer took are known, so the passage around them can step back.
    """

    version: DocumentVersion
    start: int
    end: int
    newest: int
    replaced_at: datetime | None
    drawn: list[DrawnPage]
    html: SafeString
    has_said: bool
    more: bool


# --- Pages ------------------------------------------------------------------------------------


@require_GET
@PRIVATE
def source_citation(request: PersonRequest, pk: int) -> HttpResponse:
    """The passage that an answer of the person cites, in the version it was cited from."""
    openable = Citation.objects.openable_by(request.user)
    citation = get_object_or_404(openable.select_related("document__collection", "message"), pk=pk)
    context = {
        "title": citation.title,
        "heading_path": citation.heading_path,
        "page_first": citation.page_first,
        "page_last": citation.page_last,
        "marker": citation.marker,
        "quote": citation.quote,
        "document": citation.document,
    }
    if citation.version_id:
        version = _versions().get(pk=citation.version_id)
        passage = (citation.start, citation.end)
        context["source"] = _source(request, version, passage, _claims(citation))
    return _respond(request, context)


@require_GET
@PRIVATE
def source_chunk(request: PersonRequest, pk: int) -> HttpResponse:
    """A passage that a search found."""
    visible = Chunk.objects.visible_to(request.user)
    chunk = get_object_or_404(visible.select_related("document__collection"), pk=pk)
    version = _versions().get(pk=chunk.version_id)
    context = {
        "title": chunk.document.title,
        "heading_path": chunk.heading_path,
        "page_first": chunk.page_first,
        "page_last": chunk.page_last,
        "quote": chunk.text,
        "document": chunk.document,
        "source": _source(request, version, (chunk.start, chunk.end)),
    }
    return _respond(request, context)


@require_GET
@PRIVATE
def document_read(request: PersonRequest, pk: int) -> HttpResponse:
    """A document as it was read, from its beginning or around a passage, page by page."""
    visible = Document.objects.visible_to(request.user).select_related("collection")
    document = get_object_or_404(visible, pk=pk)
    number = _number(request, "version")
    versions = _versions().filter(document=document)
    chosen = {"number": number} if number else {"pk": document.current_version_id}
    version = versions.filter(**chosen).first() or (None if number else versions.last())
    if version is None:
        raise Http404
    start, end = _number(request, "start"), _number(request, "end")
    length = version.pages.aggregate(length=Max("end"))["length"] or 0
    at = min(_number(request, "at") or max(0, start - READER_PAGE // 3), max(0, length - 1))
    stretch = stretch_of(version, at, min(length, at + READER_PAGE))
    context = {
        "document": document,
        "version": version,
        "newest": document.versions.aggregate(newest=Max("number"))["newest"],
        "html": reading.draw(stretch, [(start, end)] if end else ()),
        "before": max(0, at - READER_PAGE) if at else None,
        "after": at + READER_PAGE if at + READER_PAGE < length else None,
        "share": round(100 * at / length) if length else 0,
    }
    return render(request, "kb/document_read.html", context)


@require_GET
@cache_control(private=True, max_age=3600)
def page_image(request: PersonRequest, pk: int, number: int) -> HttpResponse:
    """A page of a PDF as a picture."""
    versions = DocumentVersion.objects.visible_to(request.user).defer("text")
    version = get_object_or_404(versions, pk=pk)
    get_object_or_404(version.pages, number=number, width__gt=0)
    etag = f'"{version.sha256[:32]}-{number}-{DRAWN_WIDTH_PX}"'
    if request.headers.get("If-None-Match") == etag:
        return HttpResponse(status=304, headers={"ETag": etag})
    return HttpResponse(_drawn(version, number), content_type="image/png", headers={"ETag": etag})


# --- What a panel shows -----------------------------------------------------------------------


def _claims(citation: Citation) -> list[str]:
    """Give the sentences of the answer that cite this passage."""
    answer = citation.message
    return [
        answer.text[sentence["start"] : sentence["end"]]
        for sentence in answer.support
        if citation.marker in sentence["markers"]
    ]


def _source(
    request: PersonRequest, version: DocumentVersion, passage: Span, claims: Sequence[str] = ()
) -> Source:
    start, end = passage
    level = min(_number(request, "around"), len(AROUND) - 1)
    pages = list(version.pages.filter(start__lt=end, end__gt=start).order_by("number"))
    can_draw = bool(pages) and all(page.width for page in pages)
    stretch = stretch_of(version, start, end, around=0 if can_draw else AROUND[level])
    taken = [
        (start + first, start + last)
        for first, last in reading.sentences_taken(claims, stretch.piece(start, end))
    ]
    later = version.document.versions.filter(number__gt=version.number, published_at__isnull=False)
    replacing = later.order_by("number").first()
    return Source(
        version=version,
        start=start,
        end=end,
        newest=version.document.versions.aggregate(newest=Max("number"))["newest"],
        replaced_at=replacing.published_at if replacing else None,
        drawn=_drawn_pages(version, pages, passage, taken, level) if can_draw else [],
        html=reading.draw(stretch, reading.marks_of(passage, taken)),
        has_said=bool(taken),
        more=level < len(AROUND) - 1,
    )


def _drawn_pages(
    version: DocumentVersion,
    pages: list[DocumentPage],
    passage: Span,
    taken: list[Span],
    level: int,
) -> list[DrawnPage]:
    if level:
        first, last = pages[0].number - level, pages[-1].number + level
        pages = list(version.pages.filter(number__range=(first, last)).order_by("number"))
    drawn = []
    for page in pages:
        said = list(dict.fromkeys(box for span in taken for box in page.boxes(*span)))
        around = [box for box in page.boxes(*passage) if box not in said]
        url = reverse("page_image", args=[version.pk, page.number])
        drawn.append(DrawnPage(page, around, said, url))
    return drawn


def stretch_of(version: DocumentVersion, start: int, end: int, around: int = 0) -> Stretch:
    """Read the blocks about [start, end) without fetching the whole text of a long document."""
    start, end = max(0, start - around), end + around
    margin = 2_000  # so that the first and the last line are whole
    offset = max(0, start - margin)
    text = (
        DocumentVersion.objects.filter(pk=version.pk)
        .values_list(Substr("text", offset + 1, end - offset + margin), flat=True)
        .get()
    )
    pages = version.pages.filter(start__lt=end, end__gt=start).order_by("number")
    blocks = [
        (kind, page.start + first, page.start + last, level)
        for page in pages
        for kind, first, last, level in page.blocks
    ]
    return Stretch(text, offset, reading.cut(blocks, start, end, text, offset))


def _versions() -> QuerySet[DocumentVersion]:
    return DocumentVersion.objects.defer("text").select_related("document").order_by("number")


def _drawn(version: DocumentVersion, number: int) -> bytes:
    key = f"drawn:{version.sha256}:{number}:{DRAWN_WIDTH_PX}"
    picture: bytes | None = cache.get(key)
    if picture is None:
        try:
            path = Path(version.file.path)
            picture = extraction.draw_page(path, number, DRAWN_WIDTH_PX)
        except (extraction.DocumentUnreadable, OSError):
            raise Http404 from None
        cache.set(key, picture, KEPT_DRAWN_S)
    return picture


def _respond(request: PersonRequest, context: dict[str, object]) -> HttpResponse:
    around = _number(request, "around")
    context |= {"wider": f"{request.path}?around={around + 1}", "about": _("Source")}
    return render(request, "kb/_source.html" if request.htmx else "kb/source.html", context)


def _number(request: PersonRequest, name: str) -> int:
    return number_in(request.GET.get(name, "")) or 0
