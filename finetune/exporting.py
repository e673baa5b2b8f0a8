"""From pairs to a file: each format, with where every pair comes from."""

import csv
import io
import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from django.db import transaction
from django.db.models import QuerySet

from finetune import formats, writing
from finetune.models import AuditEvent, Dataset, InstructionPair, PairSource
from kb.files import COPY_BYTES
from kb.models import User

BATCH_ROWS = 500
JSON_TYPE, LINES_TYPE = "application/json", "application/jsonl"


@dataclass(frozen=True, slots=True)
class Kind:
    """A sort of file that pairs can be written to."""

    label: str
    format: str
    container: str
    media_type: str


KINDS = {
    f"{name}_{container}": Kind(f"{label}, {as_}", name, container, media_type)
    for name, label in (
        (formats.ALPACA, "Alpaca"),
        (formats.SHAREGPT, "ShareGPT"),
        (formats.MESSAGES, "Messages"),
        (formats.PROMPT_COMPLETION, "Prompt and completion"),
    )
    for container, as_, media_type in (
        ("jsonl", "JSON lines", LINES_TYPE),
        ("json", "JSON", JSON_TYPE),
    )
} | {
    "csv": Kind("CSV", "table", "csv", "text/csv; charset=utf-8"),
    "parquet": Kind("Parquet", "table", "parquet", "application/vnd.apache.parquet"),
}


def select(
    user: User, dataset: Dataset, *, states: Sequence[str] = (), tags: Sequence[str] = ()
) -> QuerySet[InstructionPair]:
    """Pairs of a data set that the user may see; in any of the states, with any of the tags."""
    pairs = InstructionPair.objects.visible_to(user).filter(dataset=dataset)
    if states:
        pairs = pairs.filter(state__in=states)
    if tags:
        pairs = pairs.filter(tags__overlap=list(tags))
    return pairs


def export(
    user: User,
    dataset: Dataset,
    kind: str,
    *,
    states: Sequence[str] = (),
    tags: Sequence[str] = (),
    with_provenance: bool = True,
) -> Iterator[bytes]:
    """Write down who takes what, and give the file piece by piece.

    Each piece is read when it is asked for, with the permissions of that moment.
    """
    pairs = select(user, dataset, states=states, tags=tags)
    with transaction.atomic():
        AuditEvent.objects.record(
            user,
            AuditEvent.Action.EXPORTED,
            dataset,
            dataset.collection,
            kind=kind,
            states=list(states),
            tags=list(tags),
            pairs=pairs.count(),
        )
    return stream(pairs, kind, with_provenance=with_provenance)


def file_name(dataset: Dataset, kind: str) -> str:
    stem = re.sub(r"[^\w-]+", "-", dataset.name).strip("-").lower() or "pairs"
    return f"{stem}.{KINDS[kind].container}"


def stream(
    pairs: QuerySet[InstructionPair], kind: str, *, with_provenance: bool = True
) -> Iterator[bytes]:
    """Give the file of the pairs in pieces of some hundred rows."""
    writer = {"json": _json, "jsonl": _lines, "csv": _csv, "parquet": _parquet}
    batches = _rows(pairs, KINDS[kind].format, with_provenance=with_provenance)
    return writer[KINDS[kind].container](batches)


_Batches = Iterator[list[dict[str, Any]]]


def _rows(pairs: QuerySet[InstructionPair], format_: str, *, with_provenance: bool) -> _Batches:
    """Give the rows in batches, in the order in which the pairs were made."""
    last = 0
    pairs = pairs.select_related("author", "reviewer", "collection", "dataset", "pair_import")
    while batch := list(pairs.filter(pk__gt=last).order_by("pk")[:BATCH_ROWS]):
        sources = _sources_of(batch)
        rows = []
        for pair in batch:
            known = provenance(pair, sources.get(pair.pk, [])) if with_provenance else None
            is_table = format_ == "table"
            rows.append(
                writing.write_cells(pair, known)
                if is_table
                else writing.write(pair, format_, known)
            )
        yield rows
        last = batch[-1].pk


def _sources_of(pairs: Sequence[InstructionPair]) -> dict[int, list[PairSource]]:
    found: dict[int, list[PairSource]] = {}
    for source in PairSource.objects.filter(pair__in=pairs).order_by("pair_id", "marker"):
        found.setdefault(source.pair_id, []).append(source)
    return found


# --- Where a pair comes from ---------------------------------------------------------------------

JUDGEMENT = ("state", "language", "reviewer", "reviewed_at", "reject_reason")
ORDER = (
    *("state", "origin", "language", "author", "reviewer", "reviewed_at", "reject_reason"),
    *("collection", "dataset", "message", "file", "row", "sources"),
)
SOURCE_ORDER = (
    *("marker", "is_distractor", "document", "title", "version", "heading_path"),
    *("page_first", "page_last", "start", "end", "text"),
)


def provenance(pair: InstructionPair, sources: Sequence[PairSource]) -> dict[str, Any]:
    """Say where a pair comes from and who judged it; empty facts are left out.

    What an imported file said of a pair is said again, until somebody here judges or changes it.
    """
    own, carried = _own(pair), pair.extra.get("provenance")
    said = {source["marker"]: source for source in map(_source, sources)}
    if not isinstance(carried, dict):
        return _ordered({**own, "sources": list(said.values())}, ORDER)
    facts = dict(carried)
    if pair.state != InstructionPair.State.SUGGESTED or pair.updated_at != pair.created_at:
        facts |= {name: own.get(name) for name in JUDGEMENT}
    if said:
        facts["sources"] = _merged(carried.get("sources"), said)
    return _ordered(facts, ORDER)


def _own(pair: InstructionPair) -> dict[str, Any]:
    return {
        "state": pair.state,
        "origin": pair.origin,
        "language": pair.language,
        "author": pair.author.display_name if pair.author else pair.author_label,
        "reviewer": pair.reviewer.display_name if pair.reviewer else "",
        "reviewed_at": pair.reviewed_at and pair.reviewed_at.astimezone(UTC).isoformat(),
        "reject_reason": pair.reject_reason,
        "collection": pair.collection.name,
        "dataset": pair.dataset.name,
        "message": pair.message_id,
        "file": pair.pair_import.name if pair.pair_import else "",
        "row": pair.row_number,
    }


def _source(source: PairSource) -> dict[str, Any]:
    facts = {
        "marker": source.marker,
        "is_distractor": source.is_distractor,
        "document": source.document_name,
        "title": source.title,
        "version": source.version_number,
        "heading_path": source.heading_path,
        "page_first": source.page_first,
        "page_last": source.page_last,
        "start": source.start,
        "end": source.end,
        "text": source.text,
    }
    return _ordered(facts, SOURCE_ORDER)


def _merged(carried: Any, linked: dict[int, dict[str, Any]]) -> list[Any]:
    """Put the passages that were found here in the place of what the file said of them."""
    named = carried if isinstance(carried, list) else []
    left = dict(linked)
    merged = [
        left.pop(source["marker"], source)
        if isinstance(source, dict) and isinstance(source.get("marker"), int)
        else source
        for source in named
    ]
    return [*merged, *left.values()]


def _ordered(facts: dict[str, Any], order: Sequence[str]) -> dict[str, Any]:
    """Give the facts in a fixed order, others after them by name; empty ones are left out."""
    names = [*(n for n in order if n in facts), *sorted(n for n in facts if n not in order)]
    kept = {name: facts[name] for name in names if facts[name] or facts[name] == 0}
    kept = {name: value for name, value in kept.items() if value is not False}
    if isinstance(kept.get("sources"), list) and order is ORDER:
        kept["sources"] = [
            _ordered(source, SOURCE_ORDER) if isinstance(source, dict) else source
            for source in kept["sources"]
        ]
    return kept


# --- The files -----------------------------------------------------------------------------------


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False)


def _lines(batches: _Batches) -> Iterator[bytes]:
    for rows in batches:
        yield "".join(f"{_line(row)}\n" for row in rows).encode()


def _json(batches: _Batches) -> Iterator[bytes]:
    between = "[\n"
    for rows in batches:
        yield (between + ",\n".join(map(_line, rows))).encode()
        between = ",\n"
    yield b"[]\n" if between == "[\n" else b"\n]\n"


def _csv(batches: _Batches) -> Iterator[bytes]:
    yield _csv_text([dict(zip(formats.TABLE, formats.TABLE, strict=True))])
    for rows in batches:
        yield _csv_text(rows)


def _csv_text(rows: Sequence[dict[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    for row in rows:
        writer.writerow([_cell(value) for value in row.values()])
    return text.getvalue().encode()


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return formats.dumps(value) if value else ""
    return formats.quoted_cell(str(value))


def _parquet(batches: _Batches) -> Iterator[bytes]:
    """Parquet ends with its table of contents, so the file is made whole before it is given."""
    from finetune import parquet

    with tempfile.TemporaryFile() as lines, tempfile.TemporaryFile() as target:
        for rows in batches:
            lines.write("".join(f"{_line(row)}\n" for row in rows).encode())
        lines.seek(0)
        parquet.from_lines(lines, target, formats.TABLE)
        target.seek(0)
        while chunk := target.read(COPY_BYTES):
            yield chunk
