import json
from pathlib import Path

import pytest

from benchmarks import beir


def write_folder(folder: Path, judgements: str, path: str = "qrels.tsv") -> Path:
    corpus = [{"_id": 1, "title": "Ice", "text": "Cold."}, {"_id": "2", "text": "Warm."}]
    queries = [{"_id": "q1", "text": "cold"}, {"_id": "q2", "text": "never judged"}]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines)
    (folder / path).parent.mkdir(exist_ok=True)
    (folder / path).write_text(judgements)
    return folder


@pytest.mark.parametrize(
    ("judgements", "path"),
    [
        ("query-id\tcorpus-id\tscore\nq1\t1\t2\nq1\t2\t0\n", "qrels.tsv"),
        ("q1\t1\t2\nq1\t2\t0\n", "qrels.tsv"),
        ("query-id\tcorpus-id\tscore\nq1\t1\t2\nq1\t2\t0\n", "qrels/test.tsv"),
        ("q1 0 1 2\nq1 0 2 0\n", "qrels.tsv"),
    ],
)
def test_judgements_are_read_in_every_layout_that_sets_come_in(
    tmp_path: Path, judgements: str, path: str
) -> None:
    read = beir.read(write_folder(tmp_path, judgements, path))

    assert read.grades == {"q1": {"1": 2.0, "2": 0.0}}
    assert read.queries == {"q1": "cold"}
    assert read.documents == [("1", "Ice", "Cold."), ("2", "", "Warm.")]


def test_a_folder_without_judgements_is_refused_in_words(tmp_path: Path) -> None:
    write_folder(tmp_path, "")
    (tmp_path / "qrels.tsv").unlink()

    with pytest.raises(SystemExit, match=r"neither qrels\.tsv nor"):
        beir.read(tmp_path)
