"""Put the same questions to a base model and to its adapter. No Django.

    python -m finetune.evaluating job.json

reads {"config": TrainingConfig, "adapter": folder, "max_new_tokens", "batch_size", "asks": […]} and
prints one JSON line for each ask as soon as it is known, the base's first. An ask is {"id",
"model": "base" | "adapter", "messages", "expected", "other", "generate"}; its line has "nats" (mean
of the expected answer's tokens, the stop token among them), "tokens" and, where an answer is
written, "output" and "ended" (by the stop token); or "problem", a sentence; and "note" where the base
did not fit as servers load it. Whoever started it keeps
the lines and leaves out of the next job what is known, so that it may be killed at any moment.
"""

import json
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from finetune import bases
from finetune.examples import Line, prepare
from finetune.hyperparameters import InvalidConfig, TrainingConfig
from finetune.packing import Part

LONGEST = 4096  # of prompt and answer, for a base that does not say what it reads
UNWORDED = "The chat template of the base does not take this conversation."


@dataclass(frozen=True, slots=True)
class Job:
    config: TrainingConfig
    adapter: Path
    asks: list[dict[str, Any]]
    max_new_tokens: int
    batch_size: int

    @classmethod
    def read(cls, path: Path) -> "Job":
        """Read the file. Raises CannotRun and InvalidConfig."""
        try:
            values = json.loads(path.read_text())
            return cls(
                TrainingConfig.from_dict(values["config"]),
                Path(values["adapter"]),
                values["asks"],
                int(values["max_new_tokens"]),
                int(values["batch_size"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise bases.CannotRun(f"{path} is no evaluation job: {error!r}") from error


def evaluate(job: Job) -> Iterator[dict[str, Any]]:
    """Give a line for each ask. Raises CannotRun for a base or adapter that is not there."""
    base = bases.find(job.config)
    tokenizer = bases.load_tokenizer(base)
    # As the server computes: an adapter trained on a 4-bit base is served on the whole one.
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any
    model, note = bases.load_to_answer(base, device, quantize=job.config.quantize)
    for line in _asked(model, tokenizer, job):
        yield line | {"note": note} if note else line


def _asked(model: Any, tokenizer: PreTrainedTokenizerBase, job: Job) -> Iterator[dict[str, Any]]:
    yield from _answers(model, tokenizer, job, "base")
    if any(ask["model"] == "adapter" for ask in job.asks):
        # Afterwards: PEFT puts its layers into the very same model.
        model = PeftModel.from_pretrained(model, str(job.adapter), autocast_adapter_dtype=False)
        yield from _answers(model.eval(), tokenizer, job, "adapter")


def _answers(
    model: Any, tokenizer: PreTrainedTokenizerBase, job: Job, name: str
) -> Iterator[dict[str, Any]]:
    """Answer the asks of one model, those of like length together."""
    longest = getattr(model.config, "max_position_embeddings", None) or LONGEST
    ready: list[tuple[dict[str, Any], Part]] = []
    for ask in (ask for ask in job.asks if ask["model"] == name):
        part = _part(ask, ask["expected"], tokenizer, longest - job.max_new_tokens)
        if isinstance(part, str):
            yield {"id": ask["id"], "problem": part}
        elif ask["generate"]:
            ready.append((ask, part))
        else:
            yield _measured(model, tokenizer, ask, part, longest)
    ready.sort(key=lambda each: each[1].answer_start)
    for start in range(0, len(ready), job.batch_size):
        batch = ready[start : start + job.batch_size]
        prompts = [part.ids[: part.answer_start] for _, part in batch]
        written = _written(model, tokenizer, prompts, job.max_new_tokens)
        for (ask, part), (output, ended) in zip(batch, written, strict=True):
            line = _measured(model, tokenizer, ask, part, longest)
            yield line | {"output": output, "ended": ended}


def _part(
    ask: Mapping[str, Any], answer: str, tokenizer: PreTrainedTokenizerBase, longest: int
) -> Part | str:
    """Give prompt and answer as the training has them, the prompt shortened to fit; or why not."""
    line = Line(0, [*ask["messages"], {"role": "assistant", "content": answer}])
    try:
        prepared = prepare([line], tokenizer, max_length=longest)
    except jinja2.TemplateError as error:
        return f"{UNWORDED} {error}"
    return prepared.examples[0].chosen if prepared.examples else prepared.dropped[0].reason


def _measured(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    ask: Mapping[str, Any],
    part: Part,
    longest: int,
) -> dict[str, Any]:
    nats, tokens = _nats(model, part)
    line: dict[str, Any] = {"id": ask["id"], "nats": nats, "tokens": tokens}
    if ask.get("other"):
        other = _part(ask, ask["other"], tokenizer, longest)
        line["other_nats"] = None if isinstance(other, str) else _nats(model, other)[0]
    return line


@torch.inference_mode()
def _nats(model: Any, part: Part) -> tuple[float, int]:
    """Give the mean nats of an answer's tokens, and how many these are."""
    count = len(part.ids) - part.answer_start
    ids = torch.tensor([list(part.ids)], device=model.device)
    mask = torch.ones_like(ids)
    logits: Tensor = model(input_ids=ids, attention_mask=mask, logits_to_keep=count + 1).logits
    chosen = logits[0, -count - 1 : -1].float().log_softmax(dim=-1)
    wanted = ids[0, part.answer_start :].unsqueeze(-1)
    return -chosen.gather(-1, wanted).mean().item(), count


@torch.inference_mode()
def _written(
    model: Any, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[int]], most: int
) -> list[tuple[str, bool]]:
    """Write a greedy answer to each prompt: its text, and whether it ended by itself.

    A batch that does not fit into the card's memory is tried in halves.
    """
    filler = tokenizer.pad_token_id
    filler = int(tokenizer.eos_token_id if filler is None else filler)
    width = max(map(len, prompts))
    ids = [[filler] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    try:
        found = model.generate(
            input_ids=torch.tensor(ids, device=model.device),
            attention_mask=torch.tensor(mask, device=model.device),
            max_new_tokens=most,
            do_sample=False,
            pad_token_id=filler,
        )
    except torch.cuda.OutOfMemoryError:
        if len(prompts) == 1:
            raise
        torch.cuda.empty_cache()
        half = len(prompts) // 2
        return [
            *_written(model, tokenizer, prompts[:half], most),
            *_written(model, tokenizer, prompts[half:], most),
        ]
    stops = _stops(model, tokenizer)
    return [_decoded(tokenizer, row, stops) for row in found[:, width:].tolist()]


def _stops(model: Any, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    configured = model.generation_config.eos_token_id
    listed = configured if isinstance(configured, list) else [configured]
    return {stop for stop in (*listed, tokenizer.eos_token_id) if stop is not None}


def _decoded(
    tokenizer: PreTrainedTokenizerBase, row: Sequence[int], stops: set[int]
) -> tuple[str, bool]:
    end = next((place for place, token in enumerate(row) if token in stops), None)
    text = tokenizer.decode(list(row[:end]), skip_special_tokens=True)
    return str(text).replace("\0", "").strip(), end is not None


def main(path: Path) -> int:
    """Print the lines; 2 and a sentence on standard error when the job cannot be done as told."""
    logging.basicConfig(level=logging.WARNING)
    try:
        for line in evaluate(Job.read(path)):
            print(json.dumps(line), flush=True)
    except (bases.CannotRun, InvalidConfig, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Usage: python -m finetune.evaluating job.json")
    sys.exit(main(Path(sys.argv[1])))
