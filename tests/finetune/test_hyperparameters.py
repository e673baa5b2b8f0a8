import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from finetune.hyperparameters import InvalidConfig, TrainingConfig


def problems(**settings: Any) -> list[str]:
    with pytest.raises(InvalidConfig) as caught:
        TrainingConfig(base_model="base", **settings)
    return caught.value.problems


def test_the_defaults_fit_each_other() -> None:
    assert TrainingConfig(base_model="base").rank == 16


def test_settings_survive_the_way_through_json() -> None:
    config = TrainingConfig(base_model="base", target_modules=("q_proj",), learning_rate=1e-4)

    assert TrainingConfig.from_json(json.dumps(config.to_dict())) == config


def test_a_number_outside_its_range_is_named_with_range_and_unit() -> None:
    assert problems(max_length=4) == [
        "“max_length” must be at least 16 and at most 1e+06 tokens, not 4."
    ]
    assert problems(learning_rate=0.0)[0].startswith("“learning_rate” must be above 0")
    assert problems(dropout=float("nan")) != []


def test_a_value_of_the_wrong_type_is_named() -> None:
    assert problems(epochs=2.5) == ["“epochs” must be a whole number, not 2.5."]
    assert problems(packing=1) == ["“packing” must be true or false, not 1."]
    assert problems(method="ppo") == ["“method” must be one of sft, dpo, not 'ppo'."]
    assert problems(target_modules="q_proj") == ["“target_modules” must be a list of names."]


def test_all_problems_are_told_at_once() -> None:
    assert len(problems(epochs=0, rank=0, seed=-1)) == 3


def test_what_contradicts_itself_is_refused() -> None:
    assert "cannot be packed" in problems(adapter="prompt")[0]
    assert "no rank" in problems(adapter="prefix", packing=False, use_dora=True)[0]
    assert "recompute" in problems(adapter="prefix", packing=False, gradient_checkpointing=True)[0]
    assert "nothing would learn" in problems(target_modules=())[0]
    assert "lm_head" in problems(target_modules=("q_proj", "lm_head"))[0]
    assert "part of a file name" in problems(slug="Our Model")[0]


def test_unknown_and_missing_settings_are_named() -> None:
    with pytest.raises(InvalidConfig) as caught:
        TrainingConfig.from_dict({"lerning_rate": 1})

    assert caught.value.problems == [
        "There is no setting “lerning_rate”.",
        "The setting “base_model” is missing.",
    ]


@pytest.mark.parametrize("text", ["", "[]", "{", "1"])
def test_what_is_not_an_object_of_settings_is_refused(text: str) -> None:
    with pytest.raises(InvalidConfig):
        TrainingConfig.from_json(text)


def test_the_learning_rate_rises_and_then_falls_like_half_a_cosine() -> None:
    config = TrainingConfig(base_model="base", learning_rate=1.0, warmup=0.1)
    rates = [config.learning_rate_at(step, 100) for step in range(1, 101)]

    assert rates[10] == max(rates) == 1.0
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(0.5, abs=0.01)
    assert 0 < rates[99] < 0.01


def test_a_constant_learning_rate_only_rises() -> None:
    config = TrainingConfig(base_model="base", learning_rate=1.0, schedule="constant", warmup=0.1)

    assert [config.learning_rate_at(step, 10) for step in (1, 2, 10)] == [0.5, 1.0, 1.0]


@pytest.mark.parametrize("total", [1, 2, 3])
def test_the_shortest_runs_learn_in_every_step(total: int) -> None:
    config = TrainingConfig(base_model="base", warmup=0.5)

    assert all(config.learning_rate_at(step, total) > 0 for step in range(1, total + 1))


def test_the_number_of_steps_follows_from_epochs_unless_bounded() -> None:
    assert TrainingConfig(base_model="base", epochs=3).total_steps(7) == 21
    assert TrainingConfig(base_model="base", epochs=3, max_steps=10).total_steps(7) == 10


def test_every_setting_is_described_in_the_documentation() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "fine-tune.md").read_text()

    assert [each.name for each in fields(TrainingConfig) if f"`{each.name}`" not in page] == []
