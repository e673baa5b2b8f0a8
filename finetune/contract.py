"""What an adapter must be so that its server loads it whole. No torch.

TGI skips every tensor that it does not know and answers an unknown adapter with the base model,
both without a word; vLLM refuses some adapters only when the first request comes. So an adapter is
checked before training, from the settings, and after saving, from its file. Each check gives
sentences for people; none means it fits. What does not fit can be served by our own model server.
"""

import json
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finetune.hyperparameters import LINEAR_LAYERS, Server, TrainingConfig

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"

ATTENTION_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj")
# Model types with adapter layers in TGI 3.3, and the layers that take an adapter there.
TGI_FAMILIES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("llama", "granite", "mistral", "qwen2", "gemma2", "gemma3_text"), LINEAR_LAYERS
    ),
    "starcoder2": (*ATTENTION_LAYERS, "c_fc", "c_proj"),
    "phi3": ("qkv_proj", "o_proj", "down_proj"),
}
# No adapter layers there, but the same names and shapes of layers.
_SAME_LAYERS = ("qwen3", "gemma", "olmo2", "smollm3")
# TGI pads other ranks and then scales with the padded one. 4 cards need at least 8 a card.
_TGI_RANKS = (16, 32, 64)
_TGI_BASE_QUANTIZATIONS = ("bitsandbytes",)
_VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
_VLLM_MAX_RANK = 64  # what our documentation starts it with: --max-lora-rank 64
_SERVER_NAMES: dict[Server, str] = {"tgi": "TGI", "vllm": "vLLM", "own": "Our model server"}

# Older PEFT, as in TGI, warns about the newer keys that PEFT writes today.
_SLIM_KEYS = (
    "peft_type",
    "task_type",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "r",
    "lora_alpha",
    "lora_dropout",
    "target_modules",
    "bias",
    "fan_in_fan_out",
    "init_lora_weights",
    "use_rslora",
    "use_dora",
    "modules_to_save",
    "layers_to_transform",
    "rank_pattern",
    "alpha_pattern",
)
_MUST_BE_UNSET = (
    "lora_bias",
    "layers_to_transform",
    "layers_pattern",
    "exclude_modules",
    "rank_pattern",
    "alpha_pattern",
    "modules_to_save",
    "trainable_token_indices",
    "layer_replication",
    "target_parameters",
)
_ADAPTER_NAME = re.compile(r"[a-z0-9-]+-v[1-9][0-9]*-[0-9a-f]{8}")


class ContractBroken(Exception):
    """The adapter could not be served as planned; `problems` has sentences."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def adapter_name(slug: str, version: int, sha256: str) -> str:
    """Name an adapter after its weights, so that a name is never used for others."""
    return f"{slug}-v{version}-{sha256[:8]}"


def is_adapter_name(name: str) -> bool:
    return _ADAPTER_NAME.fullmatch(name) is not None


def slim(config: Mapping[str, Any]) -> dict[str, Any]:
    """Keep of a PEFT configuration what every server reads, the sets in order."""
    keys = _SLIM_KEYS if config.get("peft_type") == "LORA" else tuple(config)
    kept = {key: config[key] for key in keys if config.get(key) not in (None, {}, [])}
    if "target_modules" in kept:
        kept["target_modules"] = sorted(kept["target_modules"])
    return kept


# What is known before training and after saving alike


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """An adapter that somebody wants to have served, over `shards` cards. `kind`: "lora", …"""

    kind: str
    rank: int
    rslora: bool
    dora: bool
    targets: tuple[str, ...]
    shards: int

    @classmethod
    def planned(cls, config: TrainingConfig) -> "_Wish":
        return cls(
            kind=config.adapter,
            rank=config.rank,
            rslora=config.use_rslora,
            dora=config.use_dora,
            targets=config.target_modules,
            shards=config.shards,
        )

    @classmethod
    def saved(cls, config: Mapping[str, Any], shards: int) -> "_Wish":
        """Read what PEFT wrote."""
        return cls(
            kind=str(config.get("peft_type")).lower().removesuffix("_tuning"),
            rank=int(config.get("r") or 0),
            rslora=bool(config.get("use_rslora")),
            dora=bool(config.get("use_dora")),
            targets=tuple(config.get("target_modules") or ()),
            shards=shards,
        )


def check_config(config: TrainingConfig, base: Mapping[str, Any]) -> list[str]:
    """Say before training what the chosen server could not load. `base`: its config.json."""
    return list(_unfit(_Wish.planned(config), base, config.server))


def _unfit(wish: _Wish, base: Mapping[str, Any], server: Server) -> Iterator[str]:
    yield from _layers_missing(wish, base)
    if server != "own":
        yield from _kind_unfit(wish, _SERVER_NAMES[server])
        yield from _shapes_unknown(wish, base)
    if server == "tgi":
        yield from _tgi_unfit(wish, base)
    if server == "vllm" and wish.kind == "lora":
        yield from _vllm_unfit(wish)


def _layers_missing(wish: _Wish, base: Mapping[str, Any]) -> Iterator[str]:
    known = TGI_FAMILIES.get(str(base.get("model_type")))
    if wish.kind != "lora" or known is None:
        return
    if unknown := sorted(set(wish.targets) - set(known)):
        yield (
            f"{', '.join(unknown)} would get no adapter: the layers of this base that take one are "
            f"{', '.join(known)}."
        )


def _kind_unfit(wish: _Wish, server: str) -> Iterator[str]:
    if wish.kind != "lora":
        yield (f"{server} cannot load a {wish.kind} adapter. Choose LoRA, or our own model server.")
    if wish.dora:
        yield (
            f"{server} cannot load DoRA. Choose plain LoRA, or our own model server; or merge the "
            "adapter into the base."
        )


def _shapes_unknown(wish: _Wish, base: Mapping[str, Any]) -> Iterator[str]:
    """Refuse before training what could not be checked after it."""
    if wish.kind != "lora":
        return
    try:
        _wanted(wish, base)
    except KeyError as error:
        yield f"The base model's configuration does not give {error}, so shapes stay unchecked."


def _tgi_unfit(wish: _Wish, base: Mapping[str, Any]) -> Iterator[str]:
    family = str(base.get("model_type"))
    if family not in TGI_FAMILIES:
        yield (
            f"TGI has no adapter layers for models of the type {family}. It has them for "
            f"{', '.join(TGI_FAMILIES)}."
        )
    method = (base.get("quantization_config") or {}).get("quant_method")
    if method and method not in _TGI_BASE_QUANTIZATIONS:
        yield f"TGI cannot put an adapter on a base that is quantised with {method}."
    ranks = [rank for rank in _TGI_RANKS if rank >= 8 * wish.shards]
    if wish.kind == "lora" and wish.rank not in ranks:
        words = f"one of {', '.join(map(str, ranks))}" if ranks else "served on fewer cards"
        yield (
            f"A rank of {wish.rank} is scaled wrongly by TGI on {wish.shards} card"
            f"{'s' if wish.shards > 1 else ''}. It must be {words}."
        )
        if wish.rslora:
            yield "With rank-stabilised LoRA the wrong scale would be the square root of that."


def _vllm_unfit(wish: _Wish) -> Iterator[str]:
    if wish.rank not in _VLLM_RANKS or wish.rank > _VLLM_MAX_RANK:
        ranks = [rank for rank in _VLLM_RANKS if rank <= _VLLM_MAX_RANK]
        yield (
            f"vLLM started with --max-lora-rank {_VLLM_MAX_RANK} takes ranks of "
            f"{', '.join(map(str, ranks))}, not {wish.rank}."
        )


# After saving


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor in a safetensors file; `start` and `end` are bytes after the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def check_adapter(
    folder: Path, base: Mapping[str, Any], server: Server, *, shards: int = 1
) -> list[str]:
    """Say what is wrong with a saved adapter for this base and server over `shards` cards.

    Reads no pickle. Our own server loads by PEFT whatever PEFT wrote, so for it only the tensors
    of bases whose layers are known by name are compared.
    """
    try:
        config = json.loads((folder / CONFIG).read_text())
        header, offset = read_header(folder / WEIGHTS)
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
        return [f"The adapter cannot be read: {error}"]
    wish = _Wish.saved(config, shards)
    problems = list(_other_weights(folder))
    problems += _bad_values(folder / WEIGHTS, header, offset)
    if wish.kind == "lora" and not wish.dora and (server != "own" or _is_known(base)):
        problems += _wrong_tensors(header, wish, base)
    problems += _unfit(wish, base, server)
    if server != "own" and wish.kind == "lora":
        problems += _settings_unfit(config, _SERVER_NAMES[server])
    return problems


def _is_known(base: Mapping[str, Any]) -> bool:
    return base.get("model_type") in (*TGI_FAMILIES, *_SAME_LAYERS)


def read_header(path: Path) -> tuple[dict[str, _Tensor], int]:
    """Read what a safetensors file holds, and where the data starts. Raises ValueError."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > path.stat().st_size:
            raise ValueError(f"{path.name} is cut off")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    tensors = {
        name: _Tensor(each["dtype"], tuple(each["shape"]), *each["data_offsets"])
        for name, each in header.items()
    }
    if 8 + length + max((each.end for each in tensors.values()), default=0) > path.stat().st_size:
        raise ValueError(f"{path.name} is cut off")
    return tensors, 8 + length


def _other_weights(folder: Path) -> Iterator[str]:
    others = {".safetensors", ".bin", ".pt", ".pth", ".pkl", ".gguf"}
    for path in sorted(folder.iterdir()):
        if path.suffix in others and path.name != WEIGHTS:
            yield f"{path.name} lies beside the adapter; servers would mix its weights in."


def _bad_values(path: Path, header: Mapping[str, _Tensor], offset: int) -> Iterator[str]:
    if not header:
        yield "The adapter has no weights."
    learned: dict[str, bool] = {}
    for name, tensor in header.items():
        values = _values(path, tensor, offset)
        if values is None:
            yield f"{name} has values of the type {tensor.dtype}; F32, F16 or BF16 can be served."
        elif not values.size:
            yield f"{name} is empty."
        elif not np.isfinite(values).all():
            yield f"{name} has values that are not numbers, or infinite."
        elif found := re.search(r"\.(\w+)\.lora_B\.", name):
            target = found.group(1)
            learned[target] = learned.get(target, False) or bool(values.any())
    for target in sorted(name for name, any_learned in learned.items() if not any_learned):
        yield f"{target} learned nothing: its weights are all zero, which is the base model."


def _values(path: Path, tensor: _Tensor, offset: int) -> np.ndarray | None:
    kind = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}.get(tensor.dtype)
    if kind is None:
        return None
    count = (tensor.end - tensor.start) // np.dtype(kind).itemsize
    values = np.fromfile(path, dtype=kind, count=count, offset=offset + tensor.start)
    # A bf16 number is the upper half of an fp32 one.
    return (values.astype(np.uint32) << 16).view(np.float32) if kind is np.uint16 else values


def _wrong_tensors(
    header: Mapping[str, _Tensor], wish: _Wish, base: Mapping[str, Any]
) -> Iterator[str]:
    """Compare names and shapes with what the targets need on every layer of the base."""
    try:
        wanted = _wanted(wish, base)
    except KeyError:
        return  # which `_unfit` says where it matters
    if unknown := sorted(set(header) - set(wanted)):
        yield f"Servers would skip {_some(unknown)} without a word."
    if missing := sorted(set(wanted) - set(header)):
        yield f"{_some(missing)} is missing; servers would leave out that layer everywhere."
    for name in sorted(set(wanted) & set(header)):
        if header[name].shape != wanted[name]:
            yield f"{name} has the shape {header[name].shape}, the base needs {wanted[name]}."


def _some(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _wanted(wish: _Wish, base: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Give name and shape of each tensor: A is (rank, in), B is (out, rank). Raises KeyError."""
    shapes = _layer_shapes(base)
    wanted = {}
    for layer in range(base["num_hidden_layers"]):
        for target in wish.targets:
            block, inputs, outputs = shapes[target]
            stem = f"base_model.model.model.layers.{layer}.{block}.{target}"
            wanted[f"{stem}.lora_A.weight"] = (wish.rank, inputs)
            wanted[f"{stem}.lora_B.weight"] = (outputs, wish.rank)
    return wanted


def _layer_shapes(base: Mapping[str, Any]) -> dict[str, tuple[str, int, int]]:
    """Give block, width in and width out of each linear layer of a decoder."""
    hidden, heads = base["hidden_size"], base["num_attention_heads"]
    width = base.get("head_dim") or hidden // heads
    queries, keys = heads * width, (base.get("num_key_value_heads") or heads) * width
    inner = base["intermediate_size"]
    return {
        "q_proj": ("self_attn", hidden, queries),
        "k_proj": ("self_attn", hidden, keys),
        "v_proj": ("self_attn", hidden, keys),
        "o_proj": ("self_attn", queries, hidden),
        "qkv_proj": ("self_attn", hidden, queries + 2 * keys),
        "gate_proj": ("mlp", hidden, inner),
        "up_proj": ("mlp", hidden, inner),
        "gate_up_proj": ("mlp", hidden, 2 * inner),
        "down_proj": ("mlp", inner, hidden),
        "c_fc": ("mlp", hidden, inner),
        "c_proj": ("mlp", inner, hidden),
    }


def _settings_unfit(config: Mapping[str, Any], server: str) -> Iterator[str]:
    if config.get("bias", "none") != "none":
        yield f"{server} would not load the biases."
    if config.get("init_lora_weights", True) not in (True, "gaussian"):
        yield f"{server} needs an adapter that changes nothing at its start (init_lora_weights)."
    for key in _MUST_BE_UNSET:
        if config.get(key):
            yield f"{server} does not know {key}; it must be unset."
