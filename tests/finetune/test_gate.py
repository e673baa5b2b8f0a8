"""Each demand of the gate, met and missed, in words."""

from copy import deepcopy
from typing import Any

import pytest

from finetune import gate
from finetune.gate import Rules


def apart(difference: float, low: float, high: float, p: float = 0.01) -> dict[str, float]:
    return {"difference": difference, "low": low, "high": high, "p": p, "n": 40}


GOOD: dict[str, Any] = {
    "cells": {"adapter+retrieval": {"ended": {"mean": 1.0}, "abstention": {"mean": 0.9}}},
    "tests": {
        "f1": apart(0.12, 0.05, 0.2),
        "nats": apart(-0.4, -0.5, -0.3),
        "abstention": apart(0.1, 0, 0.2),
    },
    "regression": {"tests": {"f1": apart(-0.01, -0.2, 0.1)}},
    "forgetting": {"test": apart(0.05, 0, 0.1)},
    "safety": {
        "injection": {"n": 12, "before": 3, "after": 3},
        "jailbreak": {"n": 12, "before": 5, "after": 2},
        "bias": {"n": 16, "before": 8, "after": 10},
    },
}


def refused(**changes: Any) -> list[str]:
    results = deepcopy(GOOD)
    for path, value in changes.items():
        *way, last = path.split("__")
        place = results
        for name in way:
            place = place[name]
        place[last] = value
    decided = gate.decide(results, Rules())
    assert decided["passed"] == all(line["passed"] for line in decided["lines"])
    return [line["sentence"] for line in decided["lines"] if not line["passed"]]


def test_a_better_adapter_passes_with_a_sentence_for_each_demand() -> None:
    decided = gate.decide(GOOD, Rules())
    assert decided["passed"]
    assert [line["name"] for line in decided["lines"]] == [
        "Answers", "Likelihood", "Abstention", "Regression set", "Forgetting",
        "Injection", "Jailbreak", "Bias", "Stop token",
    ]  # fmt: skip
    assert decided["lines"][0]["sentence"] == (
        "Token F1 with sources changed by +12.0 points (95% interval +5.0 to +20.0, p = 0.010,"
        " 40 questions)."
    )


def test_answers_must_be_better_and_surely_not_much_worse() -> None:
    assert "must rise" in refused(tests__f1=apart(-0.01, -0.015, 0.1))[0]
    assert "−2.0" in refused(tests__f1=apart(0.05, -0.03, 0.1))[0]
    assert refused(tests__f1=apart(0.05, -0.01, 0.1)) == []


def test_each_other_demand_refuses_by_itself() -> None:
    assert "less likely" in refused(tests__nats=apart(0.1, 0, 0.2))[0]
    assert "−2.0 is allowed" in refused(tests__abstention=apart(-0.1, -0.2, 0))[0]
    assert "regression" in refused(regression__tests__f1=apart(-0.2, -0.3, -0.1))[0]
    assert "0.2 less" in refused(forgetting__test=apart(0.3, 0.2, 0.4))[0]
    safety = {"n": 12, "before": 3, "after": 4}
    assert "4 of 12 cases" in refused(safety__injection=safety)[0]
    assert refused(safety__bias={"n": 16, "before": 8, "after": 11})
    cell = {"ended": {"mean": 0.9}, "abstention": {"mean": 1}}
    assert "95% must" in refused(**{"cells__adapter+retrieval": cell})[0]


def test_without_a_test_question_nothing_passes() -> None:
    decided = gate.decide({"tests": {}}, Rules())
    assert not decided["passed"]
    assert "no test question" in decided["lines"][0]["sentence"]


def test_rules_are_checked() -> None:
    assert Rules.of({"margin": 0.1, "metric": "rouge_l"}).margin == 0.1
    for wrong in (
        {"magrin": 1}, {"margin": -1}, {"metric": "beauty"}, {"margin": "a"}, {"questions": 0},
        {"questions": 1.5},
    ):  # fmt: skip
        with pytest.raises(gate.InvalidRules, match="EVALUATION"):
            Rules.of(wrong)
