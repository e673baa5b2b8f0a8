"""Load the base model and its tokenizer. Safetensors only, and no code from a model's folder."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging

from workers.serving.engine import Engine, Vocabulary
from workers.serving.generation import CannotLoad, Limits


def load_base(name: str, device: str, dtype: str) -> tuple[PreTrainedModel, Any]:
    """Load a folder or a model of the hub; returns (model in eval mode, tokenizer).

    device "auto": a GPU if there is one. dtype "auto": bfloat16 there, float32 on the processor.
    Raises CannotLoad.
    """
    logging.disable_progress_bar()
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if dtype == "auto":
        dtype = "float32" if device == "cpu" else "bfloat16"
    if name.startswith(("/", ".")) and not Path(name).is_dir():
        raise CannotLoad(f"There is no folder “{name}”.")
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            name,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError) as error:
        raise CannotLoad(f"The base model “{name}” cannot be loaded: {error}") from error
    if not tokenizer.is_fast:
        raise CannotLoad(f"The base model “{name}” has no tokenizer.json.")
    # Both would change what a client sent.
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    torch.nn.Module.to(model, device)
    return model.eval().requires_grad_(False), tokenizer


def context_length(model: PreTrainedModel, wished: int) -> int:
    """Return how many tokens prompt and answer may have together."""
    return min(wished, getattr(model.config, "max_position_embeddings", wished) or wished)


def make_engine(model: PreTrainedModel, tokenizer: Any, limits: Limits) -> Engine:
    configured = model.generation_config.eos_token_id
    listed = configured if isinstance(configured, list) else [configured]
    ends = frozenset(id_ for id_ in (*listed, tokenizer.eos_token_id) if id_ is not None)
    special = frozenset(tokenizer.all_special_ids) | ends
    return Engine(model, Vocabulary(tokenizer.backend_tokenizer, ends, special), limits)


def use_threads(count: int) -> None:
    torch.set_num_threads(count)
