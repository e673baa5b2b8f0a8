"""Runs, erasures, rules and the ledger from the command line."""

import json
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from finetune.models import (
    Adapter,
    AuditEvent,
    Dataset,
    DatasetSnapshot,
    InstructionPair,
    RetrainRule,
    TrainingRun,
)
from kb.models import Collection, User
from tests.finetune.test_snapshots import freeze, write_pair

pytestmark = pytest.mark.django_db


@pytest.fixture
def snapshot(dataset: Dataset, collection: Collection, alice: User) -> DatasetSnapshot:
    write_pair(dataset, "When does the ice melt?", "In August.", sources=[(collection, 7)])
    return freeze(dataset, alice, train_share=1.0, validation_share=0.0)


def told(*words: object, user: str = "alice") -> str:
    out = StringIO()
    call_command(*map(str, words), "--user", user, stdout=out)
    return out.getvalue()


def refused(match: str, *words: object, user: str = "alice") -> None:
    with pytest.raises(CommandError, match=match):
        told(*words, user=user)


def test_a_run_is_planned_read_started_cancelled_resumed_and_deleted(
    snapshot: DatasetSnapshot, bob: User, tmp_path: Path
) -> None:
    settings = tmp_path / "config.json"
    settings.write_text(json.dumps({"base_model": "tiny", "server": "own", "rank": 8}))
    planned = told(
        "run", "plan", snapshot.pk, "First", "--config", settings, "--set", "rank=32",
        "--set", "use_rslora=true",
    )  # fmt: skip
    run = TrainingRun.objects.get()
    assert f"run {run.pk}: First\n" in planned
    config = run.config
    assert (config["rank"], config["use_rslora"], config["base_model"]) == (32, True, "tiny")
    assert "not done yet" in told("run", "show", run.pk)
    refused("not done yet", "run", "start", run.pk)
    line = {"level": "advice", "name": "Enough", "sentence": "There are few pairs."}
    TrainingRun.objects.update(preflight={"lines": [line]}, log_tail="step 1", manifest={"seed": 3})
    told("run", "start", run.pk)
    shown = told("run", "show", run.pk, "--log", "--manifest")
    for words in ("First: Queued.", "Enough: There are few pairs.", "step 1", '"seed": 3'):
        assert words in shown
    told("run", "cancel", run.pk)
    refused("ended already", "run", "cancel", run.pk)
    told("run", "resume", run.pk)
    refused("under way", "run", "delete", run.pk)
    for action in ("show", "start", "cancel", "resume", "delete"):
        refused(f"run {run.pk}", "run", action, run.pk, user="bob")
    told("run", "cancel", run.pk)
    told("run", "delete", run.pk)
    assert not TrainingRun.objects.exists()


def test_values_to_try_make_a_sweep(snapshot: DatasetSnapshot, bob: User) -> None:
    base = ("run", "plan", snapshot.pk, "First", "--set", "base_model=tiny", "--set", "server=own")
    told(*base, "--try", "rank=16,32")
    runs = TrainingRun.objects.order_by("pk")
    assert [run.config["rank"] for run in runs] == [16, 32]
    assert runs[0].sweep == runs[1].sweep != ""
    assert "rank 32" in runs[1].name
    refused("no setting “warp”", *base, "--set", "warp=9")
    refused("not SETTING=VALUE", *base, "--set", "rank")
    refused("may not train", *base, user="bob")
    assert runs.count() == 2


def test_a_document_is_shown_and_then_erased(snapshot: DatasetSnapshot, bob: User) -> None:
    run = TrainingRun.objects.create(snapshot=snapshot, name="First", state="succeeded")
    made = Adapter.objects.create(run=run, name="notes-v1-0000000a", audience_size=0)
    AuditEvent.objects.record(
        None, AuditEvent.Action.EXPORTED, made, snapshot.dataset.collection, merged="/models/m"
    )
    shown = told("erase", "document", "a.md")
    assert "pairs: 1\n" in shown
    assert f"snapshot {snapshot.pk}: " in shown
    assert "adapter notes-v1-0000000a\n" in shown
    assert "merged into /models/m: take it off" in shown
    assert InstructionPair.objects.approved().count() == 1
    assert "1 turned stale, 1 marked." in told("erase", "document", "7", "--reason", "Asked.")
    assert not InstructionPair.objects.approved().exists()
    refused("Nothing of bob", "erase", "document", "a.md", user="bob")


def test_a_rule_is_set_and_read(dataset: Dataset, bob: User) -> None:
    here = ("retrain_rule", "--collection", "Field notes", "--dataset", "Glaciers")
    write_pair(dataset, "When?", "In August.")
    assert "is_on: True" in told(*here)
    assert not RetrainRule.objects.exists()
    assert "met: 1 pairs were approved" in told(*here, "--new-pairs", 1, "--stale-share", 0.2)
    rule = RetrainRule.objects.get()
    assert (rule.new_pairs, rule.stale_share, rule.is_on) == (1, 0.2, True)
    assert "is_on: False" in told(*here, "--no-on")
    refused("parts of 1", *here, "--stale-share", 2)
    refused("0 or more", *here, "--new-pairs", -1)
    refused("curates no collection", *here, user="bob")


def test_the_ledger_sums_by_month(snapshot: DatasetSnapshot, bob: User) -> None:
    TrainingRun.objects.create(
        snapshot=snapshot, name="First", started_at=timezone.now(), gpu_seconds=7200.0,
        energy_wh=600.0, cost=1.25,
    )  # fmt: skip
    head, run, month, total = told("ledger", "--runs").splitlines()
    assert run.split()[1:] == ["1", "2.00", "0.60", "1.25", "First"]
    assert month.split()[1:] == total.split()[1:] == ["1", "2.00", "0.60", "1.25"]
    assert total.startswith("all")
    assert told("ledger", user="bob").splitlines()[-1].split()[1:] == ["0", "0.00", "0.00", "0.00"]
