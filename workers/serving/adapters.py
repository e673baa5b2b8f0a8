"""PEFT adapters on one base model: loading, unloading, and which rows they apply to.

Plain LoRA adapters share a batch with each other and the base: their matrices are stacked a layer,
and each row picks its own. PEFT's own way, adapter_names, takes a turn an adapter and layer (eight
rows with three adapters gained 2.7 times over one at a time, 3.2 times by the stacks in the same
minutes), and leaves its hooks on the model when that fails (huggingface/peft#3475). Variants such
as DoRA get batches of their own, computed by PEFT. Learned prompts and prefixes are keys and values
before the prompt; once these are computed, the row is one of the base model.

B rows, T tokens, N adapters, R ranks.
"""

import itertools
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftConfig, PeftModel, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.utils import AuxiliaryTrainingWrapper
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import DynamicCache, PreTrainedModel

from workers.serving.generation import CannotLoad

logger = logging.getLogger(__name__)

WEIGHTS = "adapter_model.safetensors"
KEPT_BYTES = 256 * 2**20  # of matrices picked for the rows of a batch, from one token to the next
# Variants of LoRA that cannot run beside others on one model, not even in turns.
UNSERVED = ("alora_invocation_tokens", "arrow_config", "target_parameters")
INITIALIZATIONS = (True, False, "gaussian", "orthogonal")  # which leave the base as it is
PROMPT_TYPES = ("PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING")


@dataclass(frozen=True, slots=True)
class Adapter:
    """`key` is what PEFT calls it: used once, and free of the dots that its names may not have.

    `group` names the batches its rows may join; "" is the one that most share.
    """

    name: str
    folder: Path
    key: str
    group: str
    kind: Literal["lora", "prompt"]


class Adapters:
    """Belongs to the model's thread, except `read`, which touches no model."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self._by_name: dict[str, Adapter] = {}
        self._known: list[Adapter] = []  # with those that only running rows still use
        self._lora: PeftModel | None = None
        self._prompts: dict[str, PeftModel] = {}
        self._selected: str | None = None
        self._rows: _Rows | None = None
        self._last_rows: _Rows | None = None
        self._stacks: list[_Stack] = []
        self._numbers_by_key: dict[str, int] = {}
        self._hooks: list[RemovableHandle] = []
        self._counter = itertools.count(1)

    @staticmethod
    def read(folder: Path) -> tuple[PeftConfig, dict[str, Tensor]]:
        """Read configuration and weights. Raises CannotLoad; never opens a pickle."""
        if not (folder / WEIGHTS).is_file():
            raise CannotLoad(f"There is no {WEIGHTS} in “{folder}”.")
        try:
            described = json.loads((folder / "adapter_config.json").read_text())
            _check(described)
            config = PeftConfig.from_pretrained(str(folder))
            weights = load_file(folder / WEIGHTS)
        except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
            raise CannotLoad(f"The adapter in “{folder}” cannot be read: {error}") from error
        config.inference_mode = True
        if not config.is_prompt_learning:
            # An adapter that is put on only in part must do nothing.
            config.init_lora_weights = True
        return config, weights

    def get(self, name: str) -> Adapter | None:
        return self._by_name.get(name)

    def add(
        self, name: str, folder: Path, config: PeftConfig, weights: dict[str, Tensor]
    ) -> Adapter:
        """Put an adapter that was read onto the model. Raises CannotLoad, changing nothing."""
        if name in self._by_name:
            raise CannotLoad(f"The adapter “{name}” is loaded already; names are used once.")
        key = f"a{next(self._counter)}"
        try:
            model = self._wrap(key, config)
            result = set_peft_model_state_dict(model, weights, adapter_name=key)
            _check_keys(result, key, config.is_prompt_learning)
            adapter = self._described(name, folder, key)
            self._known.append(adapter)
            self._after_change()
            self._try(adapter)
        except (ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
            self._remove(key)
            raise CannotLoad(f"The adapter does not fit the base model: {error}") from error
        self._by_name[name] = adapter
        return adapter

    def _described(self, name: str, folder: Path, key: str) -> Adapter:
        if key in self._prompts:
            return Adapter(name, folder, key, "", "prompt")
        layers = [
            m for m in self.model.modules() if isinstance(m, LoraLayer | AuxiliaryTrainingWrapper)
        ]
        shares = all(_is_plain(layer, key) for layer in layers)
        return Adapter(name, folder, key, "" if shares else key, "lora")

    def _try(self, adapter: Adapter) -> None:
        """Compute a token for two rows; raises ValueError or RuntimeError where that fails.

        Better now than under requests, which would fail with it.
        """
        ids = torch.zeros((2, 1), dtype=torch.long, device=self.model.device)
        with self.applied(adapter.group, [adapter, adapter]):
            logits = self.model(input_ids=ids, use_cache=False).logits
        if not logits.isfinite().all():
            raise ValueError("it gives no finite numbers")

    def loaded(self) -> list[Adapter]:
        """List what is loaded; may be called from any thread."""
        return list(self._by_name.values())

    def forget(self, name: str) -> Adapter | None:
        """Take a name away; the weights stay until `free`."""
        return self._by_name.pop(name, None)

    def free(self, adapter: Adapter) -> None:
        self._remove(adapter.key)

    def _wrap(self, key: str, config: PeftConfig) -> PeftModel:
        if config.is_prompt_learning:
            self._prompts[key] = PeftModel(self.model, config, adapter_name=key)
            return self._prompts[key].to(self.model.device).eval()
        if self._lora is None:
            self._lora = PeftModel(
                self.model, config, adapter_name=key, autocast_adapter_dtype=False
            )
        else:
            self._lora.add_adapter(key, config, autocast_adapter_dtype=False)
        return self._lora

    def _remove(self, key: str) -> None:
        """Take an adapter off the model, also one that came there only in part."""
        self._known = [adapter for adapter in self._known if adapter.key != key]
        self._prompts.pop(key, None)
        if self._lora is None or set(self._lora.peft_config) == {key}:
            self._lora = None
            _strip(self.model)
        elif key in self._lora.peft_config:
            self._lora.delete_adapter(key)
        self._after_change()

    def _after_change(self) -> None:
        self.model.eval()
        self.model.requires_grad_(False)
        self._selected = None
        self._last_rows = None
        for hook in self._hooks:
            hook.remove()
        keys = [a.key for a in self._known if a.kind == "lora" and not a.group]
        self._numbers_by_key = {key: number for number, key in enumerate(keys, start=1)}
        layers = [
            layer
            for layer in self.model.modules()
            if isinstance(layer, LoraLayer) and any(key in layer.lora_A for key in keys)
        ]
        self._stacks = [_Stack(layer, keys) for layer in layers]
        self._hooks = [
            layer.register_forward_hook(partial(self._add_rows, stack))
            for layer, stack in zip(layers, self._stacks, strict=True)
        ]

    @contextmanager
    def applied(self, group: str, adapters: Sequence[Adapter | None]) -> Iterator[None]:
        """Let each row of a batch go through its adapter while this lasts."""
        self._select(group)
        if group:
            yield
            return
        numbers = [
            self._numbers_by_key.get(adapter.key, 0) if adapter else 0 for adapter in adapters
        ]
        self._rows = self._rows_of(numbers) if any(numbers) else None
        try:
            yield
        finally:
            self._rows = None

    def _rows_of(self, numbers: list[int]) -> "_Rows":
        """Return the same rows as long as the batch stays the same."""
        if self._last_rows is None or self._last_rows.numbers != numbers:
            is_small = len(numbers) * sum(s.row_bytes for s in self._stacks) < KEPT_BYTES
            index = torch.tensor(numbers, device=self.model.device)
            self._last_rows = _Rows(numbers, index, {} if is_small else None)
        return self._last_rows

    def _select(self, group: str) -> None:
        """Give PEFT one adapter to compute, or none."""
        if self._lora is None or self._selected == group:
            return
        tuner: Any = self._lora.base_model
        if group:
            tuner.enable_adapter_layers()
            tuner.set_adapter(group, inference_mode=True)
        else:
            tuner.disable_adapter_layers()
        self._selected = group

    def _add_rows(self, stack: "_Stack", _: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        """Add to a layer's output what the rows' adapters do; runs after each such layer."""
        return output if self._rows is None else output + stack.delta(inputs[0], self._rows)

    def prefix(self, adapter: Adapter | None) -> Tensor | DynamicCache | None:
        """Return what a learned prompt puts before a row.

        (1, P, D) embeddings, or P positions of keys and values; None for all other adapters.
        """
        if adapter is None or adapter.kind != "prompt":
            return None
        return self._prompts[adapter.key].get_prompt(batch_size=1)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Which adapter each row of a batch has. `kept`: what the stacks picked for these rows."""

    numbers: list[int]
    index: Tensor  # (B,)
    kept: "dict[_Stack, tuple[Tensor, Tensor]] | None"


class _Stack:
    """The LoRA matrices of one layer; number 0 is the base, which adds nothing."""

    def __init__(self, layer: Any, keys: Sequence[str]) -> None:
        pairs = [
            (layer.lora_A[key].weight, layer.lora_B[key].weight * layer.scaling[key])
            if key in layer.lora_A
            else None
            for key in keys
        ]
        first = next(pair for pair in pairs if pair)
        rank = max(len(pair[0]) for pair in pairs if pair)
        inputs, outputs = first[0].shape[1], first[1].shape[0]
        self._down = first[0].new_zeros((len(keys) + 1, rank, inputs))  # (N + 1, R, inputs)
        self._up = first[0].new_zeros((len(keys) + 1, outputs, rank))  # (N + 1, outputs, R)
        for number, pair in enumerate(pairs, start=1):
            if pair:
                self._down[number, : len(pair[0])] = pair[0]
                self._up[number, :, : len(pair[0])] = pair[1]

    @property
    def row_bytes(self) -> int:
        return (self._down[0].numel() + self._up[0].numel()) * self._down.element_size()

    def delta(self, inputs: Tensor, rows: _Rows) -> Tensor:
        """inputs: (B, T, inputs). Returns (B, T, outputs)."""
        down, up = self._picked(rows)
        low = torch.bmm(inputs.to(down.dtype), down.mT)
        return torch.bmm(low, up.mT).to(inputs.dtype)

    def _picked(self, rows: _Rows) -> tuple[Tensor, Tensor]:
        """Pick each row's matrices: (B, R, inputs) and (B, outputs, R)."""
        if rows.kept is None:
            return self._down[rows.index], self._up[rows.index]
        if self not in rows.kept:
            rows.kept[self] = self._down[rows.index], self._up[rows.index]
        return rows.kept[self]


def _check(described: dict[str, Any]) -> None:
    """Refuse what would change the base model for everybody, or what is not known here."""
    kind = described["peft_type"]
    if kind != "LORA" and kind not in PROMPT_TYPES:
        raise CannotLoad(f"Adapters of the type {kind} are not served here.")
    if variants := [name for name in UNSERVED if described.get(name)]:
        raise CannotLoad(f"Adapters with {variants[0]} are not served here.")
    if described.get("init_lora_weights", True) not in INITIALIZATIONS:
        raise CannotLoad(
            "The adapter was started by changing the base model"
            f" ({described['init_lora_weights']}); convert it to a plain LoRA first."
        )


def _is_plain(layer: nn.Module, key: str) -> bool:
    """Say whether two matrices are all that the adapter does to this layer."""
    if isinstance(layer, AuxiliaryTrainingWrapper):
        return key not in layer._adapters
    lora: Any = layer
    is_variant = key in lora.lora_embedding_A or key in lora.lora_variant
    return not is_variant and not lora.lora_bias.get(key, False)


def _strip(model: nn.Module) -> None:
    """Give a model its own layers back."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, LoraLayer | AuxiliaryTrainingWrapper):
            own: Any = layer
            parent, _, place = name.rpartition(".")
            original = (
                own.original_module
                if isinstance(layer, AuxiliaryTrainingWrapper)
                else own.base_layer
            )
            setattr(model.get_submodule(parent), place, original)


def _check_keys(result: Any, key: str, is_prompt: bool) -> None:
    """Refuse weights that do not all have their place, and places that stayed empty."""
    if is_prompt:
        return  # PEFT puts these where the keys do not tell, and fails where they are missing
    missing = [name for name in result.missing_keys if f".{key}." in f"{name}."]
    if wrong := [*result.unexpected_keys, *missing]:
        raise ValueError(f"{len(wrong)} of its weights have no place, such as {wrong[0]}")
