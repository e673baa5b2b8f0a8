"""Rows are read one by one from any of the files they come in."""

import csv
import json
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune import containers, parquet
from finetune.containers import Row, UnreadableFile

ROWS = [{"a": "1", "b": "x"}, {"a": "2", "b": "y"}, {"a": "3", "b": "z"}]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


def read(path: Path, content: str | bytes) -> tuple[str, list[Row]]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    container = containers.detect(path)
    return container, list(containers.read(path, container))


def values(rows: list[Row]) -> list[object]:
    return [row.values for row in rows]


@pytest.mark.parametrize(
    ("content", "container"),
    [
        (json.dumps(ROWS), "json"),
        (json.dumps(ROWS, indent=2), "json"),
        (f"\n  {json.dumps(ROWS)}\n\n", "json"),
        (json.dumps({"data": ROWS, "version": 2}), "json"),
        (json.dumps({"data": ROWS}, indent=2), "json"),
        ("\n".join(json.dumps(row, indent=2) for row in ROWS), "json"),
        ("".join(json.dumps(row) + "\n" for row in ROWS), "jsonl"),
        ("\r\n".join(json.dumps(row) for row in ROWS), "jsonl"),
        ("\n\n".join(json.dumps(row) for row in ROWS), "jsonl"),
        ("a,b\n1,x\n2,y\n3,z\n", "csv"),
        ("a;b\r\n1;x\r\n2;y\r\n3;z", "csv"),
        ("a\tb\n1\tx\n2\ty\n3\tz\n\n", "csv"),
        ('"a","b"\n"1","x"\n"2","y"\n"3","z"\n', "csv"),
        ("\ufeffa|b\n1|x\n2|y\n3|z\n", "csv"),
    ],
)
def test_the_content_says_what_it_is(path: Path, content: str, container: str) -> None:
    found, rows = read(path, content)

    assert found == container
    assert values(rows) == ROWS
    assert [row.number for row in rows] == [1, 2, 3]


def test_parquet(path: Path) -> None:
    lines = path.with_suffix(".jsonl")
    lines.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    with lines.open("rb") as source, path.open("wb") as target:
        parquet.from_lines(source, target, {"a": "text", "b": "text"})

    found, rows = read(path, path.read_bytes())

    assert (found, values(rows)) == ("parquet", ROWS)
    assert [row.number for row in containers.read(path, "parquet", most_rows=2)] == [1, 2]


def test_one_line_is_a_row(path: Path) -> None:
    assert read(path, json.dumps(ROWS[0])) == (
        "jsonl",
        [Row(1, ROWS[0], size=20, position=path.stat().st_size)],
    )


def test_a_conversation_is_no_wrapper_of_rows(path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "a"}], "id": 1}
    assert values(read(path, json.dumps(row, indent=1))[1]) == [row]


def test_a_cell_keeps_its_line_ends(path: Path) -> None:
    text = 'a,b\r\n1,"x\r\ny\n\nz"\r\n2,"\r"\r\n'
    assert values(read(path, text)[1]) == [{"a": "1", "b": "x\r\ny\n\nz"}, {"a": "2", "b": "\r"}]


any_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(any_text, any_text), min_size=1, max_size=5))
def test_any_text_comes_out_of_a_table_as_it_went_in(
    path: Path, rows: list[tuple[str, str]]
) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("first", "second"), *rows])

    found = list(containers.read(path, "csv"))

    assert values(found) == [{"first": a, "second": b} for a, b in rows]


def test_columns_without_or_with_the_same_name_are_told_apart(path: Path) -> None:
    rows = read(path, ",b,b\n1,2,3\n4,5,6\n")[1]
    assert rows[0].values == {"column 1": "1", "b": "2", "b (3)": "3"}


def test_a_row_of_another_width_is_named(path: Path) -> None:
    rows = read(path, "a,b\n1,x\n2\n3,z\n4,u\n5,v\n")[1]
    assert [row.reason for row in rows if row.values is None] == [
        "The row has 1 columns, and the first row of the file names 2."
    ]
    assert [row.number for row in rows if row.values is None] == [2]


def test_a_row_that_spans_reads_is_whole(path: Path) -> None:
    rows = [{"text": "ä" * 700_000, "n": n} for n in range(5)]
    for content in (json.dumps(rows, ensure_ascii=False), json.dumps(rows, indent=1)):
        assert values(read(path, content)[1]) == rows


def test_a_table_of_too_many_columns_is_refused(path: Path) -> None:
    names = ",".join(f"c{n}" for n in range(2_000))
    with pytest.raises(UnreadableFile, match="2,000 columns"):
        read(path, f"{names}\n{names}\n")


@pytest.mark.parametrize("container", ["json", "jsonl", "csv"])
def test_a_row_knows_about_how_long_it_is(path: Path, container: str) -> None:
    long = {"a": "x" * 5_000, "b": "y"}
    content = {
        "json": json.dumps([long, long]),
        "jsonl": f"{json.dumps(long)}\n{json.dumps(long)}\n",
        "csv": f"a,b\n{long['a']},y\n{long['a']},y\n",
    }[container]
    found, rows = read(path, content)
    assert found == container
    assert all(5_000 < row.size < 5_100 for row in rows)


def test_not_a_number_is_nothing(path: Path) -> None:
    assert values(read(path, '[{"a": NaN, "b": -Infinity}]')[1]) == [{"a": None, "b": None}]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('[{"a": 1}, {"a": }, {"a": 3}]', "expecting value"),
        ('[{"a": 1}, {"a": 2', "Nothing after it could be read."),
        ('[{"a": 1}', "the file ends in the middle"),
        ('[{"a": 1}, ' + '{"a":' * 200_000, "nested too deeply"),
        ('[{"a": 1}, {"a": ' + "9" * 5_000 + "}]", "a number is too long"),
        ('[{"a": 1}, {"a": "' + "x" * 9_000_000, "the row has no end"),
    ],
)
def test_where_json_breaks_off_the_rows_before_are_kept(
    path: Path, content: str, reason: str
) -> None:
    started = time.monotonic()

    first, broken = read(path, content)[1]

    assert first.values == {"a": 1}
    assert broken.number == 2
    assert reason in broken.reason
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "content",
    [
        b"PAR1",
        b"PAR1" + b"\xff" * 1_000 + b"PAR1",
        b"PAR1\x15\x04\x15\x10" + b"\xff\xff\xff\x7fPAR1",
    ],
)
def test_a_hostile_parquet_file_ends_with_a_sentence(path: Path, content: bytes) -> None:
    with pytest.raises(UnreadableFile, match="The Parquet file is damaged"):
        read(path, content)


def test_parquet_that_unpacks_to_too_much_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = path.with_suffix(".jsonl")
    lines.write_text((json.dumps({"a": "x" * 10_000}) + "\n") * 3_000)
    with lines.open("rb") as source, path.open("wb") as target:
        parquet.from_lines(source, target, {"a": "text"})
    assert path.stat().st_size < 50_000
    monkeypatch.setattr(containers, "MAX_PARQUET_BYTES", 8 * 2**20)

    with pytest.raises(UnreadableFile, match="too large: unpacked it holds more text"):
        read(path, path.read_bytes())
