"""Bad files end with a sentence, in time, and do not grow the process that reads them."""

import io
import os
import resource
import string
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from kb import extraction
from kb.extraction.limits import MEBIBYTE, Limits
from kb.extraction.unreadable import DocumentUnreadable
from tests.kb.extraction import documents
from tests.kb.extraction.conftest import Extract
from tests.kb.extraction.documents import docx, epub, odt, packed, paragraph, pptx
from tests.kb.extraction.pdf_writer import Pdf, PdfPage, assemble, stream, text

PDF_FILE = Pdf([PdfPage(text(72, 700, "Glaciers move slowly down."))] * 3).write()
DOCX_FILE = docx("".join(paragraph(f"Paragraph {i} about ice.") for i in range(200)))
IMPATIENT = Limits(cpu_s=8, wall_s=30)
ENTITY_BOMB = '<!DOCTYPE x [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {new} "{f"&{old};" * 10}">'
    for old, new in zip(string.ascii_lowercase, string.ascii_lowercase[1:12], strict=False)
)


def outcome(path: Path, name: str, limits: Limits = IMPATIENT) -> str:
    """Give "ready" or the code of the sentence; anything else fails the test."""
    try:
        read = extraction.extract(path, name, limits=limits)
    except DocumentUnreadable as error:
        return error.code if str(error).endswith(".") else "no sentence"
    assert read.pages
    return "ready"


def outcome_of(data: bytes, name: str, tmp_path: Path, limits: Limits = IMPATIENT) -> str:
    path = tmp_path / "upload"
    path.write_bytes(data)
    return outcome(path, name, limits)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 0.999])
@pytest.mark.parametrize("name", ["a.pdf", "a.docx", "a.pptx", "a.epub", "a.odt"])
def test_a_file_cut_short_is_read_or_called_damaged(
    name: str, share: float, tmp_path: Path
) -> None:
    whole = {
        "a.pdf": PDF_FILE,
        "a.docx": DOCX_FILE,
        "a.pptx": pptx([("Ice", ["one", "two"])]),
        "a.epub": epub({"a": "<p>ice</p>"}),
        "a.odt": odt("<text:p>ice</text:p>"),
    }[name]
    code = outcome_of(whole[: int(len(whole) * share)], name, tmp_path)
    assert code in ("ready", "damaged", "no_text")
    if not name.endswith("pdf"):
        assert code == "damaged"


def test_a_password_on_a_pdf_is_named(tmp_path: Path) -> None:
    encrypt = f"/Encrypt << /Filter /Standard /V 1 /R 2 /P -44 /O ({'o' * 32}) /U ({'u' * 32}) >> /ID [(a) (a)]"
    locked = Pdf([PdfPage(text(72, 700, "Secret"))], extra_trailer=encrypt).write()
    assert outcome_of(locked, "a.pdf", tmp_path) == "encrypted"


def test_a_zip_bomb_in_a_word_file_is_not_unpacked(tmp_path: Path) -> None:
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", documents.TYPES)
        with archive.open("word/document.xml", "w", force_zip64=True) as member:
            for _ in range(300):
                member.write(b" " * MEBIBYTE)
    assert len(bomb.getvalue()) < MEBIBYTE
    assert outcome_of(bomb.getvalue(), "a.docx", tmp_path) == "bomb"


def test_a_directory_that_lies_about_sizes_is_found_out(tmp_path: Path) -> None:
    """The directory says 100 bytes; zipfile notices that the data goes on."""
    data = bytearray(docx("<w:p/>", **{"word/media/x.xml": " " * 50 * MEBIBYTE}))
    entry = data.rindex(b"word/media/x.xml") - 46
    data[entry + 24 : entry + 28] = (100).to_bytes(4, "little")
    assert outcome_of(bytes(data), "a.docx", tmp_path) in ("damaged", "bomb", "no_text")


def test_a_million_entries_are_a_bomb(tmp_path: Path) -> None:
    parts = {f"word/{i}.xml": b"" for i in range(25_000)}
    assert outcome_of(packed({"[Content_Types].xml": "x", **parts}), "a.docx", tmp_path) == "bomb"


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "word/../../x.xml"])
def test_names_that_climb_out_are_refused(name: str, tmp_path: Path) -> None:
    assert outcome_of(docx("Hello", **{name: "x"}), "a.docx", tmp_path) == "damaged"


@pytest.mark.parametrize(
    "declaration",
    [
        f"{ENTITY_BOMB}]>",
        '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE x [<!ENTITY % a SYSTEM "http://127.0.0.1:9/x"> %a;]>',
    ],
)
def test_entities_in_office_files_and_books_are_refused(declaration: str, tmp_path: Path) -> None:
    def armed(data: bytes, part: str) -> bytes:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts: dict[str, str | bytes] = {n: archive.read(n) for n in archive.namelist()}
        parts[part] = declaration.encode() + bytes(parts[part])  # type: ignore[arg-type]
        return packed(parts)

    files = {
        "a.docx": armed(DOCX_FILE, "word/document.xml"),
        "a.pptx": armed(pptx([("Ice", ["x"])]), "ppt/slides/slide0.xml"),
        "a.odt": armed(odt("<text:p>x</text:p>"), "content.xml"),
        "a.epub": armed(epub({"a": "x"}), "OEBPS/book.opf"),
    }
    for name, data in files.items():
        assert outcome_of(data, name, tmp_path) == "bomb", name


def test_xml_nested_without_end_is_damaged(tmp_path: Path) -> None:
    deep = "<w:p>" * 100_000 + "</w:p>" * 100_000
    assert outcome_of(docx(deep), "a.docx", tmp_path) in ("damaged", "memory", "timeout", "no_text")
    deep = "<text:section>" * 50_000 + "x" + "</text:section>" * 50_000
    assert outcome_of(odt(deep), "a.odt", tmp_path) in ("damaged", "memory", "timeout")


def endless_pages() -> bytes:
    """A page tree that contains itself."""
    tree = "<< /Type /Pages /Kids [2 0 R 3 0 R] /Count 1000000 >>"
    return assemble({1: "<< /Type /Catalog /Pages 2 0 R >>", 2: tree, 3: tree}, "/Root 1 0 R")


def deep_pages() -> bytes:
    """A page tree 50,000 levels deep."""
    objects = {1: "<< /Type /Catalog /Pages 2 0 R >>"}
    for i in range(2, 50_000):
        objects[i] = f"<< /Type /Pages /Kids [{i + 1} 0 R] /Count 1 >>"
    objects[50_000] = "<< /Type /Page /Parent 49999 0 R >>"
    return assemble(objects, "/Root 1 0 R")


def table_that_points_at_itself() -> bytes:
    return PDF_FILE.replace(b"trailer << ", b"trailer << /Prev 9 ").replace(
        b"startxref\n", b"startxref\n9\n%"
    )


def previous_tables_in_a_ring() -> bytes:
    start = PDF_FILE.rindex(b"xref\n0")
    return PDF_FILE.replace(b"trailer << ", b"trailer << /Prev %d " % start)


def content_of_a_gigabyte() -> bytes:
    """A page whose content unpacks to 1 GiB of drawing orders."""
    packer = zlib.compressobj(9)
    packed_content = b"".join(packer.compress(b"0 0 m 1 1 l S\n" * 75_000) for _ in range(1000))
    packed_content += packer.flush()
    objects = {
        1: "<< /Type /Catalog /Pages 2 0 R >>",
        2: "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        3: "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R >>",
        4: stream("@" * 100, "/Filter /FlateDecode"),
    }
    return (
        assemble(objects, "/Root 1 0 R")
        .replace(b"@" * 100, packed_content)
        .replace(b"/Length 100", b"/Length %d" % len(packed_content))
    )


def form_that_draws_itself() -> bytes:
    objects = {
        1: "<< /Type /Catalog /Pages 2 0 R >>",
        2: "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        3: "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources << /XObject << /X 5 0 R >> >> >>",
        4: stream("/X Do"),
        5: stream(
            "/X Do /X Do /X Do",
            "/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject << /X 5 0 R >> >>",
        ),
    }
    return assemble(objects, "/Root 1 0 R")


def forms_that_multiply() -> bytes:
    """Thirty forms, each drawing the next one ten times: 10^30 drawings."""
    objects = {
        1: "<< /Type /Catalog /Pages 2 0 R >>",
        2: "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        3: "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources << /XObject << /X 5 0 R >> >> >>",
        4: stream("/X Do"),
    }
    for i in range(5, 35):
        resources = f"/Resources << /XObject << /X {i + 1} 0 R >> >>"
        objects[i] = stream(
            "/X Do " * 10, f"/Type /XObject /Subtype /Form /BBox [0 0 9 9] {resources}"
        )
    objects[35] = stream("0 0 m 9 9 l S", "/Type /XObject /Subtype /Form /BBox [0 0 9 9]")
    return assemble(objects, "/Root 1 0 R")


def outline_in_a_ring() -> bytes:
    pdf = Pdf([PdfPage(text(72, 700, "Ice and rock."))], outline=[("Ice", 0), ("Rock", 0)])
    return pdf.write().replace(b"/Prev 12 0 R", b"/Next 12 0 R")


@pytest.mark.parametrize(
    "make",
    [
        endless_pages,
        deep_pages,
        table_that_points_at_itself,
        previous_tables_in_a_ring,
        content_of_a_gigabyte,
        form_that_draws_itself,
        forms_that_multiply,
        outline_in_a_ring,
    ],
)
def test_a_pdf_without_end_ends(make: Callable[[], bytes], tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(make())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    code = outcome(path, "a.pdf")
    assert time.monotonic() - started < IMPATIENT.wall_s + 30
    assert code in (
        *("ready", "damaged", "timeout", "memory"),
        *("no_text", "too_large", "too_many_pages"),
    )
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 100 * MEBIBYTE


def test_a_pdf_of_ten_thousand_pages_says_the_limit(tmp_path: Path) -> None:
    many = Pdf([PdfPage()] * 10_000).write()
    path = tmp_path / "a.pdf"
    path.write_bytes(many)
    with pytest.raises(DocumentUnreadable, match="10,000 pages, and the limit is 5,000") as caught:
        extraction.extract(path, "a.pdf")
    assert caught.value.code == "too_many_pages"


def test_a_pdf_of_pictures_asks_for_text_recognition(tmp_path: Path) -> None:
    image = stream(
        "abc",
        "/Type /XObject /Subtype /Image /Width 1 /Height 1 /ColorSpace /DeviceRGB /BitsPerComponent 8",
    )
    objects = {
        1: "<< /Type /Catalog /Pages 2 0 R >>",
        2: "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        3: "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources << /XObject << /X 5 0 R >> >> >>",
        4: stream("612 0 0 792 0 0 cm /X Do"),
        5: image,
    }
    path = tmp_path / "scan.pdf"
    path.write_bytes(assemble(objects, "/Root 1 0 R"))
    with pytest.raises(DocumentUnreadable, match="text recognition") as caught:
        extraction.extract(path, "scan.pdf")
    assert caught.value.code == "no_text"


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.md", "a.html", "a.json", "a.eml"])
def test_a_line_of_a_hundred_megabytes_is_too_large(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with path.open("wb") as file:
        file.truncate(100 * MEBIBYTE)
    assert outcome(path, name) == "too_large"


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.md", "a.html", "a.json"])
def test_a_line_of_twenty_megabytes_ends(name: str, tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    code = outcome_of(b"x" * (20 * MEBIBYTE), name, tmp_path)
    assert code in ("ready", "too_large", "timeout", "memory")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 150 * MEBIBYTE


def test_a_million_columns_are_read_or_refused(tmp_path: Path) -> None:
    data = (",".join(["x"] * 1_000_000) + "\n").encode() * 2
    assert outcome_of(data, "a.csv", tmp_path) in ("ready", "too_large", "timeout")


def test_random_bytes_under_every_name(tmp_path: Path) -> None:
    for suffix in sorted(
        {format_.reader: s for s, format_ in extraction.SUPPORTED.items()}.values()
    ):
        code = outcome_of(os.urandom(4096), f"a{suffix}", tmp_path)
        assert code in ("damaged", "unsupported", "mismatch", "ready", "no_text"), suffix


def test_file_names_do_not_matter(extract: Extract) -> None:
    for name in ("\0.txt", "a" * 4000 + ".txt", "../../x.txt", "\u202etxt.exe.txt", "-rf.txt"):
        assert extract("ice", name).pages[0].text == "ice"
