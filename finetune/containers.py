"""The files that rows come in: JSON, JSON lines, CSV and Parquet, read as a stream. Pure.

Which one it is, and its encoding, is seen from the content; the name of the file says nothing.
"""

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TextIO

from finetune.formats import TABLE, unquoted_cell
from kb.extraction import DocumentUnreadable, sandbox
from kb.extraction.decoding import encoding_of
from kb.extraction.limits import Limits

MEBIBYTE = 1024 * 1024
# Longer than any honest pair; what is longer is refused before it fills the memory.
MAX_ROW_CHARS = 4 * MEBIBYTE
MAX_COLUMNS = 1_000
MAX_WRAPPED_CHARS = 64 * MEBIBYTE
MAX_PARQUET_BYTES = 256 * MEBIBYTE  # of its rows as JSON lines
READ_CHARS = MEBIBYTE
SAMPLE_CHARS = 256 * 1024
DELIMITERS = ",;\t|"
# Where lists and objects can stand in cells, as JSON.
TABLES = ("csv", "parquet")
# Beginnings of files that people take for tables.
NOT_TABLES = {
    b"PK\x03\x04": "a ZIP archive or an Excel workbook. Unpack it, or save the sheet as CSV",
    b"\x1f\x8b": "compressed with gzip. Unpack it",
    b"\x28\xb5\x2f\xfd": "compressed with Zstandard. Unpack it",
    b"\xfd7zXZ": "compressed with xz. Unpack it",
    b"BZh": "compressed with bzip2. Unpack it",
    b"ARROW1": "in Arrow's own format. Save it as Parquet",
    b"%PDF": "a PDF. Add it as a document and draft pairs from it",
}
UNKNOWN = (
    "No table of pairs was found in the file. It can be JSON, JSON lines, CSV or Parquet;"
    " a CSV file starts with a row that names its columns."
)
EMPTY = "The file is empty."
TOO_LONG = f"The row is longer than {MAX_ROW_CHARS // MEBIBYTE} million characters."
NO_OBJECT = "The row is not an object with named fields."
TOO_DEEP = "The row is nested too deeply."
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder(parse_constant=lambda name: None)  # NaN: another word for nothing


class UnreadableFile(Exception):
    """No rows can be read from the file; the message is a sentence for the person."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row as the file has it, or the reason why it is none.

    `number` counts from 1. `raw` is the text, where it could not be read. `size`: about its
    characters. `position`: bytes of the file that have been read by now, some ahead of the row.
    """

    number: int
    values: dict[str, Any] | None
    reason: str = ""
    raw: str = ""
    size: int = 0
    position: int = 0


def detect(path: Path) -> str:
    """Give "json", "jsonl", "csv" or "parquet" by what the file holds. Raises UnreadableFile."""
    with path.open("rb") as file:
        head = file.read(8)
    if not head:
        raise UnreadableFile(EMPTY)
    if head.startswith(b"PAR1"):
        return "parquet"
    for beginning, what in NOT_TABLES.items():
        if head.startswith(beginning):
            raise UnreadableFile(f"The file is {what} and add it again.")
    with _text(path) as (text, _):
        sample = text.read(SAMPLE_CHARS)
    if "\0" in sample:
        raise UnreadableFile(UNKNOWN)
    return _detect_text(sample)


def _detect_text(sample: str) -> str:
    start = sample.lstrip()
    if not start:
        raise UnreadableFile(EMPTY)
    if start[0] == "[":
        return "json"
    if start[0] == "{":
        lines = [line for line in start.splitlines()[:3] if line.strip()]
        is_many = len(lines) > 1 and any(_is_object(line) for line in lines[:2])
        return "jsonl" if is_many or len(lines) == 1 and _is_pair(lines[0]) else "json"
    if _delimiter(sample):
        return "csv"
    raise UnreadableFile(UNKNOWN)


def _is_object(line: str) -> bool:
    try:
        return isinstance(_DECODER.decode(line), dict)
    except (ValueError, RecursionError):
        return False


def _is_pair(line: str) -> bool:
    """Whether a file's only line is a row rather than a wrapper around a list of rows."""
    return _is_object(line) and _wrapped(_DECODER.decode(line)) is None


def _delimiter(sample: str) -> str:
    """Find what separates the columns: the sign that gives most rows the width of the first."""
    best, most = "", 1
    for delimiter in DELIMITERS:
        rows = [row for row in _sample_rows(sample, delimiter) if row]
        width = len(rows[0]) if rows else 0
        fitting = sum(len(row) == width for row in rows)
        is_named = rows and all(cell.strip() for cell in rows[0][1:])
        if is_named and len(rows) > 1 and width > most and fitting >= 0.8 * len(rows):
            best, most = delimiter, width
    return best


def _sample_rows(sample: str, delimiter: str) -> list[list[str]]:
    csv.field_size_limit(MAX_ROW_CHARS)
    lines = io.StringIO(sample, newline="")
    try:
        rows = list(csv.reader(lines, delimiter=delimiter))
    except csv.Error:
        return []
    return rows[:-1] if len(sample) >= SAMPLE_CHARS and len(rows) > 2 else rows


def read(path: Path, container: str, *, most_rows: int = 0) -> Iterator[Row]:
    """Give the rows one by one, bad ones too; `most_rows` 0 is all. Raises UnreadableFile."""
    reader = {"json": _json, "jsonl": _lines, "csv": _csv}.get(container)
    rows = _from_text(path, reader) if reader else _parquet(path, most_rows)
    for row in rows:
        if most_rows and row.number > most_rows:
            return
        yield row


def _from_text(path: Path, reader: Any) -> Iterator[Row]:
    with _text(path) as (text, raw):
        for number, (read, size) in enumerate(reader(text), start=1):
            values, reason, source = read
            yield Row(number, values, reason, source, size, raw.tell())


@contextmanager
def _text(path: Path) -> Iterator[tuple[TextIO, IO[bytes]]]:
    """Open a file as text in its own encoding; gives the text and the bytes below it."""
    with path.open("rb") as raw:
        text = io.TextIOWrapper(raw, _encoding(path), errors="replace", newline="")
        if text.read(1) != "\ufeff":
            text.seek(0)
        yield text, raw


def _encoding(path: Path) -> str:
    """Name the encoding: UTF-8 when every byte agrees, else by the stretch that does not."""
    decoder, position = codecs.getincrementaldecoder("utf-8")(), 0
    with path.open("rb") as file:
        start = file.read(SAMPLE_CHARS)
        if (name := encoding_of(start)) != "utf-8":
            return name
        file.seek(0)
        try:
            while chunk := file.read(MEBIBYTE):
                decoder.decode(chunk)
                position += len(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            file.seek(max(0, position + error.start - 2_000))
            telling = (line for line in file.read(MEBIBYTE).splitlines() if not line.isascii())
            return encoding_of(b"\n".join(telling)[:SAMPLE_CHARS])
    return "utf-8"


_Read = tuple[dict[str, Any] | None, str, str]  # values, reason, raw
_Sized = tuple[_Read, int]


def _checked(value: Any) -> _Read:
    if isinstance(value, dict):
        return value, "", ""
    return None, NO_OBJECT, json.dumps(value, ensure_ascii=False)


def _lines(text: TextIO) -> Iterator[_Sized]:
    while line := text.readline(MAX_ROW_CHARS + 1):
        if len(line) > MAX_ROW_CHARS and not line.endswith("\n"):
            yield (None, TOO_LONG, line[:1000]), 0
            _skip_line(text)
        elif line.strip():
            yield _line(line), len(line)


def _skip_line(text: TextIO) -> None:
    while (rest := text.readline(READ_CHARS)) and not rest.endswith("\n"):
        pass


def _line(line: str) -> _Read:
    try:
        return _checked(_DECODER.decode(line.strip()))
    except json.JSONDecodeError as error:
        return None, f"The line is not JSON: {_in_words(error)}.", line.rstrip("\r\n")
    except RecursionError:
        return None, TOO_DEEP, line.rstrip("\r\n")
    except ValueError:
        return None, "The row holds a number that is too long.", line.rstrip("\r\n")


def _in_words(error: json.JSONDecodeError) -> str:
    """Python's own words, at the column where they apply."""
    return f"{error.msg[:1].lower()}{error.msg[1:]} at character {error.pos + 1}"


class _Window:
    """A stretch of a text that moves on as its values are taken from it."""

    def __init__(self, text: TextIO) -> None:
        self.text, self.buffer, self.at, self.taken = text, "", 0, 0

    def grow(self) -> bool:
        more = self.text.read(READ_CHARS)
        self.buffer, self.at = self.buffer[self.at :] + more, 0
        return bool(more)

    def sign(self) -> str:
        """Give the next character that is no space, "" at the end of the text."""
        while True:
            self.at = _SPACE.match(self.buffer, self.at).end()  # type: ignore[union-attr]
            if self.at < len(self.buffer):
                return self.buffer[self.at]
            if not self.grow():
                return ""

    def take(self, most_chars: int = MAX_ROW_CHARS) -> Any:
        """Read the value that begins here. Raises ValueError and RecursionError as json does."""
        while True:
            try:
                value, end = _DECODER.raw_decode(self.buffer, self.at)
                self.taken, self.at = end - self.at, end
                return value
            except ValueError:
                if len(self.buffer) - self.at > most_chars or not self.grow():
                    raise


def _json(text: TextIO) -> Iterator[_Sized]:
    """Read an array of rows, rows that follow each other, or one object around an array."""
    window = _Window(text)
    if window.sign() == "[":
        window.at += 1
        yield from _items(window, end="]")
        return
    try:
        first = window.take(MAX_WRAPPED_CHARS)
    except (ValueError, RecursionError) as error:
        yield (None, _broken(error, window), window.buffer[:1000]), 0
        return
    rows = _wrapped(first) if window.sign() == "" else None
    if rows is not None:
        yield from ((_checked(row), window.taken // len(rows)) for row in rows)
        return
    yield _checked(first), window.taken
    yield from _items(window, end="")


def _wrapped(value: Any) -> list[Any] | None:
    """Give the rows of {"data": [{…}, …]}: of the one list of objects in an object."""
    if not isinstance(value, dict) or {"messages", "conversations", "instances"} & set(value):
        return None
    lists = [v for v in value.values() if isinstance(v, list) and v and isinstance(v[0], dict)]
    return lists[0] if len(lists) == 1 else None


def _items(window: _Window, *, end: str) -> Iterator[_Sized]:
    """Read values with commas between until `end`; where one breaks off, the rest is lost."""
    while (sign := window.sign()) != end:
        if sign == ",":
            window.at += 1
            continue
        try:
            value = window.take()
        except (ValueError, RecursionError) as error:
            yield (None, _broken(error, window), window.buffer[window.at : window.at + 1000]), 0
            return
        yield _checked(value), window.taken


def _broken(error: Exception, window: _Window) -> str:
    if isinstance(error, RecursionError):
        what = "the row is nested too deeply"
    elif len(window.buffer) - window.at > MAX_ROW_CHARS:
        what = "the row has no end"
    elif isinstance(error, json.JSONDecodeError) and window.buffer:
        what = f"{error.msg[:1].lower()}{error.msg[1:]}"
    else:
        what = "a number is too long" if window.buffer else "the file ends in the middle"
    return f"The JSON breaks off here: {what}. Nothing after it could be read."


def _csv(text: TextIO) -> Iterator[_Sized]:
    csv.field_size_limit(MAX_ROW_CHARS)
    delimiter = _delimiter(text.read(SAMPLE_CHARS)) or ","
    text.seek(0)
    lines = iter(lambda: text.readline(MAX_ROW_CHARS), "")
    reader = csv.reader(lines, delimiter=delimiter)
    header: list[str] = []
    is_ours = False
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield (None, f"The row is not CSV: {error}.", ""), 0
            continue
        if not header:
            header = _header(cells)
            is_ours = header == list(TABLE)
        elif cells:
            cells = list(map(unquoted_cell, cells)) if is_ours else cells
            yield _cells(header, cells, delimiter), sum(map(len, cells)) + len(cells)


def _header(cells: list[str]) -> list[str]:
    """Name every column once: an empty name becomes its number, a second one gets a number."""
    if len(cells) > MAX_COLUMNS:
        raise UnreadableFile(f"The file has {len(cells):,} columns; {MAX_COLUMNS:,} are the most.")
    names: list[str] = []
    for position, cell in enumerate(cells, start=1):
        name = cell.strip(" \ufeff") or f"column {position}"
        names.append(name if name not in names else f"{name} ({position})")
    return names if any(cell.strip() for cell in cells) else []


def _cells(header: list[str], cells: list[str], delimiter: str) -> _Read:
    if len(cells) == len(header):
        return dict(zip(header, cells, strict=True)), "", ""
    reason = f"The row has {len(cells)} columns, and the first row of the file names {len(header)}."
    return None, reason, delimiter.join(cells)


def _parquet(path: Path, most_rows: int) -> Iterator[Row]:
    limits = Limits(output_bytes=MAX_PARQUET_BYTES)
    try:
        data = sandbox.run(
            "finetune.parquet:to_lines",
            path,
            kind="Parquet file",
            limits=limits,
            most_rows=most_rows,
        )
    except DocumentUnreadable as error:
        raise UnreadableFile(str(error)) from error
    size, lines = path.stat().st_size, io.BytesIO(data)
    for number, line in enumerate(lines, start=1):
        read = _line(line.decode("utf-8", "replace"))
        yield Row(number, *read, len(line), size * lines.tell() // len(data))
