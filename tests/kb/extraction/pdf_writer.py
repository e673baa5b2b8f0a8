"""Write small PDF files for tests: pages with text at given places, rules, outlines, faults."""

from dataclasses import dataclass, field

FONTS = {"F1": "Helvetica", "F2": "Helvetica-Bold", "F3": "Courier"}


@dataclass
class PdfPage:
    """A page's own drawing. `rotate` is clockwise; boxes are left, bottom, right, top."""

    content: str = ""
    media_box: tuple[float, float, float, float] = (0, 0, 612, 792)
    crop_box: tuple[float, float, float, float] | None = None
    rotate: int = 0


@dataclass
class Pdf:
    pages: list[PdfPage] = field(default_factory=list)
    outline: list[tuple[str, int]] = field(default_factory=list)  # title, page index
    title: str = ""
    labels: str = ""  # the value of /Nums, such as "0 << /S /r >>"
    extra_trailer: str = ""

    def write(self) -> bytes:
        kids = " ".join(f"{10 + 2 * i} 0 R" for i in range(len(self.pages)))
        objects: dict[int, str] = {
            1: f"<< /Type /Catalog /Pages 2 0 R {self._catalog_entries()} >>",
            2: f"<< /Type /Pages /Kids [{kids}] /Count {len(self.pages)} >>",
            3: f"<< /Title ({escape(self.title)}) >>",
            4: self._fonts(),
        }
        for index, page in enumerate(self.pages):
            number = 10 + 2 * index
            crop = f"/CropBox {_box(page.crop_box)}" if page.crop_box else ""
            objects[number] = (
                f"<< /Type /Page /Parent 2 0 R /MediaBox {_box(page.media_box)} {crop} "
                f"/Rotate {page.rotate} /Resources << /Font 4 0 R >> /Contents {number + 1} 0 R >>"
            )
            objects[number + 1] = stream(page.content)
        first = 10 + 2 * len(self.pages)
        for offset, (title, index) in enumerate(self.outline):
            links = f"/Next {first + offset + 1} 0 R" if offset < len(self.outline) - 1 else ""
            links += f" /Prev {first + offset - 1} 0 R" if offset else ""
            objects[first + offset] = (
                f"<< /Title ({escape(title)}) /Parent 5 0 R {links} "
                f"/Dest [{10 + 2 * index} 0 R /XYZ null null null] >>"
            )
        if self.outline:
            last = first + len(self.outline) - 1
            objects[5] = (
                f"<< /Type /Outlines /First {first} 0 R /Last {last} 0 R /Count {len(self.outline)} >>"
            )
        return assemble(objects, f"/Root 1 0 R /Info 3 0 R {self.extra_trailer}")

    def _catalog_entries(self) -> str:
        outline = "/Outlines 5 0 R" if self.outline else ""
        labels = f"/PageLabels << /Nums [{self.labels}] >>" if self.labels else ""
        return f"{outline} {labels}"

    def _fonts(self) -> str:
        fonts = " ".join(
            f"/{key} << /Type /Font /Subtype /Type1 /BaseFont /{name} /Encoding /WinAnsiEncoding >>"
            for key, name in FONTS.items()
        )
        return f"<< {fonts} >>"


def text(x: float, y: float, words: str, *, size: float = 11, font: str = "F1") -> str:
    """Draw a line of text with its baseline's start at (x, y)."""
    return f"BT /{font} {size} Tf 1 0 0 1 {x} {y} Tm ({escape(words)}) Tj ET\n"


def turned_text(matrix: str, words: str, *, size: float = 11) -> str:
    return f"BT /F1 {size} Tf {matrix} Tm ({escape(words)}) Tj ET\n"


def rule(x0: float, y0: float, x1: float, y1: float) -> str:
    return f"{x0} {y0} m {x1} {y1} l S\n"


def stream(content: str, entries: str = "") -> str:
    return f"<< /Length {len(content.encode('cp1252'))} {entries} >>\nstream\n{content}\nendstream"


def assemble(objects: dict[int, str], trailer: str) -> bytes:
    """Number the objects, write the table of where they are."""
    data = b"%PDF-1.7\n"
    offsets = {}
    for number, content in sorted(objects.items()):
        offsets[number] = len(data)
        data += f"{number} 0 obj\n{content}\nendobj\n".encode("cp1252")
    size = max(objects) + 1
    table = [b"0000000000 65535 f \n"] * size
    for number, offset in offsets.items():
        table[number] = b"%010d 00000 n \n" % offset
    start = len(data)
    data += b"xref\n0 %d\n" % size + b"".join(table)
    return data + f"trailer << /Size {size} {trailer} >>\nstartxref\n{start}\n%%EOF\n".encode()


def escape(words: str) -> str:
    return words.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")


def _box(box: tuple[float, float, float, float]) -> str:
    return "[" + " ".join(f"{value:g}" for value in box) + "]"
