"""Whoever renders a chat, and on whatever day, gives the tokens of the training."""

import json
import shutil
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from finetune import chat_templates
from tests.finetune.test_probe import CHATS, target
from tests.workers.conftest import StartServer, models, start_server  # noqa: F401

DATED = "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% endif %}"


@pytest.fixture
def dated(models: Path, tmp_path: Path) -> Path:  # noqa: F811
    """Give a base model whose template writes the day, as Llama 3.2's."""
    base = shutil.copytree(models / "base", tmp_path / "dated")
    template = base / chat_templates.TEMPLATE
    template.write_text(DATED + template.read_text())
    return base


def on_the(day: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Then(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Then":
            return cls(2031, 5, day)

    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Then)


@pytest.mark.train
def test_training_reference_and_server_render_the_same_tokens_on_any_day(
    dated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoTokenizer

    from finetune import bases, examples, reference
    from workers import model_server

    chat = list(CHATS[0])
    on_the(1, monkeypatch)
    raw = AutoTokenizer.from_pretrained(dated)
    assert raw.apply_chat_template(chat, tokenize=False).startswith("01 May 2031"), "the clock"
    part = examples.part_of(chat, "The caretaker.", bases.load_tokenizer(dated))
    learned = part.ids[: part.answer_start]
    on_the(2, monkeypatch)
    tokenizer = bases.load_tokenizer(dated)
    assert reference._render(tokenizer, chat) == list(learned)
    on_the(3, monkeypatch)
    served = model_server.template_of(raw)(chat)
    assert raw(served, add_special_tokens=False)["input_ids"] == list(learned)


@pytest.mark.train
def test_an_adapter_of_such_a_base_passes_the_probe_on_another_day(
    dated: Path, models: Path, start_server: StartServer, monkeypatch: pytest.MonkeyPatch,  # noqa: F811
) -> None:  # fmt: skip
    from finetune import probe, reference

    on_the(1, monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's, about transformers
        measured = reference.measure(dated, models / "a", CHATS[:2], tokens=4)
    report = probe.probe(target(start_server(adapters="a", base=dated)), "a", measured)
    assert report.passed, report.reason


def test_a_template_is_found_where_bases_keep_it(tmp_path: Path) -> None:
    read = chat_templates.files_in(tmp_path)
    assert chat_templates.template_of(read) is None
    assert chat_templates.config_with_template(read) is None
    several = [{"name": "default", "template": DATED}, {"name": "tool_use", "template": "{{ x }}"}]
    (tmp_path / chat_templates.CONFIG).write_text(json.dumps({"chat_template": several, "a": 1}))
    pinned = chat_templates.ON_ONE_DAY + DATED
    assert chat_templates.config_with_template(read) == {"chat_template": pinned, "a": 1}
    (tmp_path / chat_templates.TEMPLATE).write_text("{{ messages }}")
    assert chat_templates.template_of(read) == "{{ messages }}", "the file of its own counts"


def test_only_a_template_that_writes_the_day_is_changed_and_only_once() -> None:
    pinned = chat_templates.on_one_day(DATED)
    assert chat_templates.on_one_day(pinned) == pinned
    assert chat_templates.on_one_day({"default": DATED, "rag": "x"}) == {
        "default": pinned,
        "rag": "x",
    }
    assert chat_templates.on_one_day(None) is None


def test_the_command_prints_it_for_vllm(tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(CommandError, match="no chat template"):
        call_command("chat_template", tmp_path)
    (tmp_path / chat_templates.TEMPLATE).write_text(DATED)
    call_command("chat_template", tmp_path)
    assert capsys.readouterr().out == chat_templates.ON_ONE_DAY + DATED
