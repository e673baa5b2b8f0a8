"""Compare our recipe with a plain loop, transformers' Trainer and TRL, each in its own process.

`script/bench training [--steps 20] [--rounds 1] [--size tiny] [--save]`: pairs made from the
project's own pages, in the prompt of the chat, teach the same LoRA to the same base with the same
learning rate. Each contender sees every pair of a step once; the packed ones see more pairs a step
and so train for the same number of pairs. Tokens are real ones, never padding. `loss` is the
validation loss of the saved adapter, measured by one program for all, in nats a token to learn.
TRL's contenders are left out where TRL is not installed.

`--size 1b` makes a Llama of 1.2 billion random weights and needs a GPU; it adds QLoRA, and the share
of the card's arithmetic (`--peak-tflops`) that is put to use.
"""

import argparse
import importlib.util
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.utils import logging as transformers_logging

from finetune import base_model, recipe
from finetune.examples import Example, prepare, read_lines
from finetune.hyperparameters import LINEAR_LAYERS, TrainingConfig
from kb.prompts import Source, build_messages

ROOT = Path(__file__).resolve().parents[1]
BATCH = 4
PAIRS = 40
WARM_UP_STEPS = 2
MAX_LENGTH = {"tiny": 1024, "1b": 2048}
LEARNING_RATE = {"tiny": 2e-3, "1b": 2e-4}


@dataclass
class Clock:
    """Measures from the end of the warm-up steps to the last step, in seconds and processor time."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def step(self, loss: float = 0.0) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.wall.append(time.perf_counter())
        self.processor.append(time.process_time())
        self.losses.append(loss)

    @property
    def measured_steps(self) -> int:
        return len(self.wall) - WARM_UP_STEPS

    def seconds(self) -> tuple[float, float]:
        first = WARM_UP_STEPS - 1
        return self.wall[-1] - self.wall[first], self.processor[-1] - self.processor[first]


@dataclass(frozen=True)
class Task:
    """What every contender is given."""

    folder: Path
    size: str
    steps: int

    @property
    def base(self) -> Path:
        return self.folder / "base"

    @property
    def data(self) -> Path:
        return self.folder / "snapshot.jsonl"

    def config(self, **settings: Any) -> TrainingConfig:
        return TrainingConfig(
            base_model=str(self.base),
            epochs=1000,
            max_length=MAX_LENGTH[self.size],
            learning_rate=LEARNING_RATE[self.size],
            warmup=0.1,
            batch_size=BATCH,
            evaluate_every=10_000,
            checkpoint_every=10_000,
            **{"max_steps": self.steps, **settings},
        )

    def examples(self, split: Any) -> list[Example]:
        tokenizer = AutoTokenizer.from_pretrained(self.base)
        lines = read_lines(self.data, split)
        return prepare(lines, tokenizer, max_length=MAX_LENGTH[self.size]).examples

    def rows(self, split: str) -> list[dict[str, Any]]:
        rows = map(json.loads, self.data.read_text().splitlines())
        return [row for row in rows if row["split"] == split]


# Contenders: each trains, saves its adapter in `out` and ticks the clock after every step.


def our_recipe(task: Task, out: Path, clock: Clock, **settings: Any) -> None:
    def tick(line: Any) -> None:
        if line["event"] == "train":
            clock.step(line["loss"])

    # Without validation rows, so that no evaluation falls into the measured time.
    data = task.folder / "train-only.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in task.rows("train")))
    result = recipe.train(task.config(**settings), data, out / "run", on_step=tick)
    assert result.adapter is not None
    result.adapter.rename(out / "adapter")


def our_recipe_packed(task: Task, out: Path, clock: Clock, **settings: Any) -> None:
    """Train as many pairs as the others: a packed row has several, so fewer steps are needed."""
    examples = task.examples("train")
    pairs_a_row = len(examples) / recipe.order_of(task.config(), examples).rows_an_epoch
    steps = WARM_UP_STEPS + round((task.steps - WARM_UP_STEPS) / pairs_a_row)
    our_recipe(task, out, clock, packing=True, max_steps=steps, **settings)


def plain_loop(task: Task, out: Path, clock: Clock) -> None:
    """Write what a tutorial has: padded batches, labels, the model's own loss, AdamW."""
    model = _peft_model(task)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE[task.size], weight_decay=0)
    config = task.config()
    for number, batch in zip(range(1, task.steps + 1), _batches(task), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate_at(number, task.steps)
        with torch.autocast(model.device.type, torch.bfloat16, enabled=task.size == "1b"):
            loss = model(**{name: each.to(model.device) for name, each in batch.items()}).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        clock.step(float(loss.detach()))
    model.save_pretrained(str(out / "adapter"))


def transformers_trainer(task: Task, out: Path, clock: Clock) -> None:
    examples = task.examples("train")
    arguments = TrainingArguments(
        **_trainer_arguments(task, out), bf16=task.size == "1b", remove_unused_columns=False
    )
    model = _peft_model(task)
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=_listed(examples),
        data_collator=_collate,
        callbacks=[_tick(clock)],
    )
    trainer.train()
    model.save_pretrained(str(out / "adapter"))


def trl(task: Task, out: Path, clock: Clock, **settings: Any) -> None:
    from datasets import Dataset  # type: ignore[import-not-found, unused-ignore]
    from trl import SFTConfig, SFTTrainer  # type: ignore[import-not-found, unused-ignore]

    rows = [
        {"prompt": row["messages"][:-1], "completion": row["messages"][-1:]}
        for row in task.rows("train")
    ]
    arguments = {**_trainer_arguments(task, out), "max_length": MAX_LENGTH[task.size], **settings}
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(
            task.base, dtype=torch.bfloat16 if task.size == "1b" else torch.float32
        ),
        processing_class=AutoTokenizer.from_pretrained(task.base),
        args=SFTConfig(**arguments),
        train_dataset=Dataset.from_list(rows),
        peft_config=_lora(),
        callbacks=[_tick(clock)],
    )
    trainer.train()
    trainer.model.save_pretrained(str(out / "adapter"))


CONTENDERS: dict[str, Callable[[Task, Path, Clock], None]] = {
    "recipe": our_recipe_packed,
    "recipe, not packed": lambda *given: our_recipe(*given, packing=False),
    "recipe, QLoRA": lambda *given: our_recipe_packed(*given, quantize=True),
    "plain loop": plain_loop,
    "transformers Trainer": transformers_trainer,
    "TRL, defaults": trl,
    "TRL, without recomputing": lambda *given: trl(*given, gradient_checkpointing=False),
}


def _wanted(size: str) -> list[str]:
    names = [name for name in CONTENDERS if "QLoRA" not in name or size == "1b"]
    if importlib.util.find_spec("trl") is None:
        names = [name for name in names if not name.startswith("TRL")]
    return names


def _trainer_arguments(task: Task, out: Path) -> dict[str, Any]:
    return {
        "output_dir": str(out / "trainer"),
        "per_device_train_batch_size": BATCH,
        "max_steps": task.steps,
        "learning_rate": LEARNING_RATE[task.size],
        "lr_scheduler_type": "cosine",
        "warmup_steps": round(task.steps * 0.1),
        "save_strategy": "no",
        "logging_steps": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": task.size == "tiny",
        "dataloader_pin_memory": task.size != "tiny",
    }


def _tick(clock: Clock) -> TrainerCallback:
    class Tick(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            clock.step()

    return Tick()


def _lora() -> LoraConfig:
    return LoraConfig(
        r=16, lora_alpha=32, target_modules=list(LINEAR_LAYERS), task_type="CAUSAL_LM"
    )


def _peft_model(task: Task) -> PeftModel:
    kind = torch.bfloat16 if task.size == "1b" else torch.float32
    device = "cuda" if task.size == "1b" else "cpu"
    model: Any = AutoModelForCausalLM.from_pretrained(task.base, dtype=kind)
    torch.manual_seed(0)
    adapted: PeftModel = get_peft_model(model.to(device), _lora())
    adapted.train()
    return adapted


def _listed(examples: list[Example]) -> Any:
    chosen = [example.chosen for example in examples]
    return [
        {"ids": each.ids, "labels": [-100] * each.answer_start + each.ids[each.answer_start :]}
        for each in chosen
    ]


def _collate(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    width = max(len(row["ids"]) for row in rows)

    def fill(name: str, filler: int) -> torch.Tensor:
        return torch.tensor([row[name] + [filler] * (width - len(row[name])) for row in rows])

    mask = torch.tensor([[1] * len(row["ids"]) + [0] * (width - len(row["ids"])) for row in rows])
    return {"input_ids": fill("ids", 0), "labels": fill("labels", -100), "attention_mask": mask}


def _batches(task: Task) -> Iterator[dict[str, torch.Tensor]]:
    rows = _listed(task.examples("train"))
    chance = random.Random(0)
    while True:
        chance.shuffle(rows)
        for start in range(0, len(rows) - BATCH + 1, BATCH):
            yield _collate(rows[start : start + BATCH])


# Measuring


def run_one(task: Task, name: str, peak_tflops: float) -> dict[str, Any]:
    """Train one contender in this process. Memory is this process's, so call it once."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        CONTENDERS[name](task, out, clock)
        memory = recipe.peak_memory()
        loss = validation_loss(task, out / "adapter")
    wall, processor = clock.seconds()
    examples = task.examples("train")
    pairs = clock.measured_steps * BATCH
    if name in ("recipe", "recipe, QLoRA"):
        pairs = pairs * len(examples) // recipe.order_of(task.config(), examples).rows_an_epoch
    tokens = pairs * statistics.mean(example.length for example in examples)
    measured = {
        "tokens_per_s": round(tokens / wall),
        "tokens_per_processor_s": round(tokens / processor),
        "peak_memory_mb": round(memory / 1e6),
        "loss": round(loss, 4),
        "steps": len(clock.wall),
    }
    if peak_tflops:
        # Forward, and backward through frozen weights: 2 + 2 operations a weight and token.
        weights = sum(
            each.numel() for each in AutoModelForCausalLM.from_pretrained(task.base).parameters()
        )
        measured["mfu"] = round(4 * weights * tokens / wall / (peak_tflops * 1e12), 3)
    return measured


@torch.no_grad()
def validation_loss(task: Task, adapter: Path | None) -> float:
    """Give the loss of an adapter (or of the base) row by row, in fp32 on the processor or bf16."""
    kind, device = (torch.bfloat16, "cuda") if task.size == "1b" else (torch.float32, "cpu")
    model: Any = AutoModelForCausalLM.from_pretrained(task.base, dtype=kind)
    model = model.to(device)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter))
    model.eval()
    total = learned = 0.0
    for row in _listed(task.examples("validation")):
        batch = {name: each.to(device) for name, each in _collate([row]).items()}
        answer = sum(label != -100 for label in row["labels"])
        total += float(model(**batch).loss) * answer
        learned += answer
    return total / learned


def write_data(path: Path) -> None:
    """Ask for each section of our pages, with passages of the same page as sources."""
    lines: list[str] = []
    for page in sorted((ROOT / "docs").glob("*.md")):
        sections = [part.partition("\n") for part in page.read_text().split("\n## ")[1:]]
        bodies = [body.strip()[:500] for _, _, body in sections if body.strip()]
        for number, (title, _, body) in enumerate(sections):
            texts = bodies[max(0, number - 1) : number + 1 + number % 3]
            sources = [
                Source(marker, page.stem, (title,), 1, text, 1.0)
                for marker, text in enumerate(texts, start=1)
            ]
            messages = build_messages(f"{title}?", sources, fence="0123456789abcdef")
            answer = body.strip()[: 80 + 60 * (number % 4)] or "Nothing."
            turns = [{"role": each.role, "content": each.content} for each in messages]
            turns.append({"role": "assistant", "content": f"{answer} [1]"})
            split = "validation" if len(lines) % 6 == 5 else "train"
            lines.append(json.dumps({"messages": turns, "split": split}))
    # Whole epochs of whole steps, so that all contenders learn the same pairs equally often.
    train = [line for line in lines if '"split": "train"' in line]
    spare = set(train[len(train) // PAIRS * PAIRS :])
    path.write_text("".join(line + "\n" for line in lines if line not in spare))


def write_base(folder: Path, size: str) -> None:
    texts = [page.read_text() for page in sorted((ROOT / "docs").glob("*.md"))]
    if size == "tiny":
        base_model.make(folder, texts, vocabulary=2048, hidden=128, layers=4, steps=80)
        return
    tokenizer: PreTrainedTokenizerBase = base_model.make_tokenizer(texts, 2048)
    shape = LlamaConfig(
        vocab_size=128_256,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model: Any = LlamaForCausalLM(shape)
    model.bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    task = Task(folder, options.size, options.steps)
    write_data(task.data)
    write_base(task.base, options.size)
    names = _wanted(options.size)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(options.rounds):
        for name in names:
            found[name].append(_in_own_process(options, folder, name))
            print(f"{name:28} {found[name][-1]}", flush=True)
    middle = {
        name: {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}
        for name, rounds in found.items()
    }
    lengths = [example.length for example in task.examples("train")]
    return {
        "base_loss": round(validation_loss(task, None), 4),
        "pairs": len(lengths),
        "mean_tokens_a_pair": round(statistics.mean(lengths)),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "processor",
        "threads": torch.get_num_threads(),
        "contenders": middle,
    }


def _in_own_process(options: argparse.Namespace, folder: Path, name: str) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.training", "--one", name]
    command += ["--folder", str(folder), "--steps", str(options.steps), "--size", options.size]
    command += ["--peak-tflops", str(options.peak_tflops)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--size", choices=["tiny", "1b"], default="tiny")
    parser.add_argument("--peak-tflops", type=float, default=0, help="of the card, in bf16")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    transformers_logging.disable_progress_bar()
    if options.size == "tiny":
        torch.set_num_threads(1)
    if options.one:
        task = Task(options.folder, options.size, options.steps)
        print(json.dumps(run_one(task, options.one, options.peak_tflops)))
        return
    with tempfile.TemporaryDirectory() as folder:
        report = measure(options, Path(folder))
    print(json.dumps(report, indent=2))
    if options.save:
        suffix = "" if options.size == "tiny" else f"_{options.size}"
        path = ROOT / "benchmarks" / "results" / f"training{suffix}.json"
        path.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
