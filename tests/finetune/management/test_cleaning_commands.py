"""Cleaning and freezing from the command line, with a worker that does the jobs meanwhile."""

from collections.abc import Iterator
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from finetune.management import waiting
from finetune.models import Dataset, DatasetSnapshot, InstructionPair
from kb.models import User
from tests.finetune.test_snapshots import fill, write_pair
from workers import tasks

pytestmark = pytest.mark.django_db
PLACE = ["--collection", "Field notes", "--dataset", "Glaciers", "--user", "alice"]


@pytest.fixture(autouse=True)
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Do the next job of either kind whenever a command waits."""

    def work(_seconds: float) -> None:
        assert tasks.work_on_next("clean") or tasks.work_on_next("freeze")

    monkeypatch.setattr(waiting.time, "sleep", work)
    return


def call(name: str, *arguments: str) -> str:
    out = StringIO()
    call_command(name, *arguments, stdout=out)
    return out.getvalue()


def test_pairs_are_measured_cleaned_and_decided(dataset: Dataset, alice: User) -> None:
    write_pair(dataset, "When is that?", "In August. Write to jo@example.org.", state="suggested")
    write_pair(dataset, "When is that?", "In August. Write to jo@example.org.", state="suggested")
    InstructionPair.objects.update(flags=[], word_count=0, bands=[])
    said = call("clean_pairs", *PLACE, "--measure", "--keep-first", "exact")
    assert "measured anew: 2" in said
    assert "exact: 1" in said
    assert "set aside, exact: 1" in said
    first, second = dataset.pairs.order_by("pk")
    assert first.flags == ["personal_data"]
    assert first.word_count > 0
    assert (first.state, second.state) == ("suggested", "rejected")


def test_a_snapshot_is_frozen_and_reproduced(dataset: Dataset, alice: User) -> None:
    fill(dataset, 1, 12)
    said = call("freeze_snapshot", *PLACE, "--seed", "3", "--train", "0.5", "--validation", "0.25")
    snapshot = DatasetSnapshot.objects.get()
    assert (snapshot.seed, snapshot.created_by) == (3, alice)
    assert f"sha256 {snapshot.sha256}" in said
    said = call("reproduce_snapshot", str(snapshot.pk))
    assert "rendered anew: 12" in said
    assert said.endswith("The same.\n")


def test_what_makes_no_sense_is_refused(dataset: Dataset, alice: User) -> None:
    with pytest.raises(CommandError, match="parts of 1"):
        call("freeze_snapshot", *PLACE, "--train", "0.9", "--validation", "0.2")
    with pytest.raises(CommandError, match="no frozen snapshot 7"):
        call("reproduce_snapshot", "7")
    with pytest.raises(CommandError, match="no approved pair"):
        call("freeze_snapshot", *PLACE)
