"""From a file of pairs to suggested pairs: look at it, confirm it, bring its rows in."""

import json
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.core.files import File
from django.db import connection, transaction
from django.db.models import F
from django.db.models.functions import Substr
from django.utils import timezone

from finetune import containers, formats, measuring, quality, reading
from finetune.containers import Row, UnreadableFile
from finetune.formats import Pair
from finetune.models import (
    AuditEvent,
    ColumnMapping,
    Dataset,
    ImportProblem,
    InstructionPair,
    PairImport,
    PairSource,
)
from finetune.reading import RowRefused
from kb.models import DocumentVersion, Job, User
from kb.models.documents import UploadRefused, delete_unused_files, storing
from kb.models.jobs import LeaseLost

logger = logging.getLogger(__name__)
BATCH_ROWS, BATCH_CHARS = 500, 4_000_000
# A preview reads at most this far, so that a page of a huge file does not keep a person waiting.
PREVIEW_ROWS = 20_000
PREVIEW_S = 4.0
SHOWN_ROWS, SHOWN_PROBLEMS = 5, 20
DETECT_ROWS = 200
LONGEST_RAW, LONGEST_REASON = 100_000, 300
# Of the usual sets: a question and an answer of some sentences.
TYPICAL_ROW_BYTES = 600
MEASURED = ("system", "messages", "instruction", "input", "output", "rejected")
MAX_MARKER = 2**15 - 1
MAX_NUMBER = 2**31 - 1
BROKEN = (
    "The import stopped because of a fault in the program; the log has the details."
    " The rows before it are in. Try again, and report the file if it fails again."
)
GONE = "The data set was deleted."
NO_ROWS = "The file holds no rows."


# --- A file is added and looked at ---------------------------------------------------------------


def add_file(dataset: Dataset, file: File, *, name: str, user: User) -> tuple[PairImport, bool]:
    """Keep a file and find out what it is; False when the data set has it already.

    Nothing is imported before `start`. Raises UploadRefused with a sentence.
    """
    with storing(file) as stored:
        known = dataset.imports.filter(sha256=stored.sha256).first()
        if known is not None:
            return known, False
        pair_import = PairImport(
            dataset=dataset,
            name=_clean_name(name),
            file=stored.name,
            sha256=stored.sha256,
            size_bytes=stored.size,
            created_by=user,
        )
        _recognise(pair_import)
        # A second request with the same file may have been quicker.
        return PairImport.objects.get_or_create(
            dataset=dataset,
            sha256=stored.sha256,
            defaults={
                name: getattr(pair_import, name)
                for name in ("name", "file", "size_bytes", "created_by", *_RECOGNISED)
            },
        )


_RECOGNISED = ("container", "format", "mapping")


def _clean_name(name: str) -> str:
    name = "".join(c for c in name.replace("\\", "/") if c.isprintable()).rpartition("/")[2]
    return name.strip()[-255:] or "pairs"


def _recognise(pair_import: PairImport) -> None:
    """Set container, format and mapping from the content, and from what was mapped before."""
    path = Path(pair_import.file.path)
    try:
        pair_import.container = containers.detect(path)
        rows = list(containers.read(path, pair_import.container, most_rows=DETECT_ROWS))
    except UnreadableFile as error:
        raise UploadRefused(str(error)) from error
    values = [row.values for row in rows if row.values is not None]
    if not values:
        raise UploadRefused(rows[0].reason if rows else NO_ROWS)
    columns = _columns(values)
    remembered = ColumnMapping.objects.filter(
        collection=pair_import.dataset.collection_id, columns=_key(columns)
    ).first()
    pair_import.format = formats.COLUMNS if remembered else formats.detect(values)
    pair_import.mapping = remembered.mapping if remembered else formats.guess_mapping(columns)


def columns_of(pair_import: PairImport) -> list[str]:
    """Name the columns that the first rows have."""
    rows = containers.read(
        Path(pair_import.file.path), pair_import.container, most_rows=DETECT_ROWS
    )
    try:
        return _columns(row.values for row in rows if row.values is not None)
    except UnreadableFile:
        return []


def _columns(values: Iterable[Mapping[str, Any]]) -> list[str]:
    """Name the columns of the rows, in the order of their first appearance."""
    names = dict.fromkeys(name for row in values for name in row)
    return [name for name in names if "\0" not in name and name.isprintable()][:200]


def _key(columns: Sequence[str]) -> str:
    return json.dumps(sorted(columns), ensure_ascii=False)


@dataclass(slots=True)
class Preview:
    """The first rows of a file as they would become pairs, and what is wrong with the others.

    `shown`: the first rows that can be taken, each with its pairs. `problems`: (row number, reason)
    of the first bad rows. `row_count`: rows looked at; `is_whole` when the file has no more.
    """

    shown: list[tuple[int, list[Pair]]] = field(default_factory=list)
    problems: list[tuple[int, str]] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    row_count: int = 0
    problem_count: int = 0
    pair_count: int = 0
    is_whole: bool = True
    error: str = ""


def preview(pair_import: PairImport) -> Preview:
    """Look at the rows with the import's format and mapping, as far as a page can wait."""
    found, ends = Preview(), time.monotonic() + PREVIEW_S
    rows = containers.read(
        Path(pair_import.file.path), pair_import.container, most_rows=PREVIEW_ROWS + 1
    )
    try:
        for row in rows:
            if row.number > PREVIEW_ROWS or time.monotonic() > ends:
                found.is_whole = False
                break
            _look_at(found, row, pair_import)
    except UnreadableFile as error:
        found.error = str(error)
    return found


def _look_at(found: Preview, row: Row, pair_import: PairImport) -> None:
    found.row_count = row.number
    pairs, reason = _pairs_of(row, pair_import)
    found.pair_count += len(pairs)
    if reason:
        found.problem_count += 1
        found.reasons[reason] += 1
        if len(found.problems) < SHOWN_PROBLEMS:
            found.problems.append((row.number, reason))
    elif len(found.shown) < SHOWN_ROWS:
        found.shown.append((row.number, pairs))


def _pairs_of(row: Row, pair_import: PairImport) -> tuple[list[Pair], str]:
    """Give the pairs of a row, or none and the reason."""
    if row.values is None:
        return [], _clean(row.reason)[:LONGEST_REASON]
    try:
        in_cells = pair_import.container in containers.TABLES
        format_, mapping = pair_import.format, pair_import.mapping
        return reading.read(row.values, format_, mapping, in_cells=in_cells), ""
    except RowRefused as error:
        return [], _clean(str(error))[:LONGEST_REASON]
    except RecursionError:
        return [], containers.TOO_DEEP


def _clean(text: str) -> str:
    """Make a text that came from a file fit for a column: no NUL, no half character."""
    return text.replace("\0", "\\u0000").encode("utf-8", "backslashreplace").decode()


# --- A person confirms it ------------------------------------------------------------------------


def start(pair_import: PairImport, user: User) -> bool:
    """Queue the import and remember its mapping; False when it was started before.

    The caller sends the workers a hint after commit.
    """
    with transaction.atomic():
        locked = PairImport.objects.select_for_update().get(pk=pair_import.pk)
        if locked.job_id is not None:
            return False
        pair_import.job = Job.objects.create(kind=Job.Kind.IMPORT)
        pair_import.created_by = user
        pair_import.save()
        if pair_import.format == formats.COLUMNS:
            _remember(pair_import)
        AuditEvent.objects.record(
            user,
            AuditEvent.Action.IMPORTED,
            pair_import,
            pair_import.dataset.collection,
            name=pair_import.name,
            dataset=pair_import.dataset_id,
            sha256=pair_import.sha256,
            format=pair_import.format,
        )
    return True


def _remember(pair_import: PairImport) -> None:
    ColumnMapping.objects.update_or_create(
        collection=pair_import.dataset.collection,
        columns=_key(columns_of(pair_import)),
        defaults={"mapping": pair_import.mapping, "updated_at": timezone.now()},
    )


def discard(pair_import: PairImport) -> bool:
    """Forget a file that was never imported; False when it was."""
    with transaction.atomic():
        waiting = PairImport.objects.select_for_update().filter(pk=pair_import.pk, job=None)
        name = waiting.values_list("file", flat=True).first()
        if name is None:
            return False
        waiting.delete()
        transaction.on_commit(lambda: delete_unused_files([str(name)]))
    return True


def problem_lines(pair_import: PairImport) -> Iterator[bytes]:
    """Give the bad rows as JSON lines, some hundred at a time."""
    last, problems = 0, pair_import.problems.order_by("row_number")
    while batch := list(problems.filter(row_number__gt=last)[:500]):
        rows = ({"row": p.row_number, "reason": p.reason, "raw": p.raw} for p in batch)
        yield "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        last = batch[-1].row_number


# --- A worker brings the rows in -----------------------------------------------------------------


def import_pairs(job: Job) -> None:
    """Turn a claimed file's rows into suggested pairs, batch by batch.

    A batch, its problems and the count of rows done are one transaction behind the lease: who
    takes the job over goes on where the last one committed, and no row comes twice.
    """
    imports = PairImport.objects.select_related("dataset", "created_by")
    pair_import = imports.filter(job=job).first()
    if pair_import is None:  # its data set was deleted
        job.fail(GONE, code="gone")
        return
    try:
        with job.heartbeat():
            for found, measured in measuring.measure_all(
                _batches(pair_import), processes=_processes(pair_import)
            ):
                _write(job, pair_import, found, measured)
            with job.publishing():
                pass
    except UnreadableFile as error:
        job.fail(str(error), code="unreadable")
    except LeaseLost:
        logger.info("job %s was taken over by another worker", job.pk)
    except Exception:
        job.fail(BROKEN, code="broken")
        raise


@dataclass(frozen=True, slots=True)
class _Found:
    """What a batch of rows came to. `pairs`: (row number, pair). `last`: its last row."""

    last: Row
    pairs: list[tuple[int, Pair]]
    problems: list[ImportProblem]


def _processes(pair_import: PairImport) -> int:
    """Guess by the size of the file how much there is to measure."""
    return measuring.processes_for(pair_import.size_bytes // TYPICAL_ROW_BYTES)


def _batches(pair_import: PairImport) -> Iterator[tuple[_Found, list[dict[str, Any]]]]:
    """Give the rows that are not in yet as pairs and problems, with what has to be measured."""
    rows = containers.read(Path(pair_import.file.path), pair_import.container)
    done = pair_import.row_count
    left = (row for row in rows if row.number > done)
    while batch := _next(left):
        found = _convert(pair_import, batch)
        yield found, [_to_measure(pair) for _, pair in found.pairs]


def _next(rows: Iterator[Row]) -> list[Row]:
    """Take some rows that the memory holds easily, however long they are."""
    batch: list[Row] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += row.size
        if len(batch) >= BATCH_ROWS or size > BATCH_CHARS:
            break
    return batch


def _convert(pair_import: PairImport, batch: Sequence[Row]) -> _Found:
    found = _Found(batch[-1], [], [])
    for row in batch:
        pairs, reason = _pairs_of(row, pair_import)
        found.pairs.extend((row.number, pair) for pair in pairs)
        if reason:
            found.problems.append(_problem(pair_import, row, reason))
    return found


def _problem(pair_import: PairImport, row: Row, reason: str) -> ImportProblem:
    raw = row.raw if row.values is None else json.dumps(row.values, ensure_ascii=False)
    return ImportProblem(
        pair_import=pair_import,
        row_number=row.number,
        reason=reason,
        raw=_clean(raw)[:LONGEST_RAW],
    )


def _to_measure(pair: Pair) -> dict[str, Any]:
    sources = [source["text"] for source in _sources_of(pair) if not source["is_distractor"]]
    texts = {name: getattr(pair, name) for name in MEASURED}
    return texts | {"sources": sources}


def _write(
    job: Job, pair_import: PairImport, found: _Found, measured: Sequence[quality.Quality]
) -> None:
    """Commit a batch, unless the job is no longer ours. Raises LeaseLost."""
    linked = _linked_sources(pair_import, [pair for _, pair in found.pairs])
    with transaction.atomic():
        # Locks the job's row: whoever takes the job over waits for this commit, or we lost it.
        job.report("importing", found.last.position, pair_import.size_bytes)
        ids = _copy(pair_import, found.pairs, measured)
        PairSource.objects.bulk_create(
            PairSource(pair_id=id_, **source)
            for id_, sources in zip(ids, linked, strict=True)
            for source in sources
        )
        ImportProblem.objects.bulk_create(found.problems)
        pair_import.row_count = found.last.number
        PairImport.objects.filter(pk=pair_import.pk).update(
            row_count=pair_import.row_count,
            imported_count=F("imported_count") + len(ids),
            problem_count=F("problem_count") + len(found.problems),
        )


_CONTENT = ("system", "instruction", "input", "output", "rejected", "tags")
_JSON = ("messages", "extra", "findings")
_QUALITY = tuple(f for f in quality.Quality.__dataclass_fields__ if f not in _JSON)
_FIXED = {
    "state": InstructionPair.State.SUGGESTED.value,
    "origin": InstructionPair.Origin.IMPORT.value,
    "origin_key": "",
    "reject_reason": "",
    "stale_reason": "",
    "is_disputed": False,
    "priority": 0.0,
}


def _copy(
    pair_import: PairImport,
    pairs: Sequence[tuple[int, Pair]],
    measured: Sequence[quality.Quality],
) -> list[int]:
    """Write the pairs with COPY; gives their ids."""
    if not pairs:
        return []
    now = timezone.now()
    same = {
        **_FIXED,
        "dataset_id": pair_import.dataset_id,
        "collection_id": pair_import.dataset.collection_id,
        "pair_import_id": pair_import.pk,
        "author_label": pair_import.name[:200],
        "created_at": now,
        "updated_at": now,
    }
    columns = ["id", "row_number", *same, *_CONTENT, *_JSON, *_QUALITY]
    statement = f"COPY finetune_instructionpair ({', '.join(columns)}) FROM STDIN"
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT nextval(pg_get_serial_sequence('finetune_instructionpair', 'id'))"
            " FROM generate_series(1, %s)",
            [len(pairs)],
        )
        ids = [id_ for (id_,) in cursor.fetchall()]
        with cursor.copy(statement) as copy:
            for id_, (number, pair), quality_ in zip(ids, pairs, measured, strict=True):
                copy.write_row([id_, number, *same.values(), *_values(pair, quality_)])
    return ids


def _values(pair: Pair, measured: quality.Quality) -> list[Any]:
    extra = pair.extra | ({"provenance": pair.provenance} if pair.provenance else {})
    return [
        *(getattr(pair, name) for name in _CONTENT),
        *(json.dumps(value) for value in (pair.messages, extra, measured.findings)),
        *(getattr(measured, name) for name in _QUALITY),
    ]


# --- Passages that a row names -------------------------------------------------------------------


def _linked_sources(pair_import: PairImport, pairs: Sequence[Pair]) -> list[list[dict[str, Any]]]:
    """Give the sources of each pair that may be linked.

    A file can claim anything. A passage is linked only where the person who imports may read a
    document of that name now and the very text stands in it at that place; else it stays text.
    """
    known: dict[tuple[str, int, int, str], DocumentVersion | None] = {}
    found = []
    for pair in pairs:
        linked = {}
        for source in _sources_of(pair):
            place = (source["document"], source["start"], source["end"], source["text"])
            if place not in known:
                known[place] = _version_with(pair_import, source)
            version = known[place]
            if version is not None:
                linked[source["marker"]] = _source_row(source, version)
        found.append(list(linked.values()))
    return found


def _version_with(pair_import: PairImport, source: dict[str, Any]) -> DocumentVersion | None:
    if pair_import.created_by is None:
        return None
    start, end = source["start"], source["end"]
    versions = (
        DocumentVersion.objects.visible_to(pair_import.created_by)
        .filter(document__name=source["document"])
        .annotate(passage=Substr("text", start + 1, end - start))
        .filter(passage=source["text"])
        .select_related("document")
        .defer("text")
    )
    return min(
        versions,
        key=lambda version: (
            version.document.collection_id != pair_import.dataset.collection_id,
            version.number != source["version"],
            -version.number,
            version.pk,
        ),
        default=None,
    )


def _source_row(source: dict[str, Any], version: DocumentVersion) -> dict[str, Any]:
    """Give the fields of a PairSource."""
    return {
        "marker": source["marker"],
        "is_distractor": source["is_distractor"],
        "collection_id": version.document.collection_id,
        "document_id": version.document_id,
        "version_id": version.pk,
        "document_name": version.document.name,
        "document_key": version.document_id,
        "version_number": version.number,
        "title": source["title"] or version.document.title,
        "heading_path": source["heading_path"],
        "page_first": source["page_first"],
        "page_last": source["page_last"],
        "start": source["start"],
        "end": source["end"],
        "text": source["text"],
    }


def _sources_of(pair: Pair) -> list[dict[str, Any]]:
    """Read the passages that a row's provenance names; what does not hold together is left out."""
    named = pair.provenance.get("sources")
    read = [_source_of(value) for value in named] if isinstance(named, list) else []
    return [source for source in read if source is not None]


def _source_of(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, dict):
        return None
    defaults = {"marker": 1, "version": 1, "page_first": 1, "page_last": 1, "start": -1, "end": -1}
    numbers = {name: value.get(name, default) for name, default in defaults.items()}
    if not all(type(number) is int and 0 <= number <= MAX_NUMBER for number in numbers.values()):
        return None
    texts = {name: value.get(name, "") for name in ("document", "title", "text")}
    if not all(isinstance(text, str) for text in texts.values()):
        return None
    length = numbers["end"] - numbers["start"]
    if not (1 <= numbers["marker"] <= MAX_MARKER and 0 < length == len(texts["text"])):
        return None
    path = value.get("heading_path", [])
    headings = [str(heading) for heading in path] if isinstance(path, list) else []
    is_distractor = value.get("is_distractor") is True
    texts["title"] = texts["title"][:500]
    return {**numbers, **texts, "heading_path": headings, "is_distractor": is_distractor}
