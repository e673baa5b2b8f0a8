"""PDF through PDFium: text with its boxes, the outline, page labels, and page images.

Coordinates leave this module as people see the page: rotated, cropped, in points from the top left
corner. PDFium gives them in the page's own space, from the bottom left of an unrotated sheet.
"""

import ctypes
import itertools
import logging
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import pypdfium2 as pdfium
import pypdfium2.raw as raw

from kb.extraction import pdf_layout, pdf_tables, wire
from kb.extraction.limits import Limits
from kb.extraction.pdf_lines import OutlineItem, PageLayout, Segment
from kb.extraction.unreadable import Unreadable
from kb.extraction.writing import Cleaner
from kb.pages import Extraction

logger = logging.getLogger(__name__)

WRONG_PASSWORD = raw.FPDF_ERR_PASSWORD
HYPHEN = "\x02"  # PDFium's mark for a word broken at the line's end; it swallows the line break
LEAST_TEXT = 20  # characters; a page with fewer and with an image is a scan
MOST_OUTLINE_ITEMS = 20_000
MOST_PATHS = 20_000  # drawn objects on a page; more is a map or a plot, not a table

BOLD_NAMES = ("bold", "black", "heavy", "semibold", "demi", "-bd", "cmbx", "sfbx", "-medi")
MONO_NAMES = (
    "mono",
    "courier",
    "consol",
    "cmtt",
    "sftt",
    "typewriter",
    "menlo",
    "inconsolata",
    "monl-",
    "monl10",
)
FIXED_PITCH, FORCE_BOLD = 1 << 0, 1 << 18


def read(file: BinaryIO, *, limits: Limits, name: str) -> bytes:
    """Give the packed extraction of an open PDF."""
    pdf = _open(file)
    if len(pdf) > limits.pages:
        raise Unreadable("too_many_pages", count=len(pdf), limit=limits.pages)
    clean = Cleaner()
    reader = _Reader(pdf, clean)
    layouts = [reader.page(index) for index in range(len(pdf))]
    warnings = _check_for_text(layouts)
    pages = pdf_layout.build(layouts, _outline(pdf, len(pdf), clean), clean)
    title = " ".join(clean(_title(pdf)).split())
    return wire.pack(Extraction(tuple(pages), title, (*warnings, *clean.warnings())), limits)


def draw(file: BinaryIO, *, limits: Limits, number: int, width_px: int) -> bytes:
    """Give page `number` as a PNG, `width_px` wide; smaller when the page is very tall."""
    pdf = _open(file)
    if not 1 <= number <= len(pdf):
        raise Unreadable("damaged")
    pdf.init_forms()
    page = pdf[number - 1]
    width, height = page.get_size()
    if not (width > 0 and height > 0):
        raise Unreadable("damaged")
    scale = min(width_px / width, (limits.image_pixels / (width * height)) ** 0.5)
    bitmap = page.render(scale=scale, rev_byteorder=True, prefer_bgrx=False)
    return _png(bitmap)


def _open(file: BinaryIO) -> pdfium.PdfDocument:
    try:
        pdf = pdfium.PdfDocument(file)
    except pdfium.PdfiumError as error:
        code = getattr(error, "err_code", None)
        raise Unreadable("encrypted" if code == WRONG_PASSWORD else "damaged") from error
    if len(pdf) == 0:
        raise Unreadable("damaged")
    return pdf


def _title(pdf: pdfium.PdfDocument) -> str:
    """Give the title of the metadata unless a program made it up."""
    title = str(pdf.get_metadata_value("Title") or "").strip()
    made_up = (
        "untitled",
        "microsoft word - ",
        "microsoft powerpoint - ",
        "powerpoint presentation",
    )
    if title.lower().startswith(made_up) or title.lower().endswith((".doc", ".docx", ".indd")):
        return ""
    return title


def _outline(pdf: pdfium.PdfDocument, page_count: int, clean: Cleaner) -> list[OutlineItem]:
    """List the bookmarks that lead to a page, in their order."""
    items = []
    for bookmark in pdf.get_toc(max_depth=6):
        destination = bookmark.get_dest()
        index = destination.get_index() if destination else None
        title = " ".join(clean(bookmark.get_title()).split())
        if title and index is not None and 0 <= index < page_count:
            items.append(OutlineItem(title, bookmark.level + 1, index))
        if len(items) == MOST_OUTLINE_ITEMS:
            break
    return items


def _check_for_text(layouts: list[PageLayout]) -> list[str]:
    """Refuse a scan; name the pages of a mixed document that are only pictures."""
    if not any(layout.segments or layout.tables for layout in layouts):
        raise Unreadable(
            "no_text",
            reason="The PDF holds no text, only pictures of it, as a scanner makes them.",
            advice="Run text recognition (OCR) on it and upload the result.",
        )
    scans = [layout.number for layout in layouts if layout.is_scan]
    if not scans:
        return []
    numbers = ", ".join(map(str, scans[:10])) + (" and others" if len(scans) > 10 else "")
    return [f"Pages without readable text, only pictures: {numbers}."]


@dataclass(frozen=True, slots=True)
class _Font:
    is_bold: bool
    is_mono: bool


@dataclass(slots=True)
class _Reader:
    """Reads one page after the other; remembers fonts, which pages share."""

    pdf: pdfium.PdfDocument
    clean: Cleaner
    fonts: dict[int, _Font] = field(default_factory=dict)

    def page(self, index: int) -> PageLayout:
        try:
            page = self.pdf[index]
        except pdfium.PdfiumError:
            logger.warning("page %d cannot be loaded", index + 1)
            return PageLayout(index + 1)
        _fill_in_forms(page)
        width, height = page.get_size()
        view = View(page.get_bbox(), page.get_rotation())
        label = self.pdf.get_page_label(index)
        layout = PageLayout(index + 1, width, height, label if label != str(index + 1) else "")
        textpage = page.get_textpage()
        characters = textpage.count_chars()
        if characters:
            layout.segments = list(self._segments(textpage, view, characters, width, height))
            layout.tables = self._tables(page, textpage, view, characters)
        letters = sum(len(segment.text) for segment in layout.segments)
        layout.is_scan = letters < LEAST_TEXT and _has_image(page)
        textpage.close()
        page.close()
        return layout

    def _segments(
        self, textpage: Any, view: "View", count: int, width: float, height: float
    ) -> Iterator[Segment]:
        """Cut the page's characters into the lines PDFium sees."""
        text = _characters(textpage, count)
        start = 0
        while start < count:
            end = start
            while end < count and text[end] not in "\r\n" + HYPHEN:
                end += 1
            hyphen = end < count and text[end] == HYPHEN
            segment = self._segment(textpage, view, text, start, end, hyphen)
            if segment and segment.is_within(width, height):
                segment.clip(width, height)
                yield segment
            start = end + 1

    def _segment(
        self, textpage: Any, view: "View", text: list[str], start: int, end: int, hyphen: bool
    ) -> Segment | None:
        words = self.clean(_join_surrogates(text[start:end]))
        if not words.strip():
            return None
        box = view.box(_bounds(textpage, start, end + hyphen))
        if box is None:
            return None
        samples = [i for i in (start, (start + end) // 2, end - 1) if not text[i].isspace()]
        samples = samples or [next(i for i in range(start, end) if not text[i].isspace())]
        fonts = [self._font(textpage, i) for i in samples]
        sizes = sorted(_size(textpage, i) for i in samples)
        return Segment(
            text=" ".join(words.split()),
            x0=box[0],
            y0=box[1],
            x1=box[2],
            y1=box[3],
            base=_baseline(textpage, samples[0], view),
            size=sizes[len(sizes) // 2],
            is_bold=all(font.is_bold for font in fonts),
            is_mono=all(font.is_mono for font in fonts),
            ends_in_hyphen=hyphen,
        )

    def _font(self, textpage: Any, index: int) -> _Font:
        """Look up the font of a character; one call for the text object, then from memory."""
        text_object = raw.FPDFText_GetTextObject(textpage, index)
        font = raw.FPDFTextObj_GetFont(text_object) if text_object else None
        if not font:
            return _Font(False, False)
        address = ctypes.addressof(font.contents)
        if address not in self.fonts:
            self.fonts[address] = _describe_font(font)
        return self.fonts[address]

    def _tables(
        self, page: pdfium.PdfPage, textpage: Any, view: "View", count: int
    ) -> list[pdf_tables.Table]:
        """Read the tables whose lines are drawn."""
        grids = pdf_tables.find_grids([view.edge(edge) for edge in _edges(page)])
        if not grids:
            return []
        characters = [
            pdf_tables.Character(unicode, view.box(_char_box(textpage, index)))
            for index, unicode in enumerate(_characters(textpage, count))
        ]
        tables = (pdf_tables.fill(grid, characters, self.clean) for grid in grids)
        return [table for table in tables if table is not None]


@dataclass(frozen=True, slots=True)
class View:
    """Turns the page's own coordinates into what is seen. `rotation` is clockwise, in degrees."""

    bbox: tuple[float, float, float, float]  # left, bottom, right, top
    rotation: int

    def point(self, x: float, y: float) -> tuple[float, float]:
        left, bottom, right, top = self.bbox
        match self.rotation:
            case 90:
                return y - bottom, x - left
            case 180:
                return right - x, y - bottom
            case 270:
                return top - y, right - x
        return x - left, top - y

    def box(
        self, bounds: tuple[float, float, float, float] | None
    ) -> tuple[float, float, float, float] | None:
        """Map left, bottom, right, top to x0, y0, x1, y1; None for no bounds or no area."""
        if bounds is None:
            return None
        ax, ay = self.point(bounds[0], bounds[1])
        bx, by = self.point(bounds[2], bounds[3])
        x0, x1, y0, y1 = min(ax, bx), max(ax, bx), min(ay, by), max(ay, by)
        return (x0, y0, x1, y1) if x1 - x0 > 0.01 and y1 - y0 > 0.01 else None

    def edge(self, edge: pdf_tables.Edge) -> pdf_tables.Edge:
        ax, ay = self.point(edge[0], edge[1])
        bx, by = self.point(edge[2], edge[3])
        return min(ax, bx), min(ay, by), max(ax, bx), max(ay, by)


def _characters(textpage: Any, count: int) -> list[str]:
    """Give every character by PDFium's own index; FPDFText_GetText skips some of them."""
    unicode = raw.FPDFText_GetUnicode
    return [chr(min(unicode(textpage, index), 0x10FFFF)) for index in range(count)]


def _join_surrogates(characters: list[str]) -> str:
    """Join UTF-16 halves that stand in two places."""
    text = "".join(characters)
    if text.isascii() or not any("\ud800" <= c <= "\udfff" for c in characters):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")


def _bounds(textpage: Any, start: int, end: int) -> tuple[float, float, float, float] | None:
    """Give left, bottom, right, top of a run of characters."""
    count = raw.FPDFText_CountRects(textpage, start, end - start)
    left, top, right, bottom = (ctypes.c_double() for _ in range(4))
    boxes = []
    for index in range(count):
        if raw.FPDFText_GetRect(textpage, index, left, top, right, bottom):
            boxes.append((left.value, bottom.value, right.value, top.value))
    if not boxes:
        return None
    lefts, bottoms, rights, tops = zip(*boxes, strict=True)
    return min(lefts), min(bottoms), max(rights), max(tops)


def _char_box(textpage: Any, index: int) -> tuple[float, float, float, float] | None:
    left, right, bottom, top = (ctypes.c_double() for _ in range(4))
    if not raw.FPDFText_GetCharBox(textpage, index, left, right, bottom, top):
        return None
    return left.value, bottom.value, right.value, top.value


def _baseline(textpage: Any, index: int, view: View) -> float:
    x, y = ctypes.c_double(), ctypes.c_double()
    raw.FPDFText_GetCharOrigin(textpage, index, x, y)
    return view.point(x.value, y.value)[1]


def _size(textpage: Any, index: int) -> float:
    """Give the size of a character as drawn, in points: many fonts are 1 point and scaled up."""
    matrix = raw.FS_MATRIX()
    size = float(raw.FPDFText_GetFontSize(textpage, index))
    if raw.FPDFText_GetMatrix(textpage, index, matrix):
        size *= (matrix.c**2 + matrix.d**2) ** 0.5
    return round(abs(size), 1)


def _describe_font(font: Any) -> _Font:
    buffer = ctypes.create_string_buffer(128)
    raw.FPDFFont_GetBaseFontName(font, buffer, len(buffer))
    name = buffer.value.decode("utf-8", "replace").lower()
    flags = max(raw.FPDFFont_GetFlags(font), 0)
    is_bold = raw.FPDFFont_GetWeight(font) >= 600 or bool(flags & FORCE_BOLD)
    return _Font(
        is_bold=is_bold or any(part in name for part in BOLD_NAMES),
        is_mono=bool(flags & FIXED_PITCH) or any(part in name for part in MONO_NAMES),
    )


def _fill_in_forms(page: pdfium.PdfPage) -> None:
    """Draw filled-in form fields onto the page (in memory), so that they are read like text."""
    for index in range(min(raw.FPDFPage_GetAnnotCount(page), 500)):
        annotation = raw.FPDFPage_GetAnnot(page, index)
        is_field = raw.FPDFAnnot_GetSubtype(annotation) == raw.FPDF_ANNOT_WIDGET
        raw.FPDFPage_CloseAnnot(annotation)
        if is_field:
            raw.FPDFPage_Flatten(page, raw.FLAT_NORMALDISPLAY)
            return


def _has_image(page: pdfium.PdfPage) -> bool:
    return any(True for _ in page.get_objects(filter=[raw.FPDF_PAGEOBJ_IMAGE], max_depth=3))


def _edges(page: pdfium.PdfPage) -> Iterator[pdf_tables.Edge]:
    """Give the straight, upright lines that are drawn: rules, edges of boxes, thin boxes."""
    paths = page.get_objects(filter=[raw.FPDF_PAGEOBJ_PATH], max_depth=3)
    for item in itertools.islice(paths, MOST_PATHS):
        matrix = item.get_matrix()
        container = item.container
        while container is not None:
            matrix = matrix.multiply(container.get_matrix())
            container = container.container
        yield from _path_edges(item.raw, matrix)


def _path_edges(path: Any, matrix: Any) -> Iterator[pdf_tables.Edge]:
    count = raw.FPDFPath_CountSegments(path)
    if not 2 <= count <= 200:
        return
    x, y = ctypes.c_float(), ctypes.c_float()
    first = last = None
    for index in range(count):
        segment = raw.FPDFPath_GetPathSegment(path, index)
        raw.FPDFPathSegment_GetPoint(segment, x, y)
        point = matrix.on_point(x.value, y.value)
        kind = raw.FPDFPathSegment_GetType(segment)
        if kind == raw.FPDF_SEGMENT_MOVETO:
            first = point
        elif kind == raw.FPDF_SEGMENT_LINETO and last is not None:
            yield (*last, *point)
        last = point
        if raw.FPDFPathSegment_GetClose(segment) and first is not None and last != first:
            yield (*last, *first)


def _png(bitmap: pdfium.PdfBitmap) -> bytes:
    """Write a PNG: RGB or grey, no palette, each row unfiltered. Source: RFC 2083."""
    channels = bitmap.n_channels
    colour = {1: 0, 3: 2, 4: 6}[channels]
    pixels, line = bytes(bitmap.buffer), bitmap.width * channels
    rows = b"".join(
        b"\0" + pixels[start : start + line]
        for start in range(0, bitmap.height * bitmap.stride, bitmap.stride)
    )
    header = struct.pack(">IIBBBBB", bitmap.width, bitmap.height, 8, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
