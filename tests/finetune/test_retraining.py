"""A rule that is met freezes and drafts, once, and never activates."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from finetune import ledger, retraining, snapshots
from finetune.hyperparameters import TrainingConfig
from finetune.models import (
    Activation,
    Adapter,
    Dataset,
    DatasetSnapshot,
    InstructionPair,
    RetrainRule,
    TrainingRun,
)
from kb.models import Job, ModelDeployment, User
from tests.finetune.activating import answers
from tests.finetune.test_snapshots import freeze, write_pair

pytestmark = pytest.mark.django_db
DAY = timedelta(days=1)


def approve(dataset: Dataset, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        write_pair(
            dataset, f"Question number {number}?", f"Answer {number} and nothing else.",
            reviewed_at=timezone.now(),
        )  # fmt: skip


def trained(dataset: Dataset, user: User, **fields: Any) -> TrainingRun:
    config = TrainingConfig(base_model="base", slug="glacier", version=3).to_dict()
    values = {"finished_at": timezone.now(), "state": "succeeded", "config": config, **fields}
    return TrainingRun.objects.create(snapshot=freeze(dataset, user), name="First", **values)


def freeze_waiting() -> None:
    job = Job.objects.claim(Job.Kind.FREEZE)
    assert job is not None
    snapshots.freeze(job)


def test_enough_new_pairs_freeze_a_snapshot_and_draft_a_run(dataset: Dataset, alice: User) -> None:
    approve(dataset, 4)
    run = trained(dataset, alice)
    rule = RetrainRule.objects.create(dataset=dataset, new_pairs=3)
    approve(dataset, 2, first=10)
    assert retraining.look() == 0
    approve(dataset, 1, first=20)

    assert retraining.look() == 1
    freeze_waiting()
    assert retraining.look() == 1

    rule.refresh_from_db()
    assert rule.last_reason == "3 pairs were approved since the last run."
    assert retraining.is_asking(rule)
    draft = TrainingRun.objects.exclude(pk=run.pk).get()
    assert (draft.state, draft.snapshot.number, draft.config["version"]) == ("draft", 2, 4)
    assert draft.preflight_job is not None
    assert draft.preflight_job.state == Job.State.WAITING
    assert draft.job is None, "people start it"
    assert retraining.look() == 0, "it asks once"
    assert not Activation.objects.exists()
    assert not ModelDeployment.objects.exists()


def test_a_new_run_answers_the_rule(dataset: Dataset, alice: User) -> None:
    approve(dataset, 4)
    trained(dataset, alice)
    rule = RetrainRule.objects.create(
        dataset=dataset, new_pairs=3, last_fired_at=timezone.now(), last_reason="x"
    )
    assert retraining.is_asking(rule)
    trained(dataset, alice, finished_at=timezone.now())
    assert not retraining.is_asking(rule)


def test_a_calendar_and_stale_pairs(dataset: Dataset, alice: User) -> None:
    approve(dataset, 4)
    trained(dataset, alice, finished_at=timezone.now() - 31 * DAY)
    rule = RetrainRule.objects.create(dataset=dataset, every_days=30, stale_share=0.5)
    assert retraining.reasons(rule) == ["The last run was 31 days ago."]
    stale = InstructionPair.objects.values("pk")[:2]
    InstructionPair.objects.filter(pk__in=list(stale.values_list("pk", flat=True))).update(
        state="stale"
    )
    assert "50% of the pairs" in retraining.reasons(rule)[1]
    rule.every_days = 60
    rule.stale_share = 0.6
    assert retraining.reasons(rule) == []


def test_falling_ratings(dataset: Dataset, alice: User) -> None:
    approve(dataset, 4)
    run = trained(dataset, alice)
    Adapter.objects.create(run=run, name="glacier-v3-0000000c")
    deployment = ModelDeployment.objects.create(
        base_model="tgi", adapter_name="glacier-v3-0000000c"
    )
    rule = RetrainRule.objects.create(dataset=dataset, rating_drop=0.2)
    earlier = timezone.now() - 40 * DAY
    for message in answers(alice, 30, label="x", deployment=deployment, created_at=earlier):
        message.rate(alice, 1)
    recent = answers(alice, 20, label="x", deployment=deployment)
    for message in recent[:9]:
        message.rate(alice, -1)
    assert retraining.reasons(rule) == [], "nine are too few"
    for message in recent[9:]:
        message.rate(alice, -1)
    assert retraining.reasons(rule) == ["The share of good ratings fell by 100% within 30 days."]


def test_a_rule_that_is_off_or_empty_asks_for_nothing(dataset: Dataset, alice: User) -> None:
    approve(dataset, 4)
    rule = RetrainRule.objects.create(dataset=dataset)
    assert retraining.look() == 0
    RetrainRule.objects.filter(pk=rule.pk).update(new_pairs=1, is_on=False)
    assert retraining.look() == 0
    assert not DatasetSnapshot.objects.exists()


def test_a_first_run_is_suggested_but_not_drafted(dataset: Dataset, alice: User) -> None:
    approve(dataset, 4)
    RetrainRule.objects.create(dataset=dataset, new_pairs=4)
    assert retraining.look() == 1
    freeze_waiting()
    assert retraining.look() == 0
    assert DatasetSnapshot.objects.get().state == "ready"
    assert not TrainingRun.objects.exists()


# --- The ledger ----------------------------------------------------------------------------------


def test_the_ledger_sums_by_month_what_one_may_see(
    dataset: Dataset, alice: User, bob: User
) -> None:
    approve(dataset, 4)
    january = timezone.now().replace(year=2026, month=1, day=3)
    for hours, started in ((1, january), (2, january), (4, january.replace(month=3))):
        trained(
            dataset, alice, started_at=started, gpu_seconds=3600 * hours, energy_wh=300 * hours,
            cost=2.5 * hours,
        )  # fmt: skip
    trained(dataset, alice)  # never started: it cost nothing
    runs = ledger.runs_of(alice)
    march, first = ledger.months(runs)
    assert (march.month and march.month.month, march.runs, march.gpu_hours) == (3, 1, 4)
    assert (first.runs, first.gpu_hours, round(first.energy_kwh, 6), first.cost) == (2, 3, 0.9, 7.5)
    assert ledger.total(runs).cost == 17.5
    assert ledger.months(ledger.runs_of(bob)) == []
    assert ledger.total(ledger.runs_of(bob)).cost == 0
