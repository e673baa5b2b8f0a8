"""Measure what an adapter and its base say, by PEFT itself, for the probe to compare with.

Run right after training and kept beside the weights. V vocabulary.

    python -m finetune.reference config.json ADAPTER OUT

reads the recipe's settings, answers the shortest questions it was trained on, and writes the
reference into the folder OUT.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM

from finetune import bases, recipe
from finetune.examples import read_lines
from finetune.probe import Answer, Reference, Sample, Step

Messages = Sequence[dict[str, str]]

ASKED = 8


def measure(
    base: Path, adapter: Path, chats: Sequence[Messages], *, tokens: int = 16, device: str = "cpu"
) -> Reference:
    """Answer each chat greedily with and without the adapter; 5 to 10 short ones are enough.

    Computes in float32 on the processor and bfloat16 on a GPU, as our model server does. Give
    chats whose answers the adapter has learned, so that these end and differ from the base's.
    """
    tokenizer = bases.load_tokenizer(base)
    # Never in 4 bit: servers must say the same.
    plain, note = bases.load_to_answer(base, device)
    rendered = [_render(tokenizer, chat) for chat in chats]
    # First the base: PEFT puts its layers into the very same model.
    base_answers = [_answer(plain, tokenizer, ids, tokens) for ids in rendered]
    model = PeftModel.from_pretrained(plain, str(adapter), autocast_adapter_dtype=False).eval()
    answers = [_answer(model, tokenizer, ids, tokens) for ids in rendered]
    samples = zip(chats, rendered, answers, base_answers, strict=True)
    return Reference(
        tuple(Sample(tuple(chat), tuple(ids), own, base) for chat, ids, own, base in samples),
        tokens,
        note,
    )


def answer_alone(folder: Path, chats: Sequence[Messages], *, tokens: int) -> list[Answer]:
    """Answer each chat greedily with a model that stands by itself, in fp32."""
    tokenizer = bases.load_tokenizer(folder)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
    ).eval()
    return [_answer(model, tokenizer, _render(tokenizer, chat), tokens) for chat in chats]


def _render(tokenizer: Any, chat: Messages) -> list[int]:
    rendered = tokenizer.apply_chat_template(list(chat), add_generation_prompt=True)
    return list(rendered["input_ids"])


@torch.inference_mode()
def _answer(model: Any, tokenizer: Any, prompt_ids: list[int], tokens: int) -> Answer:
    prompt = torch.tensor([prompt_ids], device=model.device)
    output = model.generate(
        input_ids=prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=tokens,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
        pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
    )
    ids = output.sequences[0, -len(output.logits) :].tolist()
    pairs = zip(ids, output.logits, strict=True)
    ends = _ends(model, tokenizer)
    return Answer(tuple(_step(tokenizer, id_, row[0]) for id_, row in pairs), ids[-1] in ends)


def _step(tokenizer: Any, token_id: int, logits: Tensor) -> Step:
    """Describe a token. logits: (V,)."""
    best = logits.float().log_softmax(dim=-1).topk(2).values.tolist()
    return Step(tokenizer.decode([token_id]), best[0], best[1])


def _ends(model: Any, tokenizer: Any) -> set[int]:
    configured = model.generation_config.eos_token_id
    listed = configured if isinstance(configured, list) else [configured]
    return {id_ for id_ in (*listed, tokenizer.eos_token_id) if id_ is not None}


def shortest_chats(data: Path) -> list[Messages]:
    """Give the ASKED shortest questions of the train part, without their answers."""
    chats: list[Messages] = [
        line.messages[:-1] for line in read_lines(data, "train") if len(line.messages) > 1
    ]
    return sorted(chats, key=lambda chat: sum(len(turn["content"]) for turn in chat))[:ASKED]


def main(settings_file: Path, adapter: Path, out: Path) -> None:
    config, data, _ = recipe.read_settings(settings_file)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found = measure(bases.find(config), adapter, shortest_chats(data), device=device)
    out.mkdir(parents=True, exist_ok=True)
    found.write(out)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("Usage: python -m finetune.reference config.json ADAPTER OUT")
    main(*map(Path, sys.argv[1:]))
