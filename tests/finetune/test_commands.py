"""Pairs go in and out from the command line."""

import json
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from finetune.management import waiting
from finetune.models import Dataset
from kb.models import Job, User
from workers import tasks

GOOD = {"instruction": "When does it melt?", "output": "In August.", "id": 7}
BAD = {"instruction": "Why?", "output": ""}
PLACE = {"collection": "Field notes", "dataset": "Glaciers", "user": "alice"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (GOOD, BAD)))
    return path


@pytest.fixture(autouse=True)
def worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work while the command waits."""
    monkeypatch.setattr(waiting.time, "sleep", lambda _: tasks.work_on_next(Job.Kind.IMPORT))


def run(command: str, *arguments: object, **options: object) -> str:
    out = StringIO()
    call_command(command, *map(str, arguments), stdout=out, **PLACE | options)
    return out.getvalue()


def test_pairs_come_in_and_go_out(dataset: Dataset, alice: User, file: Path) -> None:
    left_out = file.with_name("left-out.jsonl")

    told = run("import_pairs", file, problems=left_out)

    assert "pairs in: 1\nrows left out: 1\n" in told
    assert "row 2: The output is empty." in told
    assert json.loads(left_out.read_text())["row"] == 2
    assert "has this very file already" in run("import_pairs", file)
    assert dataset.pairs.count() == 1

    target = file.with_name("out.jsonl")
    run("export_pairs", target, kind="prompt_completion_jsonl", all=True, without_provenance=True)
    written = json.loads(target.read_text())
    assert written == {"prompt": GOOD["instruction"], "completion": GOOD["output"], "id": 7}


def test_a_new_data_set_is_made(dataset: Dataset, alice: User, file: Path) -> None:
    run("import_pairs", file, dataset="Rivers")
    assert Dataset.objects.get(name="Rivers").pairs.count() == 1


def test_a_file_is_only_looked_at(dataset: Dataset, alice: User, file: Path) -> None:
    told = run("import_pairs", file, dry_run=True)

    assert "Alpaca, JSON lines; rows: 2; pairs: 1" in told
    assert "row 2: The output is empty." in told
    assert not dataset.pairs.exists()


def test_columns_are_mapped(dataset: Dataset, alice: User, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("Frage,Antwort\nWann?,Bald.\n")

    run("import_pairs", table, map=["instruction=Frage", "output=Antwort"])

    assert dataset.pairs.get().output == "Bald."


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"user": "nobody"}, "Nobody is called nobody."),
        ({"user": "bob"}, "bob curates no collection called Field notes."),
        ({"collection": "None"}, "alice curates no collection called None."),
        ({"map": ["answer=b"]}, "There is no field called answer"),
    ],
)
def test_what_cannot_be_is_said(
    dataset: Dataset, file: Path, options: dict[str, object], sentence: str
) -> None:
    with pytest.raises(CommandError, match=sentence):
        run("import_pairs", file, **options)


def test_a_file_that_is_not_there_is_said(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="No such file"):
        run("import_pairs", tmp_path / "missing.json")
