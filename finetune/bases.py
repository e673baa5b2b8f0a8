"""Base models: found, loaded to train or to answer, and given an adapter. No Django."""

import importlib.metadata
import platform
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from peft import (
    LoraConfig,
    PeftConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptTuningConfig,
    TaskType,
    get_peft_model,
)
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from finetune import chat_templates
from finetune.hyperparameters import TrainingConfig

TOO_LITTLE_MEMORY = (
    "The memory of {device} does not suffice. Try gradient checkpointing first, then fewer rows at "
    "once with more batches a step, a shorter max_length, or QLoRA."
)
SPREAD = "The base did not fit on the card and was spread over card and processor."
IN_4_BIT = "The base did not fit on the card and answered in 4 bit, as it was trained."
_COMMIT = re.compile("[0-9a-f]{40}")


class CannotRun(Exception):
    """A model cannot be loaded or trained as it was told; a sentence for the person who asked."""


def find(config: TrainingConfig) -> Path:
    """Find the base model: a folder, or a copy from the hub with safetensors only."""
    folder = Path(config.base_model)
    if not folder.is_dir():
        try:
            wanted = ["*.safetensors", "*.json", "*.jinja", "tokenizer.model"]
            folder = Path(
                huggingface_hub.snapshot_download(
                    config.base_model, revision=config.revision or None, allow_patterns=wanted
                )
            )
        except (OSError, ValueError) as error:
            raise CannotRun(
                f"{config.base_model} is neither a folder nor a model that can be reached: {error}"
            ) from error
        if not commit_of(folder):
            raise CannotRun(
                f"{config.base_model} has no exact revision. Name a commit, or a folder with its files."
            )
    if not any(folder.glob("*.safetensors")):
        raise CannotRun(f"{config.base_model} has no weights in the safetensors format.")
    return folder


def commit_of(base: Path) -> str:
    """Give the commit that a copy from the hub is of, "" for any other folder.

    A branch such as “main” names another base tomorrow; the hub's client names its folders so.
    """
    return base.name if _COMMIT.fullmatch(base.name) else ""


def load_tokenizer(base: Path) -> PreTrainedTokenizerBase:
    """Load the base's own tokenizer. Raises CannotRun without a chat template.

    Nothing is changed but the day that some templates write into the prompt: it is always the same,
    so that a run that goes on tomorrow learns from the same tokens.
    """
    with fitting(base):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            base, trust_remote_code=False
        )
    if not tokenizer.chat_template:
        raise CannotRun(
            f"{base.name} has no chat template, so nobody could ask it questions. Take the "
            "instruction-tuned form of this model."
        )
    tokenizer.chat_template = chat_templates.on_one_day(tokenizer.chat_template)
    return tokenizer


def device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()


@contextmanager
def enough_memory() -> Iterator[None]:
    """Raise CannotRun where the memory of the card, or of the machine, does not suffice."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise CannotRun(TOO_LITTLE_MEMORY.format(device=device_name())) from error
    except RuntimeError as error:
        if "DefaultCPUAllocator" not in str(error):
            raise
        raise CannotRun(TOO_LITTLE_MEMORY.format(device=device_name())) from error


@contextmanager
def fitting(base: Path) -> Iterator[None]:
    """Raise CannotRun where transformers or PEFT know no way with this base and these settings."""
    try:
        yield
    except (ImportError, ValueError) as error:
        words = " ".join(str(error).split())
        raise CannotRun(f"{base.name} cannot be trained with these settings: {words}") from error


def load_to_train(config: TrainingConfig, base: Path, *, bf16: bool) -> PreTrainedModel:
    """Load the frozen base, in bf16, fp32 or 4-bit NF4. Raises CannotRun."""
    options: dict[str, Any] = {}
    if config.quantize:
        _refuse_quantize_without_means()
        options["device_map"] = {"": torch.cuda.current_device()}
        options["quantization_config"] = _nf4()
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        base,
        dtype=torch.bfloat16 if bf16 else torch.float32,
        attn_implementation=config.attention,
        use_safetensors=True,
        trust_remote_code=False,
        **options,
    )
    return model


def _nf4() -> BitsAndBytesConfig:
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        # fp16 diverges about once in five runs at 7 B, says the QLoRA authors' repository.
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def load_to_answer(
    base: Path, device: str, *, quantize: bool = False
) -> tuple[PreTrainedModel, str]:
    """Load a base as a server does: bf16 on a card, fp32 on the processor; and a note, or "".

    One that does not fit on the card whole, as after QLoRA, is loaded in 4 bit as it was trained
    where `quantize` says so, else spread over card and processor, which is slow and exact.
    """
    options: dict[str, Any] = {
        "dtype": torch.float32 if device == "cpu" else torch.bfloat16,
        "use_safetensors": True,
        "trust_remote_code": False,
    }
    if model := _on(device, base, options):
        return model.eval(), ""
    torch.cuda.empty_cache()
    if quantize:
        options["quantization_config"] = _nf4()
    spread: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        base, device_map="auto", **options
    )
    return spread.eval(), IN_4_BIT if quantize else SPREAD


def _on(device: str, base: Path, options: Mapping[str, Any]) -> PreTrainedModel | None:
    """Load a model onto one device; None where its memory does not suffice."""
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(base, **options)
        torch.nn.Module.to(model, device)
    except torch.OutOfMemoryError:
        return None
    return model


def _refuse_quantize_without_means() -> None:
    if not torch.cuda.is_available():
        raise CannotRun("QLoRA needs a GPU. Set quantize to false to train on the processor.")
    try:
        importlib.metadata.version("bitsandbytes")
    except importlib.metadata.PackageNotFoundError:
        raise CannotRun(
            "QLoRA needs the package bitsandbytes. Install it with: pip install 'tacit[qlora]'"
        ) from None


def adapted(model: PreTrainedModel, config: TrainingConfig) -> PeftModel:
    """Put fresh adapter weights, in fp32, on a base that from now on is frozen."""
    model.config.use_cache = False
    with warnings.catch_warnings():
        # PEFT 0.21 asks transformers 5.23 by a name that goes away in version 6.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        adapter = get_peft_model(model, peft_config(config))
    if config.gradient_checkpointing:
        options = {"use_reentrant": False}  # the other form needs inputs with gradients
        base_of(adapter).activation_checkpointing_enable(options)
    adapter.train()
    return adapter


def base_of(model: PeftModel) -> PreTrainedModel:
    base: PreTrainedModel = model.get_base_model()  # type: ignore[assignment]
    return base


def peft_config(config: TrainingConfig) -> PeftConfig:
    if config.adapter == "prompt":
        return PromptTuningConfig(
            task_type=TaskType.CAUSAL_LM, num_virtual_tokens=config.virtual_tokens
        )
    if config.adapter == "prefix":
        return PrefixTuningConfig(
            task_type=TaskType.CAUSAL_LM, num_virtual_tokens=config.virtual_tokens
        )
    return LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=list(config.target_modules),
        use_rslora=config.use_rslora,
        use_dora=config.use_dora,
    )
