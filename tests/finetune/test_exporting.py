"""Pairs go out in every format with where they come from, and come back to the same bytes."""

import csv
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from django.core.files.base import ContentFile

from finetune import exporting, importing
from finetune.models import AuditEvent, Dataset, InstructionPair, PairSource
from kb.models import Collection, Document, Job, User
from workers import tasks

AddDocument = Callable[..., Document]


def make(dataset: Dataset, **fields: Any) -> InstructionPair:
    fields = {
        "origin": InstructionPair.Origin.TYPED,
        "instruction": "When does the glacier melt?",
        "output": "In August.",
        "content_hash": "0" * 64,
        "language": "english",
    } | fields
    return InstructionPair.objects.create(dataset=dataset, collection=dataset.collection, **fields)


def cite(
    pair: InstructionPair, document: Document, start: int, end: int, **more: Any
) -> PairSource:
    version = document.current_version
    assert version is not None
    fields = {
        "marker": 1,
        "collection": document.collection,
        "document": document,
        "version": version,
        "document_name": document.name,
        "document_key": document.pk,
        "version_number": version.number,
        "title": document.title,
        "heading_path": ["Ice", "Summer – été"],
        "start": start,
        "end": end,
        "text": version.text[start:end],
    } | more
    return PairSource.objects.create(pair=pair, **fields)


@pytest.fixture
def rich(dataset: Dataset, alice: User, add_document: AddDocument) -> Dataset:
    """Hold one pair of every sort: sources, tags, judgements, turns, tools, preferences."""
    document = add_document("melt.txt", "The glacier melts in August. The lake rises then.")
    approved = make(
        dataset,
        state=InstructionPair.State.APPROVED,
        origin=InstructionPair.Origin.PASSAGE,
        reviewer=alice,
        reviewed_at=datetime(2026, 11, 20, 9, 30, tzinfo=UTC),
        author_label="a model",
        tags=["ice, old", "Gletscher"],
    )
    cite(approved, document, 0, 28)
    cite(approved, document, 29, 49, marker=2, is_distractor=True, page_first=3, page_last=4)
    make(
        dataset,
        state=InstructionPair.State.REJECTED,
        reject_reason="Wrong – zu kurz.",
        author=alice,
        input='Context\n\nwith "quotes"; and, commas\r\nand lines',
        output="深さは30メートル 😀\u2028",
        system="Be brief.",
    )
    make(
        dataset,
        origin=InstructionPair.Origin.PREFERENCE,
        rejected="In May.",
        messages=[
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Hi."},
        ],
        extra={"score": 1.5, "meta": {"b": [1, None], "a": "x"}, "output": "an old one"},
    )
    make(dataset, output="", rejected="In May.", extra={"label": False})
    make(
        dataset,
        messages=[
            {"role": "instruction", "content": ""},
            {"role": "tool_call", "content": '{"name": "look", "arguments": {"at": "ice"}}'},
            {"role": "tool", "content": "August"},
        ],
        extra={"tools": "[…]"},
    )
    return dataset


def exported(user: User, dataset: Dataset, kind: str, **options: Any) -> bytes:
    return b"".join(exporting.export(user, dataset, kind, **options))


def bring_in(dataset: Dataset, user: User, data: bytes) -> None:
    made, is_new = importing.add_file(dataset, ContentFile(data), name="again", user=user)
    assert is_new
    assert importing.start(made, user)
    assert tasks.work_on_next(Job.Kind.IMPORT)
    assert not made.problems.exists()


@pytest.mark.parametrize("kind", exporting.KINDS)
def test_exported_imported_and_exported_again_it_is_the_same_file(
    kind: str, rich: Dataset, alice: User
) -> None:
    empty = Collection.objects.create(name="Empty")
    empty.grant(alice, "owner")
    other = Dataset.objects.create(collection=empty, name="Copy")
    first = exported(alice, rich, kind)

    bring_in(other, alice, first)

    assert other.pairs.count() == rich.pairs.count() == 5
    assert exported(alice, other, kind) == first
    assert other.pairs.filter(state=InstructionPair.State.SUGGESTED).count() == 5
    assert [list(pair.tags) for pair in other.pairs.order_by("pk")][0] == ["ice, old", "Gletscher"]


@pytest.mark.parametrize("kind", exporting.KINDS)
def test_sources_that_the_other_person_may_not_read_come_back_as_text(
    kind: str, rich: Dataset, alice: User, charlie: User
) -> None:
    own = Collection.objects.create(name="Charlie's")
    own.grant(charlie, "owner")
    other = Dataset.objects.create(collection=own, name="Copy")
    first = exported(alice, rich, kind)

    bring_in(other, charlie, first)

    assert not PairSource.objects.filter(pair__dataset=other).exists()
    assert exported(charlie, other, kind) == first


@pytest.mark.parametrize("kind", exporting.KINDS)
def test_what_is_in_the_pairs_is_the_same_after_the_way(
    kind: str, rich: Dataset, alice: User
) -> None:
    other = Dataset.objects.create(collection=rich.collection, name="Copy")

    bring_in(other, alice, exported(alice, rich, kind))

    for before, after in zip(rich.pairs.order_by("pk"), other.pairs.order_by("pk"), strict=True):
        assert after.content() == before.content()
        sources = [
            [(s.marker, s.document_id, s.start, s.end, s.is_distractor, s.heading_path)
             for s in pair.sources.order_by("marker")]
            for pair in (before, after)
        ]  # fmt: skip
        assert sources[0] == sources[1]


TURNS = '[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]'
SYSTEM = {"role": "system", "content": "Be brief."}
SAID = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi."}]
LOOKING_LIKE_SOMETHING_ELSE: list[dict[str, Any]] = [
    {"output": '[{"name": "Alice"}]'},
    {"output": '[{"role": "assistant", "content": "ho"}]'},
    {"instruction": TURNS, "output": "A chat."},
    {"instruction": TURNS, "output": TURNS},
    {"instruction": TURNS, "output": TURNS, "rejected": '[{"from": "gpt", "value": "x"}]'},
    {"instruction": '{"a": 1}', "output": '{"b": 2}'},
    {"output": '[{"a": 1}]', "rejected": '[{"a": 2}]'},
    {"output": TURNS, "rejected": TURNS.replace("ho", "no")},
    {"extra": {"provenance": "a wiki", "other": 1}},
    {"extra": {"provenance": ["a", "list"]}},
    {"extra": {"first_turn": "system"}},
    {"messages": [SYSTEM, *SAID]},
    {"messages": [SYSTEM, *SAID], "extra": {"turn_fields": {"1": {"weight": 0}}}},
    {"messages": [SYSTEM, *SAID], "system": "Be kind."},
    {"messages": [SYSTEM], "rejected": "In May."},
    *({"instruction": f"{sign}1+1", "output": f"{sign}", "input": f"{sign}a"} for sign in "=+-@'"),
    {"instruction": "\t=1", "output": "\r=1", "system": "''=1", "tags": ["=a", "'b"]},
    {"instruction": "＝1", "output": "'=1", "rejected": "'tis"},  # noqa: RUF001
]


@pytest.mark.parametrize("kind", exporting.KINDS)
def test_pairs_that_look_like_something_else_come_back_as_they_were(
    kind: str, dataset: Dataset, alice: User
) -> None:
    for fields in LOOKING_LIKE_SOMETHING_ELSE:
        make(dataset, **fields)
    other = Dataset.objects.create(collection=dataset.collection, name="Copy")
    first = exported(alice, dataset, kind)

    bring_in(other, alice, first)

    assert exported(alice, other, kind) == first
    for before, after in zip(dataset.pairs.order_by("pk"), other.pairs.order_by("pk"), strict=True):
        assert after.content() == before.content()


def test_no_cell_of_a_table_is_a_formula(dataset: Dataset, alice: User) -> None:
    for sign in "=+-@\t\r":
        make(dataset, instruction=f"{sign}HYPERLINK(1)", output=f"{sign}1", system=f"{sign}2")
    make(dataset, instruction="Is 1 = 1?", output="Yes - it is.")
    table = exported(alice, dataset, "csv").decode()

    rows = list(csv.reader(io.StringIO(table, newline="")))
    assert len(rows) == 8
    assert not [cell for row in rows for cell in row if cell.startswith(tuple("=+-@\t\r"))]
    assert rows[1][2] == "'=HYPERLINK(1)"
    assert "Is 1 = 1?" in rows[7]


def test_the_table_of_somebody_else_keeps_its_quotation_marks(
    dataset: Dataset, alice: User
) -> None:
    bring_in(dataset, alice, b"instruction,output\r\n'=1,'-2\r\n")

    pair = dataset.pairs.get()
    assert (pair.instruction, pair.output) == ("'=1", "'-2")


def test_provenance_names_document_reviewer_and_state(rich: Dataset, alice: User) -> None:
    row = json.loads(exported(alice, rich, "alpaca_jsonl").splitlines()[0])

    known = row["provenance"]
    assert (known["state"], known["origin"], known["author"]) == ("approved", "passage", "a model")
    assert (known["reviewer"], known["reviewed_at"]) == ("alice", "2026-11-20T09:30:00+00:00")
    assert known["sources"][0] == {
        "marker": 1,
        "document": "melt.txt",
        "title": "melt",
        "version": 1,
        "heading_path": ["Ice", "Summer – été"],
        "page_first": 1,
        "page_last": 1,
        "start": 0,
        "end": 28,
        "text": "The glacier melts in August.",
    }
    assert known["sources"][1]["is_distractor"] is True


def test_csv_has_readable_columns(rich: Dataset, alice: User) -> None:
    table = exported(alice, rich, "csv").decode()

    rows = list(csv.DictReader(io.StringIO(table, newline="")))
    assert rows[0]["state"] == "approved"
    assert rows[0]["reviewer"] == "alice"
    assert rows[0]["documents"] == "melt; melt"
    assert rows[1]["output"] == "深さは30メートル 😀\u2028"
    assert rows[1]["input"].endswith("commas\r\nand lines")


def test_what_a_file_said_holds_until_somebody_here_judges(dataset: Dataset, alice: User) -> None:
    line = {"instruction": "a", "output": "b", "provenance": {"state": "approved", "by": "Ines"}}
    bring_in(dataset, alice, (json.dumps(line) + "\n").encode())
    assert json.loads(exported(alice, dataset, "alpaca_jsonl")) == {
        "instruction": "a",
        "input": "",
        "output": "b",
        "provenance": {"state": "approved", "by": "Ines"},
    }

    dataset.pairs.update(state="rejected", reject_reason="No.", reviewer=alice)

    known = json.loads(exported(alice, dataset, "alpaca_jsonl"))["provenance"]
    assert (known["state"], known["reviewer"], known["reject_reason"]) == (
        "rejected",
        "alice",
        "No.",
    )
    assert known["by"] == "Ines"


def test_it_is_narrowed_by_state_and_tag_and_written_down(rich: Dataset, alice: User) -> None:
    def count(**options: Any) -> int:
        return len(exported(alice, rich, "messages_jsonl", **options).splitlines())

    assert count(states=["approved"]) == 1
    assert count(states=["approved", "rejected"]) == 2
    assert count(tags=["Gletscher", "none"]) == 1
    assert count(tags=["none"]) == 0

    event = AuditEvent.objects.filter(action=AuditEvent.Action.EXPORTED).latest("pk")
    assert event.user == alice
    assert event.detail == {"kind": "messages_jsonl", "states": [], "tags": ["none"], "pairs": 0}


@pytest.mark.parametrize("kind", exporting.KINDS)
def test_an_empty_data_set_gives_a_whole_file(kind: str, dataset: Dataset, alice: User) -> None:
    data = exported(alice, dataset, kind)

    if kind.endswith("_json"):
        assert json.loads(data) == []
    elif kind == "csv":
        assert data.startswith(b"system,messages,instruction,")
    elif kind == "parquet":
        assert data.startswith(b"PAR1")
        assert data.endswith(b"PAR1")
    else:
        assert data == b""


def test_without_provenance_no_name_and_no_passage_leaves(rich: Dataset, alice: User) -> None:
    for kind in exporting.KINDS:
        data = exported(alice, rich, kind, with_provenance=False)
        assert b"alice" not in data
        assert b"The lake rises" not in data


def test_a_pair_whose_source_the_person_may_not_read_stays_inside(
    dataset: Dataset, alice: User, add_document: AddDocument
) -> None:
    closed = Collection.objects.create(name="Closed")
    secret = add_document("secret.txt", "The vault opens at noon.", to=closed)
    cite(make(dataset, output="At noon."), secret, 0, 9)
    make(dataset)

    for kind in exporting.KINDS:
        assert b"noon" not in exported(alice, dataset, kind)
    assert len(exported(alice, dataset, "alpaca_jsonl").splitlines()) == 1


def test_more_pairs_than_a_batch_all_come_in_order(dataset: Dataset, alice: User) -> None:
    InstructionPair.objects.bulk_create(
        InstructionPair(
            dataset=dataset, collection=dataset.collection, origin="typed", instruction=str(n),
            output="x", content_hash="0",
        )
        for n in range(1_203)
    )  # fmt: skip

    rows = json.loads(exported(alice, dataset, "alpaca_json"))

    assert [row["instruction"] for row in rows] == [str(n) for n in range(1_203)]
