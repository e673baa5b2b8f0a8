"""ZIP containers (DOCX, PPTX, XLSX, ODF, EPUB), looked over before anything is unpacked."""

import zipfile
from typing import BinaryIO
from xml.etree import ElementTree
from xml.etree.ElementTree import Element
from xml.parsers import expat

from kb.extraction.limits import Limits
from kb.extraction.unreadable import Unreadable

ENCRYPTED = 1  # bit of a zip entry's flags
DUBLIN_CORE = "{http://purl.org/dc/elements/1.1/}"
DECLARATIONS = 200  # of an XML file's first bytes, in KiB, that may pass before its first element


class Archive:
    """An open container whose directory was found harmless; members are read with a cap."""

    def __init__(self, file: BinaryIO, limits: Limits) -> None:
        try:
            self.zip = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, ValueError, OSError, EOFError, NotImplementedError) as error:
            raise Unreadable("damaged") from error
        self.limits = limits
        _check_directory(self.zip.infolist(), limits)
        self.names = set(self.zip.namelist())
        self.unpacked = 0

    def read(self, name: str) -> bytes:
        """Unpack a member. A directory may lie about sizes, so what comes out is counted."""
        try:
            with self.zip.open(name) as member:
                data = member.read(self.limits.zip_bytes - self.unpacked + 1)
        except KeyError as error:
            raise Unreadable("damaged") from error
        except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
            raise Unreadable("damaged") from error
        except RuntimeError as error:  # zipfile's word for "needs a password"
            raise Unreadable("encrypted") from error
        self.unpacked += len(data)
        if self.unpacked > self.limits.zip_bytes:
            raise Unreadable("bomb")
        return data

    def xml(self, name: str) -> Element:
        """Parse a member; entities of its own are refused, they only serve attacks."""
        return parse_xml(self.read(name))

    def has(self, name: str) -> bool:
        return name in self.names


def parse_xml(data: bytes) -> Element:
    """Parse XML without entities; external ones are never fetched by expat."""
    refuse_entities(data)
    try:
        return ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise Unreadable("damaged") from error


def refuse_entities(data: bytes) -> None:
    """Raise Unreadable when a document declares entities, the stuff of XML bombs and of XXE."""
    parser = expat.ParserCreate()
    seen_element = False

    def on_entity(*_: object) -> None:
        raise Unreadable("bomb")

    def on_element(*_: object) -> None:
        nonlocal seen_element
        seen_element = True

    parser.EntityDeclHandler = on_entity
    parser.StartElementHandler = on_element
    try:
        for start in range(0, min(len(data), DECLARATIONS * 1024), 1024):
            parser.Parse(data[start : start + 1024], False)
            if seen_element:
                return
    except (expat.ExpatError, ValueError, LookupError):
        return  # broken: whoever parses it in full will say so


def _check_directory(entries: list[zipfile.ZipInfo], limits: Limits) -> None:
    packed = sum(entry.compress_size for entry in entries)
    unpacked = sum(entry.file_size for entry in entries)
    if len(entries) > limits.zip_entries or unpacked > limits.zip_bytes:
        raise Unreadable("bomb")
    if unpacked > limits.zip_ratio_from_bytes and unpacked > limits.zip_ratio * max(packed, 1):
        raise Unreadable("bomb")
    for entry in entries:
        if entry.flag_bits & ENCRYPTED:
            raise Unreadable("encrypted")
        if entry.filename.startswith(("/", "\\")) or ".." in entry.filename.split("/"):
            raise Unreadable("damaged")


def core_title(archive: Archive) -> str:
    """Give the title in the file's own properties, "" if none."""
    if not archive.has("docProps/core.xml"):
        return ""
    title = archive.xml("docProps/core.xml").find(f"{DUBLIN_CORE}title")
    return (title.text or "").strip() if title is not None else ""


def local(element: Element) -> str:
    """Give a tag without its namespace; strict and transitional files use two of each."""
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def attribute(element: Element, name: str) -> str:
    """Look up an attribute in whatever namespace."""
    for key, value in element.attrib.items():
        if key.rpartition("}")[2] == name:
            return value
    return ""


def child(element: Element | None, *path: str) -> Element | None:
    """Follow local names down."""
    for name in path:
        if element is None:
            return None
        element = next((item for item in element if local(item) == name), None)
    return element
