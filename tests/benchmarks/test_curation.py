"""The benchmarks of curation run on tiny sets and give numbers that can be checked by hand."""

import json
from pathlib import Path

import pytest

from benchmarks import curation, personal_data
from benchmarks.personal_data import Piece

ROWS = [
    {
        "instruction": f"Why is {color} paint number {n} so popular with the people of the coast?",
        "input": "",
        "output": f"Because {color} keeps its tone {n} years longer in the salt wind than others do"
        f" and because the {color} pigment {n} has always been dug out of the hills behind it.",
    }
    for n, color in enumerate(("red", "ochre", "umber", "sienna", "white"), start=1)
]


@pytest.mark.django_db
def test_planted_copies_are_imported_and_found(tmp_path: Path) -> None:
    made = curation.make(ROWS, 40, seed=3)
    assert made.copies
    assert made.near
    assert made == curation.make(ROWS, 40, seed=3)

    row = curation.measure(made, tmp_path)

    assert (row["rows"], row["imported"], row["rows_left_out"]) == (40, 40, 0)
    assert row["exact_recall"] == 1.0
    assert row["near_recall"] == 1.0
    assert row["exact_copies"] >= len(made.copies)


def test_sets_are_read_with_all_their_fields(tmp_path: Path) -> None:
    for name in curation.SETS:
        path = tmp_path / "instructions" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([{"instruction": "Why?", "input": None, "output": "So."}]))
    assert curation.read(tmp_path) == [{"instruction": "Why?", "input": "", "output": "So."}] * 4


def test_pieces_and_findings_are_counted_by_kind() -> None:
    text = "Qwz wrote to jo@example.org from 212-555-0187."
    pieces = [Piece("name", 0, 3), Piece("email", 13, 27)]
    measured = personal_data.measure([(text, pieces)])
    assert measured["email"]["recall"] == measured["email"]["precision"] == 1.0
    assert (measured["name"]["there"], measured["name"]["recall"]) == (1, 0.0)
    assert (measured["phone"]["findings"], measured["phone"]["precision"]) == (1, 0.0)


def test_spans_of_the_set_come_under_our_names(tmp_path: Path) -> None:
    span = {"entity_type": "EMAIL_ADDRESS", "start_position": 0, "end_position": 5}
    other = {"entity_type": "AGE", "start_position": 6, "end_position": 8}
    rows = [
        {"full_text": "a@b.c 41", "spans": [span, other], "template_id": 4},
        {"full_text": "So.", "spans": [], "template_id": 5},
    ]
    path = tmp_path / "set.json"
    path.write_text(json.dumps(rows))
    marked = ("a@b.c 41", [Piece("email", 0, 5), Piece("age", 6, 8)])
    assert personal_data.read(path) == [marked, ("So.", [])]
    assert personal_data.read(path, [1]) == [("So.", [])]


def test_names_in_texts_without_marks_are_shown_with_the_words_around_them() -> None:
    assert personal_data.names_in(["We saw Anna Kovacs there.", "Nobody."]) == [
        "We saw [[Anna Kovacs]] there."
    ]
