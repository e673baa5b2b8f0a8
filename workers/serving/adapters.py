"""PEFT adapters on one base model: loading, unloading, and which rows they apply to.

LoRA adapters share a batch: PEFT computes each row with its own. What PEFT cannot mix (DoRA and
other variants) gets batches of its own. Learned prompts and prefixes are keys and values before the
prompt; once these are computed, the row is one of the base model.
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

from peft import PeftConfig, PeftModel, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.utils import AuxiliaryTrainingWrapper
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from workers.serving.generation import CannotLoad

logger = logging.getLogger(__name__)

WEIGHTS = "adapter_model.safetensors"
NO_ADAPTER = "__base__"  # PEFT's word for it
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
        self._lora: PeftModel | None = None
        self._prompts: dict[str, PeftModel] = {}
        self._layers: list[nn.Module] = []
        self._numbers = itertools.count(1)

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
        return config, weights

    def get(self, name: str) -> Adapter | None:
        return self._by_name.get(name)

    def add(
        self, name: str, folder: Path, config: PeftConfig, weights: dict[str, Tensor]
    ) -> Adapter:
        """Put an adapter that was read onto the model. Raises CannotLoad, changing nothing."""
        if name in self._by_name:
            raise CannotLoad(f"The adapter “{name}” is loaded already; names are used once.")
        key = f"a{next(self._numbers)}"
        is_prompt = config.is_prompt_learning
        group = "" if is_prompt or _shares_batches(config) else key
        adapter = Adapter(name, folder, key, group, "prompt" if is_prompt else "lora")
        try:
            model = self._wrap(adapter, config)
            result = set_peft_model_state_dict(model, weights, adapter_name=key)
            _check_keys(result, key, is_prompt)
        except CannotLoad:
            self._remove(adapter)
            raise
        except (ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
            self._remove(adapter)
            raise CannotLoad(f"The adapter does not fit the base model: {error}") from error
        self._by_name[name] = adapter
        self._after_change()
        return adapter

    def loaded(self) -> list[Adapter]:
        """List what is loaded; may be called from any thread."""
        return list(self._by_name.values())

    def forget(self, name: str) -> Adapter | None:
        """Take a name away; the weights stay until `free`."""
        return self._by_name.pop(name, None)

    def free(self, adapter: Adapter) -> None:
        self._remove(adapter)
        self._after_change()

    def _wrap(self, adapter: Adapter, config: PeftConfig) -> PeftModel:
        if adapter.kind == "prompt":
            self._prompts[adapter.key] = PeftModel(self.model, config, adapter_name=adapter.key)
            return self._prompts[adapter.key].to(self.model.device).eval()
        if self._lora is None:
            self._lora = PeftModel(
                self.model, config, adapter_name=adapter.key, autocast_adapter_dtype=False
            )
        else:
            self._lora.add_adapter(adapter.key, config, autocast_adapter_dtype=False)
        return self._lora

    def _remove(self, adapter: Adapter) -> None:
        self._prompts.pop(adapter.key, None)
        if self._lora is None or adapter.key not in self._lora.peft_config:
            return
        if len(self._lora.peft_config) == 1:
            self._lora.unload()  # gives the model its own layers back
            self._lora = None
        else:
            self._lora.delete_adapter(adapter.key)

    def _after_change(self) -> None:
        self.model.eval()
        self.model.requires_grad_(False)
        self._layers = [
            layer
            for layer in self.model.modules()
            if isinstance(layer, LoraLayer | AuxiliaryTrainingWrapper)
        ]

    @contextmanager
    def applied(self, group: str, adapters: Sequence[Adapter | None]) -> Iterator[None]:
        """Let each row of a batch go through its adapter while this lasts.

        PEFT's own way to do so leaves its hooks on the model when the model fails, and every
        later call fails then (huggingface/peft#3475); so the hooks are set, and removed, here.
        """
        if group:
            assert self._lora is not None
            self._lora.set_adapter(group, inference_mode=True)
            yield
            return
        names = [a.key if a and a.kind == "lora" else NO_ADAPTER for a in adapters]
        # Adapters with whole layers of their own are served alone, so here these are the base's.
        base_only = [NO_ADAPTER] * len(names)
        hooks = [
            layer.register_forward_pre_hook(
                partial(_name_rows, names if isinstance(layer, LoraLayer) else base_only),
                with_kwargs=True,
            )
            for layer in self._layers
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def prefix(self, adapter: Adapter | None) -> Tensor | DynamicCache | None:
        """Return what a learned prompt puts before a row.

        (1, P, D) embeddings, or P positions of keys and values; None for all other adapters.
        """
        if adapter is None or adapter.kind != "prompt":
            return None
        return self._prompts[adapter.key].get_prompt(batch_size=1)


def _name_rows(names: list[str], module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
    return args, {**kwargs, "adapter_names": names}


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


def _shares_batches(config: PeftConfig) -> bool:
    alone = ("use_dora", "use_bdlora", "trainable_token_indices", "modules_to_save")
    described = config.to_dict()
    return not any(described.get(name) for name in alone)


def _check_keys(result: Any, key: str, is_prompt: bool) -> None:
    """Refuse weights that do not all have their place, and places that stayed empty."""
    if is_prompt:
        return  # PEFT puts these where the keys do not tell, and fails where they are missing
    missing = [name for name in result.missing_keys if f".{key}." in f"{name}."]
    if wrong := [*result.unexpected_keys, *missing]:
        raise CannotLoad(
            f"{len(wrong)} of the adapter's weights do not fit the base model, such as {wrong[0]}."
        )
