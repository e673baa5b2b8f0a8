"""Read a folder in BEIR's layout: corpus.jsonl, queries.jsonl, and qrels.tsv or qrels/test.tsv."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class TestSet:
    """Documents as (id, title, text), queries by id, and each judged query's grades by document."""

    name: str
    documents: list[tuple[str, str, str]]
    queries: dict[str, str]
    grades: dict[str, dict[str, float]]


def read(folder: Path) -> TestSet:
    """Read a folder; queries without a relevant document are left out. Ends with a sentence where it cannot."""
    for name in ("corpus.jsonl", "queries.jsonl"):
        if not (folder / name).is_file():
            raise SystemExit(f"{folder} has no {name}; is it in BEIR's layout?")
    grades = _read_grades(_judgements(folder))
    queries = {row["_id"]: row["text"] for row in _rows(folder / "queries.jsonl")}
    documents = [
        (row["_id"], row.get("title") or "", row.get("text") or "")
        for row in _rows(folder / "corpus.jsonl")
    ]
    judged = {id_: text for id_, text in queries.items() if any(grades.get(id_, {}).values())}
    return TestSet(folder.name, documents, judged, {id_: grades[id_] for id_ in judged})


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                row = json.loads(line)
                yield row | {"_id": str(row["_id"])}


def _judgements(folder: Path) -> Path:
    choices = [folder / "qrels.tsv", folder / "qrels" / "test.tsv"]
    choices += sorted((folder / "qrels").glob("*.tsv"))
    for path in choices:
        if path.is_file():
            return path
    raise SystemExit(f"{folder} has neither qrels.tsv nor qrels/test.tsv.")


def _read_grades(path: Path) -> dict[str, dict[str, float]]:
    """Read query, document, grade, with or without a header; four columns are TREC's."""
    grades: dict[str, dict[str, float]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        columns = line.split("\t") if "\t" in line else line.split()
        if len(columns) == 4:
            columns = [columns[0], *columns[2:]]
        if len(columns) != 3 or not _is_number(columns[2]):
            continue
        query, document, grade = columns
        grades.setdefault(query, {})[document] = float(grade)
    return grades


def _is_number(text: str) -> bool:
    return text.strip().lstrip("-").replace(".", "", 1).isdigit()
