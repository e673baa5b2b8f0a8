"""Bases are found and loaded, or refused with a sentence."""

import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from transformers import AutoTokenizer

from finetune import bases, evaluating, recipe, reference
from tests.finetune import tiny

pytestmark = [
    pytest.mark.train,
    # PEFT 0.21 asks transformers 5.23 by a name that goes away in version 6.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]


def test_a_base_is_a_folder_with_safetensors_only(base: Path, tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"")

    assert bases.find(tiny.config(base)) == base
    with pytest.raises(bases.CannotRun, match="safetensors"):
        bases.find(tiny.config(tmp_path))


def test_a_base_nobody_could_ask_is_refused(base: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    shutil.copy(base / "config.json", tmp_path)

    with pytest.raises(bases.CannotRun, match="no chat template"):
        bases.load_tokenizer(tmp_path)


def test_qlora_without_a_card_is_refused_with_a_sentence(base: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(bases.CannotRun, match="QLoRA needs a GPU"):
        bases.load_to_train(tiny.config(base, quantize=True), base, bf16=True)


def test_a_base_that_does_not_fit_on_the_card_is_spread_and_says_the_same(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tiny.write_snapshot(tmp_path / "snapshot.jsonl")
    result = recipe.train(tiny.config(base, epochs=1), data, tmp_path / "out")
    assert result.adapter is not None
    chats = reference.shortest_chats(data)[:2]
    whole = reference.measure(base, result.adapter, chats, tokens=4)
    to, full = torch.nn.Module.to, ["cpu"]

    def once(module: torch.nn.Module, *args: Any, **options: Any) -> torch.nn.Module:
        if full:
            full.pop()
            raise torch.OutOfMemoryError("CUDA out of memory")
        return to(module, *args, **options)

    monkeypatch.setattr(torch.nn.Module, "to", once)
    spread = reference.measure(base, result.adapter, chats, tokens=4)

    assert (full, whole.note, spread.note) == ([], "", bases.SPREAD)
    assert spread.samples == whole.samples
    ask = {"id": 0, "model": "adapter", "messages": list(chats[0]), "expected": "Red."}
    asks = [{**ask, "generate": True}]
    job = evaluating.Job(tiny.config(base), result.adapter, asks, 4, batch_size=1)
    (first,) = evaluating.evaluate(job)
    full.append("cpu")
    assert list(evaluating.evaluate(job)) == [first | {"note": bases.SPREAD}]
