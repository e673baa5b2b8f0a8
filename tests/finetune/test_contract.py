"""Adapters that break one rule each, as PEFT or another trainer would write them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from finetune import contract
from finetune.hyperparameters import TrainingConfig

BASE = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
WIDTHS = {"q_proj": (64, 64), "v_proj": (64, 32)}


def before(base: dict[str, Any] = BASE, **settings: Any) -> str:
    return " ".join(contract.check_config(TrainingConfig(base_model="base", **settings), base))


def test_the_defaults_can_be_served_everywhere() -> None:
    assert [before(server=server) for server in ("tgi", "vllm", "own")] == ["", "", ""]


def test_ranks_that_tgi_scales_wrongly_are_refused_by_the_number_of_cards() -> None:
    assert "It must be one of 16, 32, 64." in before(rank=8)
    assert before(rank=16, shards=2) == ""
    assert "It must be one of 32, 64." in before(rank=16, shards=4)
    assert before(rank=8, server="vllm") == before(rank=24, server="own") == ""
    assert "not 24" in before(rank=24, server="vllm")
    assert "not 128" in before(rank=128, server="vllm")


def test_dora_and_prompts_need_our_own_server() -> None:
    for server in ("tgi", "vllm"):
        assert "cannot load DoRA" in before(use_dora=True, server=server)
        assert "a prompt adapter" in before(adapter="prompt", packing=False, server=server)
    assert before(use_dora=True, server="own") == ""
    assert before(adapter="prefix", packing=False, server="own") == ""


def test_tgi_takes_the_families_that_have_adapter_layers() -> None:
    assert "of the type qwen3" in before({**BASE, "model_type": "qwen3"})
    assert before({**BASE, "model_type": "qwen3"}, server="vllm") == ""
    assert before({**BASE, "model_type": "qwen2"}) == ""


def test_layers_that_the_base_does_not_have_are_named() -> None:
    phi = {**BASE, "model_type": "phi3"}

    assert "q_proj" in before(phi)
    assert before(phi, target_modules=("qkv_proj", "o_proj", "down_proj")) == ""
    assert "gate_up_proj" in before(phi, target_modules=("gate_up_proj",))


def test_a_quantised_base_is_taken_only_from_bitsandbytes() -> None:
    assert "gptq" in before({**BASE, "quantization_config": {"quant_method": "gptq"}})
    assert before({**BASE, "quantization_config": {"quant_method": "bitsandbytes"}}) == ""


def tensors(rank: int = 16) -> dict[str, np.ndarray]:
    made = {}
    for layer in range(BASE["num_hidden_layers"]):  # type: ignore[call-overload]
        for target, (inputs, outputs) in WIDTHS.items():
            stem = f"base_model.model.model.layers.{layer}.self_attn.{target}"
            made[f"{stem}.lora_A.weight"] = np.ones((rank, inputs), np.float32)
            made[f"{stem}.lora_B.weight"] = np.ones((outputs, rank), np.float32)
    return made


CONFIG = {"peft_type": "LORA", "r": 16, "lora_alpha": 32, "target_modules": list(WIDTHS)}
Q = "base_model.model.model.layers.1.self_attn.q_proj"


def after(
    folder: Path,
    weights: dict[str, np.ndarray],
    server: Any = "tgi",
    *,
    base: dict[str, Any] = BASE,
    shards: int = 1,
    **config: Any,
) -> str:
    save_file(weights, folder / contract.WEIGHTS)
    (folder / contract.CONFIG).write_text(json.dumps({**CONFIG, **config}))
    return " ".join(contract.check_adapter(folder, base, server, shards=shards))


def test_a_whole_adapter_passes(tmp_path: Path) -> None:
    assert after(tmp_path, tensors()) == ""


def test_a_layer_left_out_is_noticed(tmp_path: Path) -> None:
    weights = tensors()
    del weights[f"{Q}.lora_B.weight"]

    assert f"{Q}.lora_B.weight is missing" in after(tmp_path, weights)


def test_tensors_that_servers_would_skip_are_noticed(tmp_path: Path) -> None:
    extra = {f"{Q}.lora_magnitude_vector": np.ones(64, np.float32)}

    assert "would skip" in after(tmp_path, {**tensors(), **extra})


def test_a_wrong_shape_is_noticed(tmp_path: Path) -> None:
    wrong = {f"{Q}.lora_A.weight": np.ones((8, 64), np.float32)}

    assert "the base needs (16, 64)" in after(tmp_path, {**tensors(), **wrong})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_noticed(tmp_path: Path, value: float) -> None:
    weights = tensors()
    weights[f"{Q}.lora_A.weight"][3, 3] = value

    assert "not numbers, or infinite" in after(tmp_path, weights)


def test_values_of_bf16_are_read_too(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_tensors

    weights = {name: torch.tensor(each).bfloat16() for name, each in tensors().items()}
    (tmp_path / contract.CONFIG).write_text(json.dumps(CONFIG))
    save_tensors(weights, tmp_path / contract.WEIGHTS)
    assert contract.check_adapter(tmp_path, BASE, "tgi") == []

    weights[f"{Q}.lora_A.weight"][0, 0] = float("nan")
    save_tensors(weights, tmp_path / contract.WEIGHTS)
    assert "not numbers" in contract.check_adapter(tmp_path, BASE, "tgi")[0]


def test_a_target_that_learned_nothing_is_noticed(tmp_path: Path) -> None:
    weights = tensors()
    for name, each in weights.items():
        if "v_proj.lora_B" in name:
            each[:] = 0

    assert after(tmp_path, weights).startswith("v_proj learned nothing")


def test_an_empty_tensor_and_an_unknown_type_are_noticed(tmp_path: Path) -> None:
    empty = {f"{Q}.lora_A.weight": np.ones((0, 64), np.float32)}
    whole_numbers = {f"{Q}.lora_A.weight": np.ones((16, 64), np.int64)}

    assert "is empty" in after(tmp_path, {**tensors(), **empty})
    assert "type I64" in after(tmp_path, {**tensors(), **whole_numbers})
    assert "no weights" in after(tmp_path, {})


def test_another_weight_file_beside_it_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "optimizer.pt").write_bytes(b"")

    assert "optimizer.pt lies beside" in after(tmp_path, tensors())


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"bias": "all"}, "biases"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern"),
        ({"lora_bias": True}, "lora_bias"),
        ({"init_lora_weights": "pissa"}, "changes nothing at its start"),
        ({"peft_type": "PREFIX_TUNING"}, "cannot load a prefix adapter"),
    ],
)
def test_settings_that_servers_ignore_or_refuse_are_noticed(
    tmp_path: Path, config: dict[str, Any], words: str
) -> None:
    assert words in after(tmp_path, tensors(), **config)
    assert after(tmp_path, tensors(), server="own", **config) == ""


@pytest.mark.parametrize("server", ["tgi", "vllm"])
def test_what_is_refused_before_training_is_refused_after_saving(
    tmp_path: Path, server: Any
) -> None:
    base = {**BASE, "model_type": "qwen3", "quantization_config": {"quant_method": "gptq"}}
    for rank, rslora, shards in ((12, True, 1), (12, False, 8), (16, False, 4), (16, False, 1)):
        targets = tuple(WIDTHS)
        config = {"rank": rank, "use_rslora": rslora, "shards": shards, "target_modules": targets}
        said = before(base, server=server, **config)
        assert said == after(
            tmp_path, tensors(rank), server, base=base, shards=shards, r=rank, use_rslora=rslora
        )
        assert bool(said) == (server == "tgi" or rank == 12)
        assert after(tmp_path, tensors(rank), "own", base=base, r=rank) == ""


def test_bases_whose_layers_nobody_knows_are_left_to_peft_or_refused_before_training(
    tmp_path: Path,
) -> None:
    base = {"model_type": "gpt2", "n_embd": 64}
    assert "does not give 'hidden_size'" in before(base, server="vllm")
    assert before(base, server="own") == after(tmp_path, tensors(), "own", base=base) == ""


@pytest.mark.parametrize("kept", [0, 4, 100, 5000])
def test_a_file_cut_off_anywhere_is_noticed(tmp_path: Path, kept: int) -> None:
    after(tmp_path, tensors())
    path = tmp_path / contract.WEIGHTS
    path.write_bytes(path.read_bytes()[:kept])

    assert contract.check_adapter(tmp_path, BASE, "tgi")[0].startswith("The adapter cannot be read")


def test_the_slim_configuration_keeps_what_older_readers_know() -> None:
    config = {**CONFIG, "target_modules": {"v_proj", "q_proj"}, "corda_config": None, "qalora": 1}

    assert contract.slim({**config, "rank_pattern": {}}) == {
        **CONFIG,
        "target_modules": ["q_proj", "v_proj"],
    }


def test_an_adapter_is_named_after_its_weights() -> None:
    name = contract.adapter_name("field-notes", 3, "0123456789abcdef")

    assert name == "field-notes-v3-01234567"
    assert contract.is_adapter_name(name)
    assert not any(map(contract.is_adapter_name, ["tgi", "a=b-v1-01234567", "a-v0-01234567"]))
