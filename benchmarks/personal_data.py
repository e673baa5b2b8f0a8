"""Measure how much personal data the recognisers of finetune.personal_data find, and how much is none.

`script/bench personal_data [FOLDER] [--save]`: FOLDER holds security/presidio as ../shared/data
does: sentences made from templates, with the span and the type of each piece of personal data.

A piece is found when a finding overlaps it, whatever the finding's kind; a finding is right when
it overlaps a piece. Per kind, a finding of another kind counts as missed ("under its name").
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import installation
from finetune import personal_data
from finetune.personal_data import Finding

DEFAULT_FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data"
SET = "security/presidio/synth_dataset_v2.json"
# The set's types, under the names we find them by; None: we do not look for it.
KINDS: dict[str, str | None] = {
    "EMAIL_ADDRESS": "email",
    "PHONE_NUMBER": "phone",
    "IBAN_CODE": "iban",
    "CREDIT_CARD": "card",
    "IP_ADDRESS": "ip_address",
    "US_SSN": "us_ssn",
    "US_DRIVER_LICENSE": "national_id",
    "PERSON": "name",
    "STREET_ADDRESS": "address",
    "GPE": None,
    "ORGANIZATION": None,
    "DATE_TIME": None,
    "TITLE": None,
    "AGE": None,
    "NRP": None,
    "ZIP_CODE": None,
    "DOMAIN_NAME": None,
}


@dataclass(frozen=True)
class Piece:
    """A piece of personal data at [start, end) of a text; `kind` under our names."""

    kind: str
    start: int
    end: int


def measure(texts: Iterable[tuple[str, Sequence[Piece]]]) -> dict[str, dict[str, float | int]]:
    """Count by kind what is there, what was found, and what was found that is none."""
    counts: dict[str, Counter[str]] = {}
    for text, pieces in texts:
        found = personal_data.find(text)
        for piece in pieces:
            count = counts.setdefault(piece.kind, Counter())
            touching = [finding for finding in found if _touch(finding, piece)]
            count["there"] += 1
            count["found"] += bool(touching)
            count["under_its_name"] += any(finding.kind == piece.kind for finding in touching)
        for finding in found:
            count = counts.setdefault(finding.kind, Counter())
            count["findings"] += 1
            count["right"] += any(_touch(finding, piece) for piece in pieces)
            count["right_kind"] += any(
                _touch(finding, piece) and finding.kind == piece.kind for piece in pieces
            )
    return {kind: _rates(counts[kind]) for kind in sorted(counts)}


def _touch(finding: Finding, piece: Piece) -> bool:
    return finding.start < piece.end and piece.start < finding.end


def _rates(count: Counter[str]) -> dict[str, float | int]:
    there, findings = count["there"], count["findings"]
    return {
        "there": there,
        "recall": round(count["found"] / there, 4) if there else 0.0,
        "recall_under_its_name": round(count["under_its_name"] / there, 4) if there else 0.0,
        "findings": findings,
        "precision": round(count["right"] / findings, 4) if findings else 0.0,
        "precision_of_kind": round(count["right_kind"] / findings, 4) if findings else 0.0,
    }


def read(path: Path) -> list[tuple[str, list[Piece]]]:
    """Read the set. Types that we do not look for stay as pieces under their own names."""
    return [
        (row["full_text"], [_piece(span) for span in row["spans"]])
        for row in json.loads(path.read_text(encoding="utf-8"))
    ]


def _piece(span: dict[str, Any]) -> Piece:
    kind = KINDS.get(span["entity_type"]) or span["entity_type"].lower()
    return Piece(kind, span["start_position"], span["end_position"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=DEFAULT_FOLDER)
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    measured = measure(read(arguments.folder / SET))
    wanted = {kind for kind in KINDS.values() if kind}
    print(f"{'kind':18} {'there':>6} {'recall':>7} {'found':>6} {'precision':>10}")
    for kind, row in measured.items():
        note = "" if kind in wanted or row["findings"] else "  (not looked for)"
        print(
            f"{kind:18} {row['there']:6} {row['recall']:7.1%} {row['findings']:6}"
            f" {row['precision']:10.1%}{note}"
        )
    if arguments.save:
        installation.save("personal_data", {"presidio": measured})


if __name__ == "__main__":
    main()
