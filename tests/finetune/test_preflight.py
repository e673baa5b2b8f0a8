"""The look at a run before it starts, without Django around it."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from finetune import bases, packing, preflight, recipe
from tests.finetune import answered, tiny

pytestmark = [
    pytest.mark.train,
    # PEFT 0.21 asks transformers 5.23 by a name that goes away in version 6.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tiny.write_snapshot(tmp_path / "snapshot.jsonl")


def report(base: Path, data: Path, *, processes: int = 1, **settings: Any) -> dict[str, Any]:
    config = tiny.config(base, server="own", **settings)
    *_, last = preflight.inspect(config, data, processes=processes)
    return last


def test_a_base_whose_layers_bear_other_names_is_told_in_a_sentence(
    base: Path, data: Path, tmp_path: Path
) -> None:
    gpt2 = tmp_path / "gpt2"
    tokenizer = AutoTokenizer.from_pretrained(base)
    shape = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=1, n_head=2)
    GPT2LMHeadModel(shape).save_pretrained(gpt2)
    tokenizer.save_pretrained(gpt2)

    found = report(gpt2, data)

    assert "gpt2 cannot be trained with these settings: Target modules" in found["tried"]["problem"]
    assert found["memory"]["problem"] == found["tried"]["problem"]
    assert found["rows"]["train"]["kept"] == 24


def test_too_little_memory_is_told_beside_what_the_memory_is_for(
    base: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(bases, "load_to_train", full)

    found = report(base, data)

    assert "does not suffice" in found["tried"]["problem"]
    assert found["memory"]["total"] > 0


def test_the_recipe_refuses_too_little_memory_with_a_sentence(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(bases, "load_to_train", full)
    monkeypatch.setenv("RECIPE_FOLDER", str(tmp_path))
    file = tmp_path / "config.json"
    settings = tiny.config(base).to_dict()
    file.write_text(json.dumps({**settings, "data": data.name, "out": "out"}))

    assert recipe.main(file) == recipe.REFUSED
    outcome = json.loads((tmp_path / recipe.OUTCOME).read_text())
    assert outcome["code"] == recipe.REFUSED
    assert "does not suffice" in outcome["sentence"]


def test_the_trial_begins_with_the_longest_rows_and_counts_a_step_of_every_card(
    base: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    lay = packing.lay

    def noted(parts: Any, *, width: int, filler: int) -> packing.Laid:
        seen.append(width)
        return lay(parts, width=width, filler=filler)

    monkeypatch.setattr(packing, "lay", noted)
    found = report(base, data, processes=2, packing=False)

    assert seen[0] == max(seen) == found["lengths"]["longest"]
    assert min(seen) < max(seen)
    assert (found["steps_an_epoch"], found["processes"]) == (6, 2)  # 24 rows, 2 on each card
    assert found["tokens"] == 4 * found["lengths"]["total"]  # of four epochs
    assert found["memory_on_card"]["parameters"] == found["memory"]["parameters"]
    assert found["memory_on_card"]["weights"] <= found["memory"]["weights"]
    assert found["tried"]["seconds"] == pytest.approx(24 * found["tried"]["step_s"])


def test_the_base_answers_questions_that_have_sources(base: Path, tmp_path: Path) -> None:
    plain = tiny.rows(12, "train") + tiny.rows(2, "validation")
    with_sources = [
        answered.sourced(f"Which colour has {thing}?", f"{thing} is red.", "Red [1].", "validation")
        for thing in ("glacier", "harbour", "lantern")
    ]
    data = tmp_path / "snapshot.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in [*plain, *with_sources]))

    found = report(base, data, max_length=1024)["base_answers"]

    assert [each["expected"] for each in found] == ["Red [1]."] * 3
    assert all(isinstance(each["output"], str) for each in found)
