"""An adapter merged into its base answers as before, also after it was written and read."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from finetune import bases, chat_templates, contract, merging, recipe, reference
from tests.finetune import tiny
from tests.finetune.test_chat_templates import DATED, on_the

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
    manifest = json.loads((merged.folder / "manifest.json").read_text())
    assert manifest["adapter"] == adapter.name
    assert manifest["gate"] == {"passed": None, "against": []}, "folders do not know"
    assert "Not asked: it was merged from folders" in (merged.folder / merging.CARD).read_text()


@pytest.mark.parametrize("several", [False, True])
def test_a_merged_model_is_asked_as_in_the_training_on_any_day(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, several: bool
) -> None:
    from transformers import AutoTokenizer

    dated = dated_base(base, tmp_path / "dated", several=several)
    on_the(1, monkeypatch)
    adapter = trained(dated, tmp_path)
    on_the(2, monkeypatch)
    merged = merging.merge(dated, adapter, tmp_path / "merged", dtype="float32")

    on_the(3, monkeypatch)
    chat = reference.shortest_chats(tmp_path / "snapshot.jsonl")[0]
    learned = reference._render(bases.load_tokenizer(dated), chat)
    assert reference._render(AutoTokenizer.from_pretrained(merged.folder), chat) == learned
    # As servers read it that look into one file only.
    (merged.folder / chat_templates.TEMPLATE).unlink()
    shutil.rmtree(merged.folder / "additional_chat_templates", ignore_errors=True)
    assert reference._render(AutoTokenizer.from_pretrained(merged.folder), chat) == learned


def dated_base(base: Path, folder: Path, *, several: bool) -> Path:
    """Give the tiny base with a template that writes the day, alone or as one of several."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    shutil.copytree(base, folder)
    dated = DATED + tokenizer.chat_template
    tokenizer.chat_template = {"default": dated, "short": "{{ 1 }}"} if several else dated
    for left in (folder / chat_templates.TEMPLATE, folder / chat_templates.CONFIG):
        left.unlink()
    tokenizer.save_pretrained(folder)
    return folder


def test_a_base_whose_template_changed_since_the_training_is_refused(
    base: Path, tmp_path: Path
) -> None:
    adapter = trained(base, tmp_path)
    changed = shutil.copytree(base, tmp_path / "changed")
    template = changed / chat_templates.TEMPLATE
    template.write_text("{{ 'Be brief. ' }}" + template.read_text())
    with pytest.raises(merging.CannotMerge, match="not the one that the adapter was trained with"):
        merging.merge(changed, adapter, tmp_path / "merged")
    # Without a manifest, as of adapters of elsewhere, what was asked after training tells.
    (adapter / "manifest.json").unlink()
    with pytest.raises(merging.CannotMerge, match="not the one that the adapter was trained with"):
        merging.merge(changed, adapter, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_the_card_says_whether_the_gate_was_passed() -> None:
    told = {"base": "base", "adapter": "notes-v1", "dtype": "bfloat16", "evaluation": 12}
    passed = merging.card("notes", {**told, "gate": {"passed": True, "against": []}})
    assert "Passed, by evaluation 12." in passed
    assert "Only people who may read everything the adapter learned from." in passed


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
