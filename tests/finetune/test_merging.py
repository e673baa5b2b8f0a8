"""An adapter merged into its base answers as before, also after it was written and read."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from finetune import contract, merging, recipe, reference
from tests.finetune import tiny

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore::FutureWarning")]


def trained(base: Path, folder: Path, **changes: Any) -> Path:
    """Train an adapter, with what it answers noted beside it."""
    data = tiny.write_snapshot(folder / "snapshot.jsonl", train=16, validation=4)
    result = recipe.train(tiny.config(base, server="own", **changes), data, folder / "out")
    assert result.adapter is not None
    chats = reference.shortest_chats(data)
    reference.measure(base, result.adapter, chats, tokens=8).write(result.adapter)
    return result.adapter


@pytest.mark.parametrize(
    ("dtype", "changes"), [("float32", {}), ("bfloat16", {}), ("float32", {"use_dora": True})]
)
def test_a_merged_model_answers_as_its_adapter(
    base: Path, tmp_path: Path, dtype: str, changes: dict[str, Any]
) -> None:
    adapter = trained(base, tmp_path, **changes)
    merged = merging.merge(base, adapter, tmp_path / "merged", dtype=dtype)
    assert merged.distance <= merging.TOLERANCE[dtype]
    assert merged.asked == reference.ASKED
    config = json.loads((merged.folder / "config.json").read_text())
    assert (config["torch_dtype"], config["rope_theta"]) == (dtype, 10000.0)
    tokenizer = json.loads((merged.folder / "tokenizer_config.json").read_text())
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert "message" in tokenizer["chat_template"]
    assert json.loads((merged.folder / "manifest.json").read_text())["adapter"] == adapter.name


def test_a_merge_that_changes_answers_leaves_nothing(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = trained(base, tmp_path)
    monkeypatch.setitem(merging.TOLERANCE, "bfloat16", -1.0)
    with pytest.raises(merging.CannotMerge, match="differently"):
        merging.merge(base, adapter, tmp_path / "merged")
    assert not list(tmp_path.glob("*merged*"))


def test_learned_prompts_cannot_be_merged(base: Path, tmp_path: Path) -> None:
    (tmp_path / contract.CONFIG).write_text(json.dumps({"peft_type": "PROMPT_TUNING"}))
    with pytest.raises(merging.CannotMerge, match="own model server"):
        merging.merge(base, tmp_path, tmp_path / "merged")


def test_long_context_settings_are_written_for_older_readers(tmp_path: Path) -> None:
    rope = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0}
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"rope_parameters": rope}))
    assert merging._older_keys(path, "bfloat16") == {
        "torch_dtype": "bfloat16",
        "rope_theta": 500000.0,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0},
    }
