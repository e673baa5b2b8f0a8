"""Train a small chat model from nothing, for tests and first starts. No Django.

A tokenizer and a Llama-shaped model learn the texts they are given, half of them as plain text and
half as conversations: a heading is the question, what stands under it the answer. It knows little
and speaks badly, but it is a whole base model: with a chat template, a stop token, and loss to
gain. The same texts and settings give the same files, byte for byte, on one kind of processor.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from finetune import checkpoints

PAD, START, END = "<|pad|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MAX_LENGTH = 4096
_LEARNING_RATE = 3e-3
# Most steps read short windows; the last tenth reads long ones, so that positions as far out as a
# prompt with sources reaches have been seen. (windows, tokens each)
_SHORT, _LONG, _LONG_SHARE = (8, 128), (1, 1024), 0.1
_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)


def make(
    folder: Path,
    texts: Iterable[str],
    *,
    seed: int = 0,
    vocabulary: int = 1536,
    hidden: int = 160,
    layers: int = 4,
    steps: int = 250,
) -> float:
    """Train a base model and write it to a folder, whole or not at all; gives the last loss.

    `hidden` is a multiple of 32. The loss is nats a token, the mean of the last steps. Raises
    ValueError for too little text.
    """
    rendered = [part for text in texts for part in _rendered(text)]
    if sum(map(len, rendered)) < 10_000:
        raise ValueError("A base model needs at least 10,000 characters to learn from.")
    tokenizer = make_tokenizer(rendered, vocabulary)
    threads = torch.get_num_threads()
    # Sums depend on how the work is divided: two threads wherever there are two or more.
    torch.set_num_threads(min(2, threads))
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = _model(tokenizer, hidden, layers)
            loss = _learn(model, _stream(tokenizer, rendered), steps, seed)
    finally:
        torch.set_num_threads(threads)
    about = {"seed": seed, "steps": steps, "loss": loss, "characters": sum(map(len, rendered))}
    checkpoints.publish(folder, lambda aside: _write(aside, model, tokenizer), about=about)
    return loss


def _rendered(text: str) -> Iterator[str]:
    """Give a text as it stands, then each of its sections as a question and an answer."""
    yield text.strip() + END
    headings = list(_HEADING.finditer(text))
    ends = [*(each.start() for each in headings), len(text)][1:]
    for heading, end in zip(headings, ends, strict=True):
        answer = text[heading.end() : end].strip()
        if answer:
            yield (
                f"{START}user\n{heading.group(1).strip()}{END}\n{START}assistant\n{answer}{END}\n"
            )


def make_tokenizer(texts: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer of at most so many tokens, with a chat template."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    plain = (text.replace(START, "").replace(END, "") for text in texts)
    bpe.train_from_iterator(plain, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[START],
        clean_up_tokenization_spaces=False,
        model_max_length=MAX_LENGTH,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _model(tokenizer: PreTrainedTokenizerFast, hidden: int, layers: int) -> LlamaForCausalLM:
    heads = hidden // 32
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=hidden * 8 // 3 // 32 * 32,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2 if heads % 2 == 0 else heads,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        use_cache=False,
    )
    return LlamaForCausalLM(config)


def _stream(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> torch.Tensor:
    """Tokenize all texts into one line of ids, (N,)."""
    ids = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return torch.tensor([token for each in ids for token in each])


def _learn(model: LlamaForCausalLM, stream: torch.Tensor, steps: int, seed: int) -> float:
    """Train on windows of the stream, where they start drawn from (seed, step)."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=_LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.1
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, _LEARNING_RATE, total_steps=steps + 1, pct_start=0.1, cycle_momentum=False
    )
    losses = []
    model.train()
    for step in range(steps):
        windows, length = _LONG if step >= steps * (1 - _LONG_SHARE) else _SHORT
        ids = _windows(stream, windows, min(length, len(stream) - 2), seed=seed, step=step)
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        losses.append(float(loss.detach()))
    last = losses[-max(1, steps // 20) :]
    return sum(last) / len(last)


def _windows(
    stream: torch.Tensor, windows: int, length: int, *, seed: int, step: int
) -> torch.Tensor:
    """Cut windows out of the stream, (windows, length)."""
    starts = []
    for window in range(windows):
        draw = hashlib.sha256(f"{seed}/{step}/{window}".encode()).digest()
        starts.append(int.from_bytes(draw[:8]) % (len(stream) - length))
    return torch.stack([stream[start : start + length] for start in starts])


def _write(folder: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write what transformers reads, and the older key names that TGI reads."""
    model.config.use_cache = True
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False
    ).save_pretrained(folder)
    _amend(folder / "config.json", torch_dtype="float32", rope_theta=10000.0)
    _amend(
        folder / "tokenizer_config.json",
        tokenizer_class="PreTrainedTokenizerFast",
        chat_template=CHAT_TEMPLATE,
    )


def _amend(path: Path, **values: str | float) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}, indent=2) + "\n")
