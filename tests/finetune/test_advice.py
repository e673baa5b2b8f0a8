"""What a pre-flight's numbers mean, and when it says not to train."""

from typing import Any

import pytest

from finetune import advice
from finetune.models import Dataset, DuplicateCluster, TrainingRun
from tests.finetune import answered

pytestmark = pytest.mark.django_db


def report(train: int = 100, **changes: Any) -> dict[str, Any]:
    parts = {"kept": train, "truncated": 0, "dropped": 0}
    return {"rows": {"train": parts, "validation": parts}, "contract": {}, **changes}


def said(run: TrainingRun, **changes: Any) -> list[str]:
    return [
        line["sentence"]
        for line in advice.lines(run, report(**changes))
        if line["name"] == "Advice"
    ]


@pytest.fixture
def run(dataset: Dataset) -> TrainingRun:
    snapshot = answered.freeze(dataset, [answered.line_of("glacier")])
    config = {"base_model": "tiny", "server": "own"}
    return TrainingRun.objects.create(snapshot=snapshot, name="Next", config=config)


def test_enough_pairs_of_a_new_base_need_no_advice(run: TrainingRun) -> None:
    assert said(run) == []


def test_few_pairs_are_advised_against(run: TrainingRun) -> None:
    (sentence,) = said(run, train=49)
    assert "49 rows teach a form of answers" in sentence


def test_open_duplicates_are_advised_against(run: TrainingRun, dataset: Dataset) -> None:
    run.snapshot.counts = {"train": 40}
    for key in ("a", "b"):
        DuplicateCluster.objects.create(dataset=dataset, kind="exact", key=key, size=3)
    (sentence,) = said(run)
    assert sentence.startswith("4 pairs repeat others.")


@pytest.mark.parametrize("adapter_is_better", [True, False])
def test_a_base_that_answers_well_with_sources_is_named(
    run: TrainingRun, dataset: Dataset, adapter_is_better: bool
) -> None:
    adapter = answered.adapter_of(dataset)
    answered.answered(adapter, better=adapter_is_better)
    run.config["base_model"] = adapter.base_model

    sentences = said(run)

    assert bool(sentences) is not adapter_is_better
    assert all("The base with retrieval already reaches 100%" in each for each in sentences)


def test_what_the_preflight_asked_counts_more_than_an_evaluation(run: TrainingRun) -> None:
    (sentence,) = said(run, base={"n": 16, "f1": 0.93})
    assert "already reaches 93% of the words" in sentence

    lines = advice.lines(run, report(base={"n": 16, "f1": 0.31}))
    (line,) = [line for line in lines if line["name"] == "To beat"]
    assert (line["level"], "31% of the words in 16 answers" in line["sentence"]) == ("good", True)


def not_reached(run: TrainingRun, **changes: Any) -> list[str]:
    found = advice.lines(run, report(**changes))
    return [line["sentence"] for line in found if line["name"] == "Not reached"]


def test_what_a_preflight_did_not_come_to_is_named(run: TrainingRun) -> None:
    assert not_reached(run) == [], "it came to its end"
    (sentence,) = not_reached(run, ended_after_minutes=30)
    assert "ended after 30 minutes" in sentence
    assert all(words in sentence for words in advice.STAGES.values())
    assert "very slow" not in sentence, "no step was tried"
    (sentence,) = not_reached(run, ended_after_minutes=30, steps=44, tried={"step_s": 9.0})
    assert "did not come to the answers of the base; " in sentence
