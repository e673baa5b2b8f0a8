import json
from io import StringIO
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch
from django.core.management import CommandError, call_command
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetune import base_model, checkpoints
from tests.finetune import tiny

pytestmark = pytest.mark.train
SIZE = {"vocabulary": 500, "hidden": 32, "layers": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models") / "base"
    base_model.make(made, tiny.own_texts(), steps=40, **SIZE)
    return made


def test_the_same_texts_give_the_same_files(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)  # what was drawn before does not matter
    base_model.make(tmp_path / "again", tiny.own_texts(), steps=40, **SIZE)

    assert checkpoints.hashes_of(tmp_path / "again") == checkpoints.hashes_of(folder)


def test_another_seed_gives_other_weights(folder: Path, tmp_path: Path) -> None:
    base_model.make(tmp_path / "other", tiny.own_texts(), steps=40, seed=1, **SIZE)

    other, first = checkpoints.hashes_of(tmp_path / "other"), checkpoints.hashes_of(folder)
    assert other["model.safetensors"] != first["model.safetensors"]
    assert other["tokenizer.json"] == first["tokenizer.json"]


def test_it_learns(folder: Path, tmp_path: Path) -> None:
    manifest = checkpoints.manifest_of(folder)
    assert manifest is not None

    unlearned = base_model.make(tmp_path / "short", tiny.own_texts(), steps=1, **SIZE)
    assert manifest["loss"] < unlearned - 0.5


def test_the_folder_has_safetensors_and_nothing_that_runs_code(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}

    assert names == {
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "manifest.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_it_is_a_llama_with_a_chat_template_and_its_own_stop_and_filling_tokens(
    folder: Path,
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hello ☃"}], tokenize=False, add_generation_prompt=True
    )

    assert chat == "<|im_start|>user\nHello ☃<|im_end|>\n<|im_start|>assistant\n"
    ids = tokenizer(chat, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == chat
    assert model.config.model_type == "llama"
    assert tokenizer.eos_token_id in ids
    assert tokenizer.pad_token_id not in (tokenizer.eos_token_id, None)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id


def test_tgi_finds_the_names_it_reads(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())

    assert (config["torch_dtype"], config["rope_theta"]) == ("float32", 10000.0)
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert tokenizer["chat_template"] == base_model.CHAT_TEMPLATE


def test_too_little_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="10,000 characters"):
        base_model.make(tmp_path / "base", ["A short text."], **SIZE)
    assert not (tmp_path / "base").exists()


def test_the_command_learns_the_projects_own_text(tmp_path: Path) -> None:
    said = StringIO()
    call_command(
        "make_base_model",
        tmp_path / "base",
        steps=1,
        vocabulary=300,
        hidden=32,
        layers=1,
        stdout=said,
    )

    assert "loss" in said.getvalue()
    manifest = checkpoints.manifest_of(tmp_path / "base")
    assert manifest is not None
    assert manifest["characters"] > 100_000


def test_the_command_leaves_an_existing_folder_alone(folder: Path) -> None:
    with pytest.raises(CommandError, match="exists already"):
        call_command("make_base_model", folder)


def test_the_command_learns_a_folder_of_texts(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/short.txt").write_text("Too short.")

    with pytest.raises(CommandError, match="10,000 characters"):
        call_command("make_base_model", tmp_path / "base", texts=tmp_path / "texts")
