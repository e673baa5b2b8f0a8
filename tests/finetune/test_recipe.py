"""The recipe on a model of 64 dimensions: what it learns, and that nothing gets lost on the way."""

import hashlib
import json
import math
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("torch")

import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetune import (
    base_model,
    bases,
    checkpoints,
    contract,
    packing,
    recipe,
)
from finetune.examples import prepare, read_lines
from tests.finetune import tiny

if TYPE_CHECKING:
    from finetune.examples import Example

pytestmark = [
    pytest.mark.train,
    # PEFT 0.21 asks transformers 5.23 by a name that goes away in version 6.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tiny.write_snapshot(tmp_path / "snapshot.jsonl")


def run(base: Path, data: Path, out: Path, **settings: Any) -> tuple[recipe.Result, list[Any]]:
    lines: list[Mapping[str, Any]] = []
    result = recipe.train(tiny.config(base, **settings), data, out, on_step=lines.append)
    return result, lines


def losses(lines: list[Any]) -> list[float]:
    return [line["loss"] for line in lines if line["event"] == "train"]


def weights(result: recipe.Result) -> str:
    assert result.adapter is not None
    return checkpoints.sha256_of(result.adapter / contract.WEIGHTS)


# What is learned


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"use_dora": True, "server": "own"},
        {"adapter": "prompt", "packing": False, "server": "own", "learning_rate": 5e-2},
        {"adapter": "prefix", "packing": False, "server": "own", "learning_rate": 5e-2},
        {"method": "dpo"},
        {"precision": "bf16"},
        {"dropout": 0.1, "schedule": "constant", "weight_decay": 0.1},
    ],
    ids=str,
)
def test_every_way_of_training_lowers_the_loss_on_rows_it_never_saw(
    base: Path, data: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    result, _ = run(base, data, tmp_path / "out", **settings)

    assert result.loss is not None
    assert result.base_loss is not None
    assert result.loss < result.base_loss - 0.005


def test_the_saved_adapter_gives_the_validation_loss_that_was_reported(
    base: Path, data: Path, tmp_path: Path
) -> None:
    result, _ = run(base, data, tmp_path / "out")
    assert result.adapter is not None
    model = AutoModelForCausalLM.from_pretrained(base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    adapted = PeftModel.from_pretrained(model, result.adapter).eval()

    total = learned = 0.0
    for example in prepare(read_lines(data, "validation"), tokenizer, max_length=160).examples:
        total -= float(torch.tensor(_log_probabilities(adapted, example)).sum())
        learned += example.learned

    assert total / learned == pytest.approx(result.loss, abs=1e-5)


@torch.no_grad()
def _log_probabilities(model: torch.nn.Module, example: "Example") -> list[float]:
    """Give the log-probability of each token to learn, from one plain forward pass."""
    ids = torch.tensor([example.chosen.ids])
    # Learned prompts stand before the row, and in its output, too.
    scores = model(input_ids=ids).logits[0, -ids.shape[1] :].log_softmax(-1)
    places = range(example.chosen.answer_start, ids.shape[1])
    return [float(scores[place - 1, ids[0, place]]) for place in places]


def test_packed_rows_give_the_loss_of_rows_alone(base: Path, data: Path, tmp_path: Path) -> None:
    settings = {"epochs": 1, "batch_size": 64}
    packed, _ = run(base, data, tmp_path / "packed", packing=True, **settings)
    alone, _ = run(base, data, tmp_path / "alone", packing=False, **settings)

    assert packed.base_loss == pytest.approx(alone.base_loss, abs=1e-6)
    one, other = (load_file(out.adapter / contract.WEIGHTS) for out in (packed, alone))  # type: ignore[operator]
    # AdamW's first step makes much of the last bits of gradients that are nearly nothing.
    assert all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)


def test_without_separate_positions_packed_rows_would_see_each_other(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean, _ = run(base, data, tmp_path / "clean", epochs=1)
    lay = packing.lay

    def carry_on(*args: Any, **options: Any) -> packing.Laid:
        laid = lay(*args, **options)
        return packing.Laid(laid.ids, list(range(len(laid.ids))), laid.targets, laid.length)

    monkeypatch.setattr(packing, "lay", carry_on)
    contaminated, _ = run(base, data, tmp_path / "contaminated", epochs=1)

    # Little, because so small a base hardly looks back; yet far beyond the test above.
    assert abs(contaminated.base_loss - clean.base_loss) > 1e-5  # type: ignore[operator]


def test_a_batch_laid_into_one_row_gives_the_same_loss(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, several = run(base, data, tmp_path / "several", batch_size=4)
    monkeypatch.setattr(recipe, "_ONE_ROW", ("sdpa",))  # what flash attention needs
    _, one = run(base, data, tmp_path / "one", batch_size=4)

    assert losses(one) == pytest.approx(losses(several), abs=1e-4)


def test_attention_in_plain_steps_gives_the_same_loss(
    base: Path, data: Path, tmp_path: Path
) -> None:
    _, fused = run(base, data, tmp_path / "fused", epochs=1)
    _, plain = run(base, data, tmp_path / "plain", epochs=1, attention="eager")

    assert losses(plain) == pytest.approx(losses(fused), abs=1e-4)


def test_accumulated_batches_learn_what_one_big_batch_does(
    base: Path, data: Path, tmp_path: Path
) -> None:
    _, big = run(base, data, tmp_path / "big", packing=False, batch_size=4)
    _, small = run(base, data, tmp_path / "small", packing=False, batch_size=1, accumulation=4)

    # Answers differ in length, so the mean of four means would be another number.
    assert losses(small) == pytest.approx(losses(big), abs=2e-4)


def test_recomputed_activations_give_the_same_weights(
    base: Path, data: Path, tmp_path: Path
) -> None:
    kept, _ = run(base, data, tmp_path / "kept", epochs=1)
    again, _ = run(base, data, tmp_path / "again", epochs=1, gradient_checkpointing=True)

    assert weights(kept) == weights(again)


def test_long_lists_of_logits_are_worked_off_in_pieces(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, whole = run(base, data, tmp_path / "whole", epochs=1)
    monkeypatch.setattr(recipe, "LOGIT_ROWS", 7)
    _, pieces = run(base, data, tmp_path / "pieces", epochs=1)

    assert losses(pieces) == pytest.approx(losses(whole), abs=1e-5)


def test_a_preference_starts_where_base_and_adapter_agree(
    base: Path, data: Path, tmp_path: Path
) -> None:
    _, lines = run(base, data, tmp_path / "out", method="dpo", epochs=1)

    assert losses(lines)[0] == pytest.approx(math.log(2), abs=1e-5)


@pytest.mark.parametrize("adapter", ["prompt", "prefix", "lora"])
def test_a_preference_sees_each_of_its_answers_alone(
    base: Path, data: Path, tmp_path: Path, adapter: str
) -> None:
    settings: dict[str, Any] = {"adapter": adapter, "packing": False, "server": "own"}
    config = tiny.config(base, method="dpo", learning_rate=5e-2, epochs=1, max_steps=3, **settings)
    result = recipe.train(config, data, tmp_path / "out")
    assert result.adapter is not None
    tokenizer = AutoTokenizer.from_pretrained(base)
    found = prepare(read_lines(data, "validation"), tokenizer, max_length=160, preferences=True)
    plain = AutoModelForCausalLM.from_pretrained(base)
    asked = [
        replace(each, chosen=part)
        for each in found.examples
        for part in (each.chosen, each.rejected)
        if part
    ]
    without = torch.tensor([sum(_log_probabilities(plain, each)) for each in asked])
    adapted = PeftModel.from_pretrained(plain, result.adapter).eval()
    gained = torch.tensor([sum(_log_probabilities(adapted, each)) for each in asked]) - without

    expected = -logsigmoid(config.beta * (gained[0::2] - gained[1::2])).mean()
    assert result.loss == pytest.approx(float(expected), abs=1e-4)
    assert abs(result.loss - math.log(2)) > 1e-3


def test_training_ends_when_the_validation_loss_no_longer_falls(
    base: Path, data: Path, tmp_path: Path
) -> None:
    result, lines = run(
        base, data, tmp_path / "out", learning_rate=0.5, epochs=20, evaluate_every=2, patience=2
    )

    evaluations = [line["loss"] for line in lines if line["event"] == "evaluation"]
    assert result.step < max(line["steps"] for line in lines if line["event"] == "train")
    assert result.loss == min(evaluations[1:])


def test_the_adapter_has_the_weights_of_the_best_evaluation_not_the_last(
    base: Path, data: Path, tmp_path: Path
) -> None:
    settings = {"evaluate_every": 2, "patience": 0, "schedule": "constant", "learning_rate": 3e-2}
    result, lines = run(base, data, tmp_path / "out", epochs=10, **settings)
    assert result.adapter is not None
    best = min(
        (line for line in lines if line["event"] == "evaluation" and line["step"]),
        key=lambda line: line["loss"],
    )

    assert best["step"] < result.step, "the run must go on past its best for this to show anything"
    manifest = json.loads((result.adapter / "manifest.json").read_text())
    assert manifest["progress"]["best_step"] == best["step"]
    model = AutoModelForCausalLM.from_pretrained(base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    adapted = PeftModel.from_pretrained(model, result.adapter).eval()
    examples = prepare(read_lines(data, "validation"), tokenizer, max_length=160).examples
    total = -sum(sum(_log_probabilities(adapted, example)) for example in examples)
    assert total / sum(each.learned for each in examples) == pytest.approx(best["loss"], abs=1e-5)


def test_a_template_that_writes_the_day_gives_the_same_tokens_tomorrow(
    base: Path, data: Path, tmp_path: Path
) -> None:
    dated = tmp_path / "dated"
    shutil.copytree(base, dated)
    template = "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% endif %}\n"
    (dated / "chat_template.jinja").write_text(template + base_model.CHAT_TEMPLATE)
    tokenizer = bases.load_tokenizer(dated)
    (first, *_) = prepare(read_lines(data, "train"), tokenizer, max_length=160).examples

    assert tokenizer.decode(first.chosen.ids).startswith("01 Jan 2026<|im_start|>system")
    result, _ = run(dated, data, tmp_path / "out", epochs=1)
    assert result.adapter is not None
    manifest = json.loads((result.adapter / "manifest.json").read_text())
    own = (dated / "chat_template.jinja").read_bytes()
    assert manifest["template_sha256"] == hashlib.sha256(own).hexdigest()


# What is left behind


def test_an_adapter_comes_with_its_manifest_and_fits_the_contract(
    base: Path, data: Path, tmp_path: Path
) -> None:
    result, _ = run(base, data, tmp_path / "out", slug="field-notes", version=3)
    assert result.adapter is not None
    manifest = checkpoints.manifest_of(result.adapter)
    assert manifest is not None

    digest = manifest["files"][contract.WEIGHTS]
    assert result.adapter.name == manifest["name"] == f"field-notes-v3-{digest[:8]}"
    settings = json.loads((base / "config.json").read_text())
    assert contract.check_adapter(result.adapter, settings, "tgi") == []
    assert manifest["data_sha256"] == checkpoints.sha256_of(data)
    assert manifest["base"]["files"]["model.safetensors"] == checkpoints.sha256_of(
        base / "model.safetensors"
    )
    assert manifest["rows"]["train"] == {"kept": 24, "truncated": [], "dropped": []}
    assert manifest["versions"]["torch"]
    assert manifest["progress"]["seconds"] > 0
    assert len(manifest["template_sha256"]) == 64


def test_bf16_runs_save_bf16(base: Path, data: Path, tmp_path: Path) -> None:
    result, _ = run(base, data, tmp_path / "out", precision="bf16", epochs=1)
    assert result.adapter is not None

    kinds = {each.dtype for each in load_file(result.adapter / contract.WEIGHTS).values()}
    assert kinds == {torch.bfloat16}


def test_metrics_are_lines_of_json_with_what_a_run_page_draws(
    base: Path, data: Path, tmp_path: Path
) -> None:
    _, lines = run(base, data, tmp_path / "out")
    text = (tmp_path / "out/metrics.jsonl").read_text()
    written = [json.loads(line) for line in text.splitlines()]

    assert written == lines
    first = next(line for line in written if line["event"] == "train")
    assert first["step"] == 1
    assert all(first[name] > 0 for name in ("loss", "learning_rate", "tokens_per_s"))
    assert first["memory_bytes"] > 50e6


# What is refused


def test_what_the_server_could_not_load_is_refused_before_training(
    base: Path, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(contract.ContractBroken, match="DoRA"):
        run(base, data, tmp_path / "out", use_dora=True)


def test_an_adapter_that_learned_nothing_is_not_published(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: None)

    with pytest.raises(contract.ContractBroken, match="learned nothing"):
        run(base, data, tmp_path / "out", epochs=1)

    assert not any(contract.is_adapter_name(path.name) for path in (tmp_path / "out").iterdir())


def test_a_snapshot_without_usable_rows_is_refused(base: Path, tmp_path: Path) -> None:
    (tmp_path / "snapshot.jsonl").write_text(json.dumps({"messages": [], "split": "train"}))

    with pytest.raises(bases.CannotRun, match="No row is left to train on"):
        run(base, tmp_path / "snapshot.jsonl", tmp_path / "out")


def test_a_loss_that_is_no_number_ends_the_run(base: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(bases.CannotRun, match="no longer a number in step"):
        run(base, data, tmp_path / "out", learning_rate=1.0, alpha=4096, max_gradient_norm=1000)


def test_a_base_of_the_hub_is_recorded_with_its_commit(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, commit = tmp_path / "hub" / "models--acme--tiny", "0123456789" * 4
    shutil.copytree(base, kept / "snapshots" / commit)
    (kept / "refs").mkdir()
    (kept / "refs/main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    result, _ = run(Path("acme/tiny"), data, tmp_path / "out", epochs=1)

    assert result.adapter is not None
    manifest = json.loads((result.adapter / "manifest.json").read_text())
    assert (manifest["base"]["name"], manifest["base"]["revision"]) == ("acme/tiny", commit)
    assert json.loads((result.adapter / contract.CONFIG).read_text())["revision"] == commit
    with pytest.raises(bases.CannotRun, match="nor a model that can be reached"):
        run(Path("acme/other"), data, tmp_path / "other")


def test_rows_longer_than_the_base_reads_are_refused(
    base: Path, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(bases.CannotRun, match="at most 4,096 tokens"):
        run(base, data, tmp_path / "out", max_length=5000)


# Stopping, and going on


def test_a_stopped_run_goes_on_to_the_same_weights(base: Path, data: Path, tmp_path: Path) -> None:
    whole, _ = run(base, data, tmp_path / "whole", dropout=0.1)
    config = tiny.config(base, dropout=0.1)
    steps = []
    for stop_at in (3, 4, 11):
        stopped = recipe.train(
            config, data, tmp_path / "out", should_stop=_after(stop_at, tmp_path / "out")
        )
        steps.append(stopped.step)
        assert not stopped.finished
    gone_on = recipe.train(config, data, tmp_path / "out")

    assert steps == [3, 4, 11]
    assert weights(gone_on) == weights(whole)
    assert gone_on.loss == whole.loss


def _after(step: int, out: Path) -> Any:
    """Say stop once the metrics show a step."""
    shown = f'"step": {step}, "steps"'
    return lambda: shown in (out / "metrics.jsonl").read_text()


def test_a_damaged_newest_checkpoint_is_noticed_and_the_one_before_used(
    base: Path, data: Path, tmp_path: Path
) -> None:
    whole, _ = run(base, data, tmp_path / "whole")
    config, out = tiny.config(base), tmp_path / "out"
    recipe.train(config, data, out, should_stop=_after(9, out))
    newest = sorted(out.glob("step-*"))[-1]
    with (newest / "weights.safetensors").open("r+b") as file:
        file.seek(-5, os.SEEK_END)
        file.write(b"\xff")

    result, lines = run(base, data, out)

    assert {"damaged", "resume"} <= {line["event"] for line in lines}
    resumed = next(line["step"] for line in lines if line["event"] == "resume")
    assert resumed < 9
    assert weights(result) == weights(whole)


def test_a_finished_run_is_not_trained_again(base: Path, data: Path, tmp_path: Path) -> None:
    first, _ = run(base, data, tmp_path / "out", epochs=1)
    again, lines = run(base, data, tmp_path / "out", epochs=1)

    assert again == first
    assert lines == []


def test_a_process_that_comes_before_the_folder_is_made_goes_on(tmp_path: Path) -> None:
    # Of several the first makes it; under load another one was there before.
    assert recipe._finished(tmp_path / "out", {}) is None


def test_checkpoints_of_other_data_or_settings_are_not_gone_on_with(
    base: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    recipe.train(tiny.config(base), data, out, should_stop=_after(4, out))

    with pytest.raises(bases.CannotRun, match="learning_rate changed"):
        run(base, data, out, learning_rate=1e-3)
    tiny.write_snapshot(data, train=23)
    with pytest.raises(bases.CannotRun, match="data_sha256 changed"):
        run(base, data, out)


def test_sigterm_writes_a_checkpoint_and_the_same_command_goes_on(
    base: Path, data: Path, tmp_path: Path
) -> None:
    whole, _ = run(base, data, tmp_path / "whole", epochs=30, patience=0)
    settings = tiny.config(base, epochs=30, patience=0).to_dict()
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**settings, "data": data.name, "out": "out"}))
    command = [sys.executable, "-m", "finetune.recipe", str(file)]
    options: dict[str, Any] = {"cwd": tiny.ROOT, "stderr": subprocess.PIPE}

    first = subprocess.Popen(command, **options)
    reached = _after(5, tmp_path / "out")
    while not ((tmp_path / "out/metrics.jsonl").exists() and reached()):
        assert first.poll() is None, first.communicate()[1].decode()
        time.sleep(0.01)
    first.send_signal(signal.SIGTERM)
    _, said = first.communicate(timeout=60)
    assert first.returncode == recipe.STOPPED, said.decode()
    assert b"the same command goes on from there" in said

    done = subprocess.run(command, check=True, **options)
    name = whole.adapter.name  # type: ignore[union-attr]
    assert (tmp_path / "out" / name).is_dir(), done.stderr.decode()


def test_the_shell_command_says_what_is_wrong_in_a_sentence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"base_model": "x", "epochs": 0, "data": "d", "out": "o"}))

    assert recipe.main(file) == 2
    assert "“epochs” must be at least 1" in caplog.text


def test_killed_at_random_moments_it_ends_with_the_same_weights() -> None:
    # The long form has 20 kills: script/bench kills
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.kills", "--kills", "5"],
        cwd=tiny.ROOT,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()

    outcome = json.loads(done.stdout)
    assert outcome["identical"]
    assert (outcome["kills"], outcome["damaged"]) == (5, 1)
    assert outcome["while_writing"] > 0
    assert outcome["steps_lost"] > 0


@pytest.mark.parametrize("machines", [1, 2])
def test_two_processes_learn_what_one_does(
    machines: int, base: Path, data: Path, tmp_path: Path
) -> None:
    """With the shipped configurations; both “machines” are this one."""
    _, alone = run(base, data, tmp_path / "alone", epochs=1, batch_size=2, accumulation=2)
    config = tiny.config(base, epochs=1, batch_size=1, accumulation=2)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**config.to_dict(), "data": data.name, "out": "shared"}))
    shipped = (
        tiny.ROOT / f"finetune/accelerate/{'one-machine' if machines == 1 else 'two-machines'}.yaml"
    )
    port = ["--main_process_port", str(_free_port())]
    launch = ["accelerate.commands.launch", "--config_file", str(shipped), *port]
    launched = [
        subprocess.Popen(
            [sys.executable, "-m", *launch, "--num_processes", "2", "--machine_rank", str(rank),
             "-m", "finetune.recipe", str(file)],
            cwd=tiny.ROOT,
            stderr=subprocess.PIPE,
        )
        for rank in range(machines)
    ]  # fmt: skip
    said = [each.communicate(timeout=120)[1].decode() for each in launched]
    assert [each.returncode for each in launched] == [0] * machines, said

    text = (tmp_path / "shared/metrics.jsonl").read_text()
    shared = [json.loads(line) for line in text.splitlines()]
    assert losses(shared) == pytest.approx(losses(alone), abs=1e-4)
    assert len(list((tmp_path / "shared").glob("adapter-v1-*"))) == 1


def _free_port() -> int:
    """Give a port that no connection is given by itself in the long while until a launcher binds it.

    Systems hand out those from 32768 on to whoever connects anywhere.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@pytest.mark.parametrize("path", sorted((tiny.ROOT / "finetune/accelerate").glob("*.yaml")))
def test_accelerate_reads_the_shipped_configurations(path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    loaded = load_config_from_file(str(path))
    assert loaded.distributed_type == "MULTI_GPU"
    assert loaded.mixed_precision == "no"
