"""A file is what its name says, or a sentence tells what it is and what to do."""

import io
import zipfile
from pathlib import Path

import pytest

from kb import extraction
from kb.extraction.limits import Limits
from kb.extraction.unreadable import SENTENCES, DocumentUnreadable, in_words
from tests.kb.extraction.documents import docx, epub, odt, pptx
from tests.kb.extraction.pdf_writer import Pdf, PdfPage, text

PDF_FILE = Pdf([PdfPage(text(72, 700, "Glaciers move slowly."))]).write()
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)


def refused(
    tmp_path: Path, data: bytes, name: str, limits: Limits | None = None
) -> DocumentUnreadable:
    path = tmp_path / "upload"
    path.write_bytes(data)
    with pytest.raises(DocumentUnreadable) as caught:
        extraction.extract(path, name, limits=limits or Limits())
    return caught.value


@pytest.mark.parametrize("suffix", sorted(extraction.SUPPORTED))
def test_an_empty_file_of_any_kind_is_called_empty(suffix: str, tmp_path: Path) -> None:
    error = refused(tmp_path, b"", f"notes{suffix}")
    assert error.code == "empty"
    assert str(error) == "The file is empty. Check the original and upload it again."


@pytest.mark.parametrize(
    "suffix", [s for s, f in extraction.SUPPORTED.items() if f.content != "text"]
)
def test_one_byte_is_a_damaged_file(suffix: str, tmp_path: Path) -> None:
    assert refused(tmp_path, b"x", f"notes{suffix}").code == "damaged"


@pytest.mark.parametrize(
    ("data", "name", "found"),
    [
        (PDF_FILE, "report.docx", "a PDF. Rename it to .pdf"),
        (PDF_FILE, "report.txt", "a PDF. Rename it to .pdf"),
        (docx("Hello"), "report.pdf", "a Word document. Rename it to .docx"),
        (docx("Hello"), "report.xlsx", "a Word document. Rename it to .docx"),
        (pptx([("Title", ["text"])]), "talk.docx", "a PowerPoint presentation. Rename it to .pptx"),
        (epub({"a": "<p>text</p>"}), "book.docx", "an EPUB book. Rename it to .epub"),
        (odt("<text:p>Hello</text:p>"), "a.docx", "an OpenDocument text. Rename it to .odt"),
        (b"<!DOCTYPE html><p>Please sign in", "report.pdf", "a web page. Rename it to .html"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "scan.pdf", "a picture. Save it as PDF or DOCX"),
        (b"\x7fELF" + bytes(60), "setup.txt", "a program"),
        (b"{\\rtf1 Hello}", "letter.docx", "an RTF document"),
        (OLE, "old.docx", "an old Office file"),
    ],
)
def test_a_wrong_name_is_told_what_the_file_is(
    data: bytes, name: str, found: str, tmp_path: Path
) -> None:
    error = refused(tmp_path, data, name)
    assert error.code == "mismatch"
    assert found in str(error)
    assert f"named .{name.rpartition('.')[2]}" in str(error)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("letter.doc", "save it as .docx"),
        ("talk.ppt", "save it as .pptx"),
        ("letter.rtf", "save it as .docx"),
        ("mail.msg", "save it as .eml"),
        ("all.zip", "Unpack it"),
        ("photo.heic", "Save it as PDF, DOCX or plain text"),
        ("README", "no ending"),
    ],
)
def test_a_kind_we_do_not_read_says_what_to_save_it_as(
    name: str, advice: str, tmp_path: Path
) -> None:
    error = refused(tmp_path, b"anything", name)
    assert error.code == "unsupported"
    assert advice in str(error)


def test_a_password_on_a_word_file_is_named(tmp_path: Path) -> None:
    locked = OLE + "EncryptedPackage".encode("utf-16-le") + bytes(100)
    error = refused(tmp_path, locked, "plan.docx")
    assert error.code == "encrypted"
    assert "Remove the password and upload the file again." in str(error)


def test_a_file_over_the_limit_says_how_large_it_may_be(tmp_path: Path) -> None:
    path = tmp_path / "upload"
    with path.open("wb") as file:
        file.truncate(500 * 1024 * 1024)  # sparse
    with pytest.raises(DocumentUnreadable, match="500 MB, and the limit is 200 MB") as caught:
        extraction.extract(path, "big.pdf")
    assert caught.value.code == "too_large"


def test_a_zip_that_is_no_document_is_called_one(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("notes.txt", "hello")
    assert refused(tmp_path, packed.getvalue(), "notes.pdf").code == "mismatch"
    assert refused(tmp_path, packed.getvalue(), "notes.docx").code == "damaged"


def test_media_types_come_from_name_and_content(tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(PDF_FILE)
    assert extraction.media_type_of(path, "Report.PDF") == "application/pdf"
    with pytest.raises(DocumentUnreadable):
        extraction.media_type_of(path, "report.md")


def test_every_sentence_is_worded_and_says_what_to_do() -> None:
    details = dict.fromkeys(
        ["suffix", "found", "advice", "reason", "size", "limit", "count", "seconds"],
        "Save it as PDF.",
    )
    for code in SENTENCES:
        numbers = {"count": 6000, "limit": 5000} if code == "too_many_pages" else {}
        sentence = str(in_words(code, "PDF", details | numbers))
        assert sentence[0].isupper()
        assert sentence.endswith(".")
        assert any(verb in sentence for verb in ("upload", "Save")), sentence
        assert "orry" not in sentence


def test_an_unknown_code_becomes_a_damaged_file() -> None:
    assert in_words("nonsense", "PDF", {}).code == "damaged"
    assert in_words("too_many_pages", "PDF", {}).code == "damaged"
