"""Plain text and its relatives: tables as CSV, subtitles, JSON, source code, AsciiDoc, reST."""

import csv
import io
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from kb.extraction import wire
from kb.extraction.decoding import decode
from kb.extraction.limits import Limits
from kb.extraction.unreadable import Unreadable
from kb.extraction.writing import Cleaner, PageWriter, one_page
from kb.pages import BlockKind

UNDERLINE = re.compile(r"([=\-~^\"'`#*+:.])\1{2,}\s*")
ASCIIDOC_HEADING = re.compile(r"(={1,6})\s+(\S.*)")
BULLET = re.compile(r"\s*(?:[-*+•]|\d{1,3}[.)])\s+\S")
CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
BINARY_SHARE = 0.1  # control bytes; text in any encoding has next to none
LONGEST_PARAGRAPH = 20_000  # characters; longer lines are cut at a space
DELIMITERS = ",;\t|"
SNIFFED_LINES = 60
CUE_TIME = re.compile(r"(?:\d+:)?\d{1,2}:\d{2}[.,]\d{3}\s+-->")
VTT_TAG = re.compile(r"<(/?)(v|c|i|b|u|lang|ruby|rt|\d[\d:.]*)([^>]*)>", re.I)


def read(file: BinaryIO, *, limits: Limits, name: str) -> bytes:
    """Give the packed extraction of plain text: paragraphs, and headings that are underlined."""
    writer = PageWriter(Cleaner())
    text = writer.clean(_text(file))
    for paragraph in _paragraphs(text):
        _write_paragraph(writer, paragraph)
    return wire.pack(one_page(writer), limits)


def read_asciidoc(file: BinaryIO, *, limits: Limits, name: str) -> bytes:
    """Read AsciiDoc: its headings; the rest as text without attributes and block marks."""
    writer = PageWriter(Cleaner())
    for paragraph in _paragraphs(writer.clean(_text(file))):
        lines = [line for line in paragraph.split("\n") if not _is_asciidoc_mark(line)]
        while lines and (match := ASCIIDOC_HEADING.fullmatch(lines[0])):
            writer.heading(match[2], len(match[1]))
            lines = lines[1:]
        if lines and lines[0].startswith("."):
            lines[0] = lines[0][1:]
        if lines and sum(line.startswith("|") for line in lines) > len(lines) / 2:
            writer.table([_asciidoc_cells(line) for line in lines if line != "|==="])
        elif lines:
            _write_paragraph(writer, "\n".join(lines))
    return wire.pack(one_page(writer, title=_first_heading(writer)), limits)


def read_code(file: BinaryIO, *, limits: Limits, name: str) -> bytes:
    """Read source code and configuration: one block a stretch between empty lines."""
    writer = PageWriter(Cleaner())
    for paragraph in _paragraphs(writer.clean(_text(file))):
        for piece in _pieces(paragraph):
            writer.add(BlockKind.CODE, piece)
    return wire.pack(one_page(writer), limits)


def read_csv(file: BinaryIO, *, limits: Limits, name: str) -> bytes:
    """Read a table; the delimiter is the one that cuts the first lines most evenly."""
    csv.field_size_limit(limits.file_bytes)
    text = _text(file).replace("\0", "")
    clean = Cleaner()
    writer = PageWriter(clean)
    delimiter = "\t" if name.lower().endswith(".tsv") else _delimiter(text)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise Unreadable("damaged") from error
    writer.table(rows)
    return wire.pack(one_page(writer), limits)


def read_json(file: BinaryIO, *, limits: Limits, name: str) -> bytes:
    """Read JSON and JSON lines: a list of flat objects as a table, anything else as key: value."""
    writer = PageWriter(Cleaner())
    text = _text(file)
    try:
        value = _json_value(text)
    except (ValueError, RecursionError):
        for paragraph in _paragraphs(writer.clean(text)):
            _write_paragraph(writer, paragraph)
        return wire.pack(one_page(writer), limits)
    if isinstance(value, list) and value and all(_is_flat(item) for item in value):
        keys = list(dict.fromkeys(itertools.chain.from_iterable(value)))
        writer.table([keys, *([_scalar(item.get(key)) for key in keys] for item in value)])
    else:
        records = value if isinstance(value, list) else [value]
        for record in records:
            writer.text("\n".join(_flatten(record)))
    return wire.pack(one_page(writer), limits)


def read_subtitles(file: BinaryIO, *, limits: Limits, name: str) -> bytes:
    """Read WebVTT and SubRip: what is said, with who says it, without times."""
    writer = PageWriter(Cleaner())
    title = ""
    for cue in _paragraphs(writer.clean(_text(file))):
        lines = cue.split("\n")
        if lines[0].startswith("WEBVTT"):
            title = lines[0].removeprefix("WEBVTT").strip(" -\t")
            continue
        if re.match(r"(?:NOTE|STYLE|REGION)\b", lines[0]):
            continue
        at = next((i for i, line in enumerate(lines) if CUE_TIME.match(line)), None)
        if at is not None:
            writer.text("\n".join(_spoken(line) for line in lines[at + 1 :]))
    return wire.pack(one_page(writer, title=title), limits)


def _text(file: BinaryIO) -> str:
    """Decode the file; refuses what is no text in any encoding."""
    data = file.read()
    sample = data[:65536]
    text = decode(data)
    wide = sample.count(0) > len(sample) / 8 and not CONTROL.search(
        text[:20000].encode("utf-8", "ignore")
    )
    if not wide and len(CONTROL.findall(sample)) > BINARY_SHARE * len(sample):
        raise Unreadable(
            "unsupported",
            found="This is no text: a binary file",
            advice="Save it as PDF, DOCX or plain text",
        )
    return text


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n[ \t]*\n\s*?(?=\n|\S|[ \t])", text):
        stripped = paragraph.strip("\n").rstrip()
        if stripped.strip():
            yield stripped


def _write_paragraph(writer: PageWriter, paragraph: str) -> None:
    lines = paragraph.split("\n")
    if (
        len(lines) >= 2
        and UNDERLINE.fullmatch(lines[0])
        and len(lines) >= 3
        and UNDERLINE.fullmatch(lines[2])
    ):
        lines = lines[1:]  # reST: a line above and below
    if len(lines) >= 2 and _is_underlined(lines[0], lines[1]):
        level = 1 if lines[1][0] in "=#" else 2 if lines[1][0] in "-*" else 3
        writer.heading(lines[0], level)
        lines = lines[2:]
    if not "".join(lines).strip():
        return
    kind = BlockKind.LIST if all(BULLET.match(line) for line in lines) else BlockKind.TEXT
    for piece in _pieces("\n".join(lines)):
        writer.text(piece, kind)


def _is_underlined(title: str, line: str) -> bool:
    """Say whether `line` underlines `title`: one mark repeated, about as long."""
    title = title.strip()
    if not UNDERLINE.fullmatch(line) or not any(c.isalpha() for c in title):
        return False
    return len(title) <= 120 and len(line.rstrip()) >= 0.8 * len(title)


def _pieces(text: str) -> Iterator[str]:
    """Cut what has no end, such as a file of one line, into pieces at spaces."""
    while len(text) > LONGEST_PARAGRAPH:
        cut = max(text.rfind("\n", 0, LONGEST_PARAGRAPH), text.rfind(" ", 0, LONGEST_PARAGRAPH))
        cut = cut if cut > LONGEST_PARAGRAPH // 2 else LONGEST_PARAGRAPH
        yield text[:cut]
        text = text[cut:]
    yield text


def _delimiter(text: str) -> str:
    """Pick the delimiter that gives the most rows of one width above 1; a comma in doubt."""
    sample = "\n".join(text.splitlines()[:SNIFFED_LINES])

    def evenness(delimiter: str) -> tuple[int, int]:
        try:
            widths = [
                len(row) for row in csv.reader(io.StringIO(sample), delimiter=delimiter) if row
            ]
        except csv.Error:
            return 0, 0
        common = max(set(widths), key=widths.count, default=0)
        return (widths.count(common), common) if common > 1 else (0, 0)

    return max(DELIMITERS, key=evenness)


def _json_value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        lines = [line for line in text.splitlines() if line.strip()]
        return [json.loads(line) for line in lines]


def _is_flat(item: Any) -> bool:
    return isinstance(item, dict) and not any(isinstance(v, dict | list) for v in item.values())


def _scalar(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _flatten(value: Any, path: str = "") -> Iterator[str]:
    """Give "path.to.key: value" lines."""
    if isinstance(value, dict | list):
        items: Iterable[tuple[Any, Any]]
        items = value.items() if isinstance(value, dict) else enumerate(value, start=1)
        for key, item in items:
            yield from _flatten(item, f"{path}.{key}" if path else str(key))
    else:
        yield f"{path}: {_scalar(value)}" if path else _scalar(value)


def _spoken(line: str) -> str:
    """Turn "<v Ann>Hello" into "Ann: Hello" and drop other tags."""
    line = re.sub(r"<v(?:\.[\w.]+)?\s+([^>]+)>", r"\1: ", line)
    return VTT_TAG.sub("", line).replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">")


def _is_asciidoc_mark(line: str) -> bool:
    return (
        re.fullmatch(r":[\w-]+:.*|\[.*\]|[-=*_.+/]{4,}|--|//.*|image::.*|include::.*", line)
        is not None
    )


def _asciidoc_cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?:\d+[*+.]*)?\|", line)[1:]]


def _first_heading(writer: PageWriter) -> str:
    first = writer.blocks[0] if writer.blocks else None
    return writer.parts[0] if first is not None and first.kind is BlockKind.HEADING else ""
