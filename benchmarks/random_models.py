"""Small Llama-shaped models and adapters with random weights, for benchmarks and tests."""

import warnings
from pathlib import Path
from typing import Any

TEXTS = [
    "The glacier melts in late summer, and the river below it rises by two metres.",
    "Question: who keeps the keys? Answer: the caretaker keeps them in the north tower.",
    "Größe, naïve, façade, 東京の天気は晴れ, emoji 🙂🚀 and the sign € are no plain letters.",
    "0123456789 + - * / = ( ) [ ] { } < > ? ! . , ; : ' \" % & # @",
] * 8
TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def make_base(
    folder: Path, *, hidden: int = 64, layers: int = 2, context: int = 512, seed: int = 0
) -> Path:
    """Write a base model with its tokenizer to `folder`; the same seed gives the same weights."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    special = ["<pad>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    plain.train_from_iterator(TEXTS, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain,
        pad_token="<pad>",
        eos_token="<|end|>",
        chat_template=TEMPLATE,
        additional_special_tokens=special[2:],
    )
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        initializer_range=0.4,  # so that random weights give sharp, repeatable choices
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_lora(base: Path, folder: Path, *, seed: int, **options: Any) -> Path:
    """Write a LoRA adapter whose random weights change what the base says."""
    from peft import LoraConfig

    config = LoraConfig(
        **{
            "r": 8,
            "lora_alpha": 16,
            "target_modules": TARGETS,
            "task_type": "CAUSAL_LM",
            "init_lora_weights": "gaussian",
            **options,
        }
    )
    return _make(base, folder, config, seed)


def make_prompt_adapter(base: Path, folder: Path, *, kind: str, seed: int) -> Path:
    """Write an adapter of the `kind` "prompt" or "prefix", eight virtual tokens long."""
    from peft import PrefixTuningConfig, PromptTuningConfig

    config_class = {"prompt": PromptTuningConfig, "prefix": PrefixTuningConfig}[kind]
    options: dict[str, Any] = {}
    if kind == "prefix":
        # PEFT does not know grouped attention by itself.
        options = {"num_attention_heads": 2, "token_dim": 32}
    config = config_class(task_type="CAUSAL_LM", num_virtual_tokens=8, **options)
    return _make(base, folder, config, seed)


def _make(base: Path, folder: Path, config: Any, seed: int) -> Path:
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers in an old way
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ("lora_" in name and "magnitude" not in name) or "prompt_encoder" in name:
                parameter.normal_(std=0.1)
    model.save_pretrained(folder)
    return folder
