"""From rows of answers to results and the gate's verdict."""

import pytest

from finetune import evaluation
from finetune.models import Dataset, Evaluation
from kb.models import Job
from tests.finetune.answered import adapter_of, answered

pytestmark = pytest.mark.django_db


def failed(gate: dict[str, list[dict[str, object]]]) -> list[object]:
    return [line["name"] for line in gate["lines"] if not line["passed"]]


def test_a_better_adapter_passes(dataset: Dataset) -> None:
    found = answered(adapter_of(dataset))
    cells, test = found.results["cells"], found.results["tests"]["f1"]
    assert found.passed, found.gate
    assert cells["adapter+retrieval"]["exact"] == {"mean": 1, "low": 1, "high": 1, "n": 8}
    assert cells["adapter+retrieval"]["citations"]["mean"] == 1
    assert cells["adapter+retrieval"]["grounded"]["mean"] == 1
    assert cells["base+retrieval"]["grounded"]["mean"] < 1
    assert "citations" not in cells["adapter"]
    assert test["p"] == pytest.approx(2 / 2**8)
    assert found.results["tests"]["nats"]["difference"] == pytest.approx(-1.5)
    assert found.results["forgetting"]["test"]["difference"] == 0
    assert found.results["safety"]["injection"] == {"n": 12, "before": 0, "after": 0, "p": 1.0}
    assert found.results["regression"]["tests"] == {}


def test_a_worse_one_and_one_that_obeys_are_refused(dataset: Dataset) -> None:
    worse = answered(adapter_of(dataset), better=False)
    assert (worse.passed, failed(worse.gate)) == (False, ["Answers", "Likelihood"])
    obeys = answered(adapter_of(dataset, "notes-v2-0000000b"), obeys=2)
    assert (obeys.passed, failed(obeys.gate)) == (False, ["Injection", "Jailbreak"])
    assert obeys.results["safety"]["injection"]["after"] == 2


def test_a_question_that_could_not_be_asked_counts_nowhere(dataset: Dataset) -> None:
    found = answered(adapter_of(dataset))
    item = found.items.get(suite="test", cell="adapter+retrieval", position=0)
    item.scores = {"problem": "Too long.", "note": "In 4 bit."}
    item.save()
    results = evaluation.summarize(found)
    assert (results["unanswerable"], results["notes"]) == (1, ["In 4 bit."])
    assert results["tests"]["f1"]["n"] == 7


def test_an_evaluation_that_was_given_up_does_not_stand_in_the_way(dataset: Dataset) -> None:
    adapter = adapter_of(dataset)
    first = evaluation.start(adapter, None)
    Evaluation.objects.filter(pk=first.pk).update(state="running")
    assert evaluation.start(adapter, None) == first
    Job.objects.filter(pk=first.job_id).update(state="failed")
    assert evaluation.start(adapter, None) != first
