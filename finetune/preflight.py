"""Look at a training run before it starts: what it would learn, need and cost. No Django.

    python -m finetune.preflight config.json PROCESSES

reads the same file as `finetune.recipe` and prints lines of JSON, of which the last one counts: the
report without a trial, then with it, which may take more memory than there is, then with what the
base answers to questions that have sources; or {"refused": sentence}. Rows are tokenized exactly as the run will. Three steps are tried, the first one at the
longest rows, so that time and memory are measured where the run will be, and not guessed. A formula
gives the memory for other cards.
"""

import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerBase

from finetune import bases, contract, evaluating, recipe
from finetune.checkpoints import FolderTaken
from finetune.examples import Example, Prepared, SnapshotUnreadable, read_lines
from finetune.hyperparameters import InvalidConfig, TrainingConfig
from kb.prompts import read_prompt

SHOWN_ROWS = 200  # numbers of truncated and dropped rows
SHOWN_TOKENS = 1200  # of the example
DRIVER_BYTES = 1_400_000_000  # what a CUDA context takes before anything is loaded
# What the base is asked, and when a step takes too long to wait for its answers.
ASKED, ANSWER_TOKENS, PATIENCE_S = 16, 128, 30.0
_SERVERS: tuple[Any, ...] = ("own", "tgi", "vllm")


def inspect(config: TrainingConfig, data: Path, *, processes: int = 1) -> Iterator[dict[str, Any]]:
    """Give the report of a run that has not begun: without a trial of it, and then with one.

    `processes`: over how many cards it will be spread. Raises what `recipe.train` raises.
    """
    base = bases.find(config)
    tokenizer = bases.load_tokenizer(base)
    settings = json.loads((base / "config.json").read_text())
    train = recipe.prepared(config, data, tokenizer, "train")
    validation = recipe.prepared(config, data, tokenizer, "validation")
    report: dict[str, Any] = {
        "revision": bases.commit_of(base) or config.revision,
        "rows": {"train": _rows(train), "validation": _rows(validation)},
        "lengths": _lengths(train.examples),
        "contract": {
            server: contract.check_config(replace(config, server=server), settings)
            for server in _SERVERS
        },
        "device": bases.device_name(),
        "free_bytes": _free_bytes(),
    }
    yield report
    if not train.examples:
        return
    order = recipe.order_of(config, train.examples, processes=processes)
    steps = config.total_steps(order.steps_an_epoch)
    report |= {
        "processes": processes,
        "steps": steps,
        "steps_an_epoch": order.steps_an_epoch,
        "example": _example(train.examples[0], tokenizer),
        "stop_token": _stop_token(train.examples, tokenizer),
        "method": config.method,
        # Of the whole run; the last epoch may be cut short.
        "tokens": round(_lengths(train.examples)["total"] * steps / order.steps_an_epoch),
        "memory": _memory(config, base, train.examples, on_card=torch.cuda.is_available()),
        "memory_on_card": _memory(config, base, train.examples, on_card=True),
    }
    yield report
    report["tried"] = _tried(config, data, steps)
    yield report
    if report["tried"].get("step_s", PATIENCE_S) < PATIENCE_S:
        yield report | {"base_answers": _base_answers(config, data)}


def _rows(prepared: Prepared) -> dict[str, Any]:
    truncated = [example.number for example in prepared.examples if example.truncated]
    return {
        "kept": len(prepared.examples),
        "learned_tokens": sum(example.learned for example in prepared.examples),
        "truncated": len(truncated),
        "truncated_numbers": truncated[:SHOWN_ROWS],
        "dropped": len(prepared.dropped),
        "masked": sum(row.masked for row in prepared.dropped),
        "dropped_rows": [asdict(row) for row in prepared.dropped[:SHOWN_ROWS]],
    }


def _lengths(examples: Sequence[Example]) -> dict[str, int]:
    lengths = sorted(example.length for example in examples)
    if not lengths:
        return {}
    return {
        "median": int(statistics.median(lengths)),
        "p95": lengths[int(0.95 * (len(lengths) - 1))],
        "longest": lengths[-1],
        "total": sum(lengths),
    }


def _example(example: Example, tokenizer: PreTrainedTokenizerBase) -> list[dict[str, Any]]:
    """Give a row as the model sees it, in stretches that are learned and that are not."""
    part = example.chosen
    cut = max(0, part.answer_start - SHOWN_TOKENS)
    prompt = str(tokenizer.decode(part.ids[cut : part.answer_start]))
    answer = str(tokenizer.decode(part.ids[part.answer_start :][:SHOWN_TOKENS]))
    return [
        {"text": ("… " if cut else "") + prompt, "is_learned": False},
        {"text": answer, "is_learned": True},
    ]


def _stop_token(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    ends = sum(example.chosen.ids[-1] == tokenizer.eos_token_id for example in examples)
    return {
        "text": tokenizer.eos_token,
        "is_learned": ends == len(examples),
        "differs_from_padding": tokenizer.pad_token_id != tokenizer.eos_token_id,
    }


def _memory(
    config: TrainingConfig, base: Path, examples: Sequence[Example], *, on_card: bool
) -> dict[str, Any]:
    longest = max(example.length for example in examples)
    try:
        return memory(config, base, longest=longest, on_card=on_card)
    except bases.CannotRun as error:
        return {"problem": str(error)}


def memory(config: TrainingConfig, base: Path, *, longest: int, on_card: bool) -> dict[str, int]:
    """Estimate what a card must hold, or the machine without one, in bytes, term by term.

    Weights stay in the type of training, or in 4 bit with embeddings and head in 16; only adapter
    parameters have gradients and AdamW's two moments, in fp32; activations are kept for one layer
    with checkpointing, else for all; logits only where a token is learned. Raises CannotRun for
    a base that cannot take such an adapter.
    """
    with bases.fitting(base), torch.device("meta"):
        shape = AutoConfig.from_pretrained(base, trust_remote_code=False)
        model = AutoModelForCausalLM.from_config(shape, trust_remote_code=False)
        total = sum(each.numel() for each in model.parameters())
        adapted = bases.adapted(model, replace(config, gradient_checkpointing=False))
        learning = sum(each.numel() for each in adapted.parameters() if each.requires_grad)
    wide = 2 if config.precision == "bf16" or (config.precision == "auto" and on_card) else 4
    edges = 2 * shape.vocab_size * shape.hidden_size
    weights = (total - edges) * 0.55 + edges * 2 if config.quantize else total * wide
    tokens = config.batch_size * (config.max_length if config.packing else longest)
    inner = getattr(shape, "intermediate_size", 4 * shape.hidden_size)
    a_layer = tokens * (10 * shape.hidden_size + 3 * inner) * wide
    kept = tokens * shape.hidden_size * wide * shape.num_hidden_layers
    checkpointing = config.gradient_checkpointing
    activations = a_layer + kept if checkpointing else a_layer * shape.num_hidden_layers
    logits = min(tokens, recipe.LOGIT_ROWS) * shape.vocab_size * 4 * 2
    terms = {
        "weights": int(weights),
        "adapter": learning * 4,
        "gradients_and_optimizer": learning * 12,
        "activations": int(activations),
        "logits": int(logits),
        "driver": DRIVER_BYTES if on_card else 0,
    }
    return terms | {"total": sum(terms.values()), "parameters": total, "learning": learning}


def _free_bytes() -> int:
    """Give the memory that is free on the card, or on the machine where there is none."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable"):
            return int(line.split()[1]) * 1024
    return 0


def _tried(config: TrainingConfig, data: Path, steps: int) -> dict[str, Any]:
    """Train three steps in a folder that is thrown away.

    The first has the longest rows and shows the memory; the others the time of one as it comes.
    """
    lines: list[Mapping[str, Any]] = []
    short = replace(config, max_steps=3, evaluate_every=1_000_000, checkpoint_every=1_000_000)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "train.jsonl"
        rows.write_text("".join(_train_lines(data)))  # no time is spent on validation
        try:
            recipe.train(
                short,
                rows,
                Path(folder) / "out",
                on_step=lines.append,
                should_stop=lambda: any(line.get("step") == 3 for line in lines),
                longest_first=True,
            )
        except (contract.ContractBroken, bases.CannotRun) as error:
            return {"problem": str(error)}
    learned = [line for line in lines if line["event"] == "train"]
    times = [line["tokens"] / line["tokens_per_s"] for line in learned]
    usual = times[1:] or times  # the first one warms up, too
    step_s = sum(usual) / len(usual)
    return {
        "loss": learned[0]["loss"],
        "step_s": step_s,
        "tokens_per_s": learned[-1]["tokens_per_s"],
        "peak_bytes": recipe.peak_memory(),
        "seconds": step_s * steps,
        "took_s": time.monotonic() - began,
    }


def _train_lines(data: Path) -> Iterator[str]:
    with data.open(encoding="utf-8") as file:
        yield from (line for line in file if json.loads(line).get("split", "train") == "train")


def _base_answers(config: TrainingConfig, data: Path) -> list[dict[str, str]]:
    """Let the base answer some validation questions that have sources: {"output", "expected"}."""
    asks: list[dict[str, Any]] = []
    for line in read_lines(data, "validation"):
        *context, answer = line.messages
        if read_prompt(context[-1]["content"])[0] is not None and len(asks) < ASKED:
            asks.append(
                {
                    "id": len(asks), "model": "base", "messages": context,
                    "expected": answer["content"], "generate": True,
                }
            )  # fmt: skip
    job = evaluating.Job(config, Path(), asks, max_new_tokens=ANSWER_TOKENS, batch_size=ASKED)
    try:
        return [
            {"output": line["output"], "expected": asks[line["id"]]["expected"]}
            for line in (evaluating.evaluate(job) if asks else ())
            if "output" in line
        ]
    except (torch.OutOfMemoryError, bases.CannotRun):
        return []  # the trial has said what this base needs


def main(settings_file: Path, processes: int) -> int:
    """Print the report; gives recipe.REFUSED with a sentence when the run cannot be as told."""
    logging.basicConfig(level=logging.WARNING)
    try:
        config, data, _ = recipe.read_settings(settings_file)
        with bases.enough_memory():
            for report in inspect(config, data, processes=processes):
                print(json.dumps(report), flush=True)
    except (
        bases.CannotRun,
        InvalidConfig,
        SnapshotUnreadable,
        FolderTaken,
        OSError,
    ) as error:
        print(error, file=sys.stderr)
        print(json.dumps({"refused": str(error)}))
        return recipe.REFUSED
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("Usage: python -m finetune.preflight config.json PROCESSES")
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
