"""EPUB: the chapters in reading order, one page each."""

import posixpath
from typing import BinaryIO
from urllib.parse import unquote

from selectolax.lexbor import LexborHTMLParser

from kb.extraction import wire
from kb.extraction.archive import DUBLIN_CORE, Archive, attribute, local
from kb.extraction.decoding import decode
from kb.extraction.limits import Limits
from kb.extraction.unreadable import Unreadable
from kb.extraction.web import Walker, declared_encoding
from kb.extraction.writing import Cleaner, PageWriter
from kb.pages import BlockKind, Extraction, Page

HARMLESS_ENCRYPTION = (b"http://www.idpf.org/2008/embedding", b"http://ns.adobe.com/pdf/enc#RC")


def read(file: BinaryIO, *, limits: Limits, name: str) -> bytes:
    """Give the packed extraction of an open book."""
    archive = Archive(file, limits)
    _refuse_locked(archive)
    package_path = _package_path(archive)
    package = archive.xml(package_path)
    folder = posixpath.dirname(package_path)
    items = {
        attribute(item, "id"): posixpath.normpath(
            posixpath.join(folder, unquote(attribute(item, "href")))
        )
        for item in package.iter()
        if local(item) == "item"
    }
    order = [attribute(item, "idref") for item in package.iter() if local(item) == "itemref"]
    clean = Cleaner()
    pages: list[Page] = []
    for part in (items[reference] for reference in order if reference in items):
        if archive.has(part) and (page := _chapter(archive.read(part), len(pages) + 1, clean)):
            pages.append(page)
        if len(pages) > limits.pages:
            raise Unreadable("too_many_pages", count=len(pages), limit=limits.pages)
    if not pages:
        raise Unreadable(
            "no_text",
            reason="The book holds no text, only pictures.",
            advice="Run text recognition (OCR) on it and upload the result.",
        )
    title = package.find(f".//{DUBLIN_CORE}title")
    title_text = clean((title.text or "") if title is not None else "")
    extraction = Extraction(tuple(pages), " ".join(title_text.split()), tuple(clean.warnings()))
    return wire.pack(extraction, limits)


def _refuse_locked(archive: Archive) -> None:
    """Refuse books with copy protection; obfuscated fonts alone do no harm."""
    if not archive.has("META-INF/encryption.xml"):
        return
    methods = [
        attribute(item, "Algorithm").encode()
        for item in archive.xml("META-INF/encryption.xml").iter()
        if local(item) == "EncryptionMethod"
    ]
    if any(method not in HARMLESS_ENCRYPTION for method in methods):
        raise Unreadable("encrypted")


def _package_path(archive: Archive) -> str:
    if not archive.has("META-INF/container.xml"):
        raise Unreadable("damaged")
    for item in archive.xml("META-INF/container.xml").iter():
        path = posixpath.normpath(unquote(attribute(item, "full-path")))
        if local(item) == "rootfile" and archive.has(path):
            return path
    raise Unreadable("damaged")


def _chapter(data: bytes, number: int, clean: Cleaner) -> Page | None:
    tree = LexborHTMLParser(decode(data, hint=declared_encoding))
    writer = PageWriter(clean)
    Walker(writer).walk(tree.body)
    if not writer.blocks:
        return None
    first = writer.blocks[0]
    label = writer.parts[0] if first.kind is BlockKind.HEADING else ""
    return writer.page(number, label=label)
