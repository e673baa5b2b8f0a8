"""Measure how much personal data the recognisers of finetune.personal_data find, and how much is none.

`script/bench personal_data [FOLDER] [--save] [--sample N]`: FOLDER holds security/presidio as
../shared/data does: sentences made from templates, with the span and the type of each piece of
personal data. The rules for names were written with the sentences of even templates in sight, so
those of odd ones are counted besides.

Of other texts nobody has marked the names: how many are found there is counted, and `--sample`
shows some for the eye.

A piece is found when a finding overlaps it, whatever the finding's kind; a finding is right when
it overlaps a piece. Per kind, a finding of another kind counts as missed ("under its name").
"""

import argparse
import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import curation, installation
from finetune import personal_data
from finetune.personal_data import Finding

DEFAULT_FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data"
SET = "security/presidio/synth_dataset_v2.json"
HANDBOOK = "docs/18f_handbook"
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


def read(path: Path, templates: Sequence[int] = (0, 1)) -> list[tuple[str, list[Piece]]]:
    """Read the set: sentences of even (0) and odd (1) templates.

    Types that we do not look for stay as pieces under their own names.
    """
    return [
        (row["full_text"], [_piece(span) for span in row["spans"]])
        for row in json.loads(path.read_text(encoding="utf-8"))
        if row["template_id"] % 2 in templates
    ]


def _piece(span: dict[str, Any]) -> Piece:
    kind = KINDS.get(span["entity_type"]) or span["entity_type"].lower()
    return Piece(kind, span["start_position"], span["end_position"])


def others(folder: Path) -> dict[str, list[str]]:
    """Read texts without marks: pairs of instructions by set, and the pages of a handbook."""
    sets = {
        name: [
            "\n".join(str(row.get(field) or "") for field in ("instruction", "input", "output"))
            for row in json.loads((folder / "instructions" / name).read_text(encoding="utf-8"))
        ]
        for name in curation.SETS
    }
    pages = sorted((folder / HANDBOOK).rglob("*.md"))
    return sets | {HANDBOOK: [page.read_text(encoding="utf-8") for page in pages]}


def names_in(texts: Sequence[str]) -> list[str]:
    """Give each name that is found, between [[ ]] in the words around it."""
    return [
        f"{text[max(0, start - 40) : start]}[[{text[start:end]}]]{text[end : end + 40]}"
        for text in texts
        for kind, start, end in personal_data.find(text)
        if kind == "name"
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=DEFAULT_FOLDER)
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--sample", type=int, default=0)
    arguments = parser.parse_args()
    measured = measure(read(arguments.folder / SET))
    halves = {
        half: measure(read(arguments.folder / SET, [parity]))["name"]
        for parity, half in enumerate(("even_templates", "odd_templates"))
    }
    elsewhere: dict[str, dict[str, int]] = {}
    wanted = {kind for kind in KINDS.values() if kind}
    print(f"{'kind':18} {'there':>6} {'recall':>7} {'found':>6} {'precision':>10}")
    for kind, row in measured.items():
        note = "" if kind in wanted or row["findings"] else "  (not looked for)"
        print(
            f"{kind:18} {row['there']:6} {row['recall']:7.1%} {row['findings']:6}"
            f" {row['precision']:10.1%}{note}"
        )
    for half, row in halves.items():
        print(f"names, {half}: {row['recall']:.1%} found, {row['precision_of_kind']:.1%} right")
    for name, texts in others(arguments.folder).items():
        found = names_in(texts)
        elsewhere[name] = {"texts": len(texts), "names": len(found)}
        print(f"{name}: {len(found)} names in {len(texts)} texts")
        for words in random.Random(11).sample(found, min(arguments.sample, len(found))):
            print("   ", " ".join(words.split()))
    if arguments.save:
        saved = {"presidio": measured, "presidio_names": halves, "names_elsewhere": elsewhere}
        installation.save("personal_data", saved)


if __name__ == "__main__":
    main()
