"""Fine-tune an adapter, from a frozen snapshot to a folder that a server loads. No Django.

    python -m finetune.recipe config.json

where the file has the settings of `TrainingConfig` and, beside them, "data" (the snapshot) and
"out" (a folder of this run alone). Ends with 0 when the adapter stands, with 3 after a checkpoint
was asked for by SIGTERM, with 4 while another process trains in the folder, with 2 and a sentence
when it cannot run as told. The same command again goes on from the newest whole checkpoint, and
gives bit for bit the weights of an undisturbed run (CPU, fp32, the same number of threads): order,
learning rate and random numbers of a step follow from the seed and the step, and nothing else is
carried over than what a checkpoint holds.
"""

import hashlib
import importlib.metadata
import json
import logging
import math
import os
import platform
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import jinja2
import torch
from accelerate import Accelerator
from peft import (
    PeftModel,
    get_peft_model_state_dict,
)
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, logsigmoid
from torch.utils.checkpoint import checkpoint
from transformers import (
    PreTrainedTokenizerBase,
)

from finetune import bases, chat_templates, checkpoints, contract, packing, processes
from finetune.bases import CannotRun
from finetune.examples import Example, Prepared, SnapshotUnreadable, prepare, read_lines
from finetune.hyperparameters import InvalidConfig, TrainingConfig

logger = logging.getLogger("finetune.recipe")

METRICS = "metrics.jsonl"
REFUSED, STOPPED, TAKEN = 2, 3, 4
OUTCOME, RANK = "outcome.json", "rank-{}"
_PACKAGES = ("torch", "transformers", "peft", "accelerate", "safetensors", "tokenizers")
# So many rows of logits are raised to fp32 at once; all of them would double the peak.
LOGIT_ROWS = 1024
# transformers tells flash attention where parts begin only in a batch of one row.
_ONE_ROW = ("flash_attention_2",)

OnStep = Callable[[Mapping[str, Any]], None]
Weights = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a run. `adapter` is None when it was stopped; the losses are nats."""

    adapter: Path | None
    step: int
    loss: float | None
    base_loss: float | None
    seconds: float

    @property
    def finished(self) -> bool:
        return self.adapter is not None


@dataclass(slots=True)
class Progress:
    """What a checkpoint carries beside tensors. `waiting`: evaluations without gain, in a row."""

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    base_loss: float | None = None
    best_loss: float | None = None
    best_step: int = 0
    waiting: int = 0

    def note_evaluation(self, loss: float) -> bool:
        """Take in a validation loss; True when it is the best so far."""
        if self.best_loss is not None and loss >= self.best_loss:
            self.waiting += 1
            return False
        self.best_loss, self.best_step, self.waiting = loss, self.step, 0
        return True


@dataclass(slots=True)
class Run:
    """What the steps of a run share."""

    config: TrainingConfig
    out: Path
    device: Accelerator
    model: PeftModel
    wrapped: nn.Module  # `model`, or what spreads it over several processes
    filler: int
    bf16: bool
    optimizer: torch.optim.Optimizer
    examples: list[Example]
    validation: list[Example]
    order: packing.Order
    total: int
    about: dict[str, Any]
    report: Callable[..., None] = lambda *_, **__: None
    progress: Progress = field(default_factory=Progress)
    best: Weights = field(default_factory=dict)


def train(
    config: TrainingConfig,
    data: Path,
    out: Path,
    *,
    on_step: OnStep | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    longest_first: bool = False,
) -> Result:
    """Train an adapter on a snapshot; goes on where an earlier call in `out` ended.

    `on_step` gets each line of the metrics file. When `should_stop` says so, the step at hand is
    finished, a checkpoint is written and the result has no adapter. `longest_first`: for a trial,
    see `Order`. Raises CannotRun, ContractBroken and SnapshotUnreadable, each with sentences, and
    FolderTaken.
    """
    device = Accelerator(cpu=not torch.cuda.is_available())
    # One process of several holds the folder for all.
    alone = checkpoints.sole_user(out) if device.is_main_process else nullcontext()
    with alone, bases.enough_memory():
        base = bases.find(config)
        tokenizer = bases.load_tokenizer(base)
        about = _about(config, data, base, tokenizer, device)
        if done := _finished(out, about):
            return done
        _refuse_misfit(config, base)
        run = _start(config, base, tokenizer, data, out, device, about, longest_first)
        with _metrics(run, on_step):
            _resume(run)
            if _steps(run, should_stop):
                return _result(run.progress, None)
            return _publish(run, base)


# Reading


def _about(
    config: TrainingConfig,
    data: Path,
    base: Path,
    tokenizer: PreTrainedTokenizerBase,
    device: Accelerator,
) -> dict[str, Any]:
    """Gather what the result depends on; a checkpoint of other facts is not gone on with."""
    return {
        "config": config.to_dict(),
        "data_sha256": checkpoints.sha256_of(data),
        "base": {
            "name": config.base_model,
            "revision": bases.commit_of(base) or config.revision,
            "files": {
                **checkpoints.hashes_of(base, "*.safetensors"),
                **checkpoints.hashes_of(base, "*.json"),
            },
        },
        "template_sha256": chat_templates.fingerprint(tokenizer.chat_template),
        "processes": device.num_processes,
        "device": bases.device_name(),
    }


def _refuse_misfit(config: TrainingConfig, base: Path) -> None:
    settings = json.loads((base / "config.json").read_text())
    if problems := contract.check_config(config, settings):
        raise contract.ContractBroken(problems)
    longest = settings.get("max_position_embeddings")
    if longest and config.max_length > longest:
        raise CannotRun(
            f"max_length is {config.max_length:,}, this base reads at most {longest:,} tokens."
        )


def _read(
    config: TrainingConfig, data: Path, tokenizer: PreTrainedTokenizerBase, about: dict[str, Any]
) -> tuple[list[Example], list[Example]]:
    train_rows = prepared(config, data, tokenizer, "train")
    validation_rows = prepared(config, data, tokenizer, "validation")
    if not train_rows.examples:
        reasons = {dropped.reason for dropped in train_rows.dropped}
        raise CannotRun(" ".join(["No row is left to train on.", *sorted(reasons)]))
    about["rows"] = {
        name: {
            "kept": len(rows.examples),
            "truncated": [each.number for each in rows.examples if each.truncated],
            "dropped": [asdict(each) for each in rows.dropped],
        }
        for name, rows in (("train", train_rows), ("validation", validation_rows))
    }
    return train_rows.examples, validation_rows.examples


def prepared(
    config: TrainingConfig, data: Path, tokenizer: PreTrainedTokenizerBase, split: Any
) -> Prepared:
    """Tokenize a split as the run will; the pre-flight page shows the same."""
    try:
        return prepare(
            read_lines(data, split),
            tokenizer,
            max_length=config.max_length,
            preferences=config.method == "dpo",
        )
    except jinja2.TemplateError as error:
        raise CannotRun(f"The base's chat template refuses these messages: {error}") from error


# Building


def _start(
    config: TrainingConfig,
    base: Path,
    tokenizer: PreTrainedTokenizerBase,
    data: Path,
    out: Path,
    device: Accelerator,
    about: dict[str, Any],
    longest_first: bool,
) -> Run:
    examples, validation = _read(config, data, tokenizer, about)
    bf16 = _wants_bf16(config)
    torch.manual_seed(config.seed)
    with bases.fitting(base):
        model = bases.adapted(bases.load_to_train(config, base, bf16=bf16), config)
    filler = tokenizer.pad_token_id
    order = order_of(config, examples, processes=device.num_processes, longest_first=longest_first)
    return Run(
        config=config,
        out=out,
        device=device,
        model=model,
        wrapped=device.prepare_model(model),
        filler=int(tokenizer.eos_token_id if filler is None else filler),
        bf16=bf16,
        optimizer=torch.optim.AdamW(
            _learning(model).values(), lr=config.learning_rate, weight_decay=config.weight_decay
        ),
        examples=examples,
        validation=validation,
        order=order,
        total=config.total_steps(order.steps_an_epoch),
        about=about,
    )


def order_of(
    config: TrainingConfig,
    examples: Sequence[Example],
    *,
    processes: int = 1,
    longest_first: bool = False,
) -> packing.Order:
    return packing.Order(
        [example.length for example in examples],
        # A preference has two answers, which lie in one row.
        capacity=config.max_length * (2 if config.method == "dpo" else 1),
        packing=config.packing,
        seed=config.seed,
        batch_size=config.batch_size,
        accumulation=config.accumulation,
        processes=processes,
        longest_first=longest_first,
    )


def _wants_bf16(config: TrainingConfig) -> bool:
    able = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return able if config.precision == "auto" else config.precision == "bf16"


def _learning(model: nn.Module) -> dict[str, nn.Parameter]:
    """Give the parameters that learn, by name, in the model's order."""
    return {name: each for name, each in model.named_parameters() if each.requires_grad}


# The steps


def _steps(run: Run, should_stop: Callable[[], bool]) -> bool:
    """Train to the end; True when stopped before, with a checkpoint written."""
    config, progress = run.config, run.progress
    evaluate_every = config.evaluate_every or math.ceil(run.total / 10)
    checkpoint_every = config.checkpoint_every or math.ceil(run.total / 10)
    began, saved = time.monotonic() - progress.seconds, time.monotonic()
    if not progress.step and run.validation:
        progress.base_loss = _evaluate(run)
    while progress.step < run.total and not _lost_patience(run):
        progress.step += 1
        _step(run)
        last = progress.step == run.total
        due = last or progress.step % evaluate_every == 0
        if due and run.validation and progress.note_evaluation(_evaluate(run)):
            run.best = _copied(run.model)
        progress.seconds = time.monotonic() - began
        late = time.monotonic() - saved > config.checkpoint_every_s
        stop, late = _anywhere(run, should_stop(), late)
        if last or stop or late or progress.step % checkpoint_every == 0:
            _save(run)
            saved = time.monotonic()
        if stop and not last:
            return True
    return False


def _lost_patience(run: Run) -> bool:
    return bool(run.config.patience) and run.progress.waiting >= run.config.patience


def _anywhere(run: Run, *flags: bool) -> list[bool]:
    """Say for each flag whether it is set in any process, so that all decide alike."""
    if run.device.num_processes == 1:
        return list(flags)
    counted = torch.tensor(flags, dtype=torch.float32, device=run.device.device)
    return [bool(flag) for flag in run.device.reduce(counted)]


def _step(run: Run) -> None:
    """Update the weights once.

    The loss of every batch is a sum, divided by what the whole step learns over all batches and
    processes: so accumulated batches, and cards, give what one big batch would.
    """
    began = time.monotonic()
    step, processes = run.progress.step, run.device.num_processes
    batches = run.order.step(step)
    numbers = [index for batch in batches for rows in batch for row in rows for index in row]
    examples = [run.examples[index] for index in numbers]
    share = _learned(run.config, examples)
    total = torch.zeros((), device=run.device.device)
    for number, batch in enumerate(batches):
        torch.manual_seed(_seed_of(run, number))
        last = number == len(batches) - 1
        with nullcontext() if last else run.device.no_sync(run.wrapped):
            rows = [[run.examples[i] for i in row] for row in batch[run.device.process_index]]
            loss = _loss(run, rows) / share
            # Several processes average their gradients, where a sum is wanted.
            (loss * processes).backward()
        total += loss.detach()
    rate, norm = _update(run)
    value = float(run.device.reduce(total))
    _refuse_no_number(value, step)
    tokens = sum(example.length for example in examples)
    run.progress.tokens += tokens
    run.report(
        "train",
        step=step,
        steps=run.total,
        loss=value,
        learning_rate=rate,
        gradient_norm=norm,
        tokens=tokens,
        tokens_per_s=tokens / (time.monotonic() - began),
        memory_bytes=peak_memory(),
    )


def _refuse_no_number(loss: float, step: int) -> None:
    if not math.isfinite(loss):
        raise CannotRun(
            f"The loss is no longer a number in step {step}. Try a lower learning rate."
        )


def _learned(config: TrainingConfig, examples: Sequence[Example]) -> int:
    """Count what a loss is divided by: tokens to learn, or preferences."""
    if config.method == "dpo":
        return len(examples)
    return sum(example.learned for example in examples)


def _seed_of(run: Run, batch: int) -> int:
    """Draw a seed for one batch, so that a resumed run needs no state of a generator."""
    text = f"{run.config.seed}/{run.progress.step}/{batch}/{run.device.process_index}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])


def _update(run: Run) -> tuple[float, float]:
    """Apply the gradients; gives the learning rate and the gradients' norm before clipping."""
    rate = run.config.learning_rate_at(run.progress.step, run.total)
    learning = _learning(run.model).values()
    norm = nn.utils.clip_grad_norm_(learning, run.config.max_gradient_norm)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    run.optimizer.step()
    run.optimizer.zero_grad()
    return rate, float(norm)


@torch.no_grad()
def _evaluate(run: Run) -> float:
    """Give the validation loss, in nats a token to learn (or a preference), over all processes."""
    began = time.monotonic()
    order = order_of(run.config, run.validation, processes=run.device.num_processes)
    total = torch.zeros((), device=run.device.device)
    run.model.eval()
    for step in range(1, order.steps_an_epoch + 1):
        for batch in order.step(step):
            mine = batch[run.device.process_index]
            total += _loss(run, [[run.validation[index] for index in row] for row in mine])
    run.model.train()
    loss = float(run.device.reduce(total)) / _learned(run.config, run.validation)
    _refuse_no_number(loss, run.progress.step)
    seconds = time.monotonic() - began
    run.report("evaluation", step=run.progress.step, loss=loss, seconds=seconds)
    return loss


# The loss


def _loss(run: Run, rows: Sequence[Sequence[Example]]) -> Tensor:
    """Sum the loss of a batch: over its tokens to learn, or over its preferences."""
    # Only with LoRA are parts of one row kept apart, by their positions.
    alone = run.config.adapter != "lora"
    if run.config.attention in _ONE_ROW and rows and not alone:
        rows = [[example for row in rows for example in row]]
    batch = _Batch.of(rows, filler=run.filler, device=run.device.device, alone=alone)
    losses = _token_losses(run, run.wrapped, batch)
    if run.config.method == "sft":
        return losses.sum()
    with torch.no_grad(), run.model.disable_adapter():
        base_losses = _token_losses(run, run.model, batch)
    # How much likelier the adapter makes each answer than the base does, in nats.
    gained = torch.zeros(batch.parts, device=losses.device)
    gained = gained.index_add(0, batch.part, base_losses - losses)  # (parts,)
    return -logsigmoid(run.config.beta * (gained[0::2] - gained[1::2])).sum()


@dataclass(frozen=True, slots=True)
class _Batch:
    """Rows of one width as tensors; T tokens to learn in all, in `parts` answers.

    ids, positions, attended: (B, W). row, place, token, part: (T,), where token is read from the
    prediction at `place`, one before its own.
    """

    ids: Tensor
    positions: Tensor
    attended: Tensor
    row: Tensor
    place: Tensor
    token: Tensor
    part: Tensor
    parts: int

    @classmethod
    def of(
        cls,
        rows: Sequence[Sequence[Example]],
        *,
        filler: int,
        device: torch.device,
        alone: bool = False,
    ) -> "_Batch":
        """Build a batch; without rows, one of a single token that nobody learns.

        `alone`: each part in a row of its own, for models that would see all of a row.
        """
        parts = [[part for example in row for part in example.parts] for row in rows]
        if alone:
            parts = [[part] for row in parts for part in row]
        width = max((sum(len(part.ids) for part in row) for row in parts), default=1)
        parts = parts or [[]]
        laid = [packing.lay(row, width=width, filler=filler) for row in parts]
        before = [sum(map(len, parts[:row])) for row in range(len(parts))]
        targets = [
            (row, place - 1, token, before[row] + part)
            for row, each in enumerate(laid)
            for place, token, part in each.targets
        ]
        columns = torch.tensor(targets, dtype=torch.long, device=device).reshape(-1, 4).T
        attended = [[1] * each.length + [0] * (width - each.length) for each in laid]
        return cls(
            torch.tensor([each.ids for each in laid], device=device),
            torch.tensor([each.positions for each in laid], device=device),
            torch.tensor(attended, device=device),
            *(columns[0], columns[1], columns[2], columns[3]),
            sum(map(len, parts)),
        )


def _token_losses(run: Run, model: nn.Module, batch: _Batch) -> Tensor:
    """Give the loss of each token to learn, (T,) in nats, fp32."""
    inputs = {"input_ids": batch.ids, "use_cache": False}
    if run.config.adapter == "lora":
        # No mask: from positions that start again the model sees where parts begin.
        inputs["position_ids"] = batch.positions
    else:
        inputs["attention_mask"] = batch.attended
    kind = run.device.device.type
    with (
        torch.autocast(kind, dtype=torch.bfloat16, enabled=run.bf16),
        _only(bases.base_of(run.model).get_output_embeddings(), batch),
    ):
        logits = model(**inputs).logits[0]  # (T, vocabulary)
    chunks = zip(logits.split(LOGIT_ROWS), batch.token.split(LOGIT_ROWS), strict=True)
    return torch.cat([_cross_entropy(some, tokens) for some, tokens in chunks])


@contextmanager
def _only(head: nn.Module, batch: _Batch) -> Iterator[None]:
    """Let the head see only the states that predict a token to learn.

    Most of a row is prompt, and a vocabulary is many times wider than a state: the head's work and
    its logits are what a plain loop spends most on.
    """
    width = batch.ids.shape[1]

    def pick(_: nn.Module, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        # (B, virtual tokens + W, D) to (1, T, D)
        return (states[0][:, -width:][batch.row, batch.place].unsqueeze(0), *states[1:])

    hook = head.register_forward_pre_hook(pick)
    try:
        yield
    finally:
        hook.remove()


def _cross_entropy(logits: Tensor, tokens: Tensor) -> Tensor:
    """Compute in fp32, which for the gradient is made a second time instead of kept."""

    def compute(logits: Tensor, tokens: Tensor) -> Tensor:
        return cross_entropy(logits.float(), tokens, reduction="none")

    if len(tokens) < LOGIT_ROWS or not logits.requires_grad:
        return compute(logits, tokens)
    losses: Tensor = checkpoint(compute, logits, tokens, use_reentrant=False)
    return losses


# Checkpoints


def _save(run: Run) -> None:
    """Write a checkpoint: the weights, the best so far, the optimizer and the progress."""
    if run.device.is_main_process:
        step = run.progress.step
        path = checkpoints.path_of(run.out, step)
        checkpoints.publish(path, lambda folder: _write_state(run, folder))
        checkpoints.prune(run.out, keep=run.config.keep_checkpoints)
        run.report("checkpoint", step=step)
    run.device.wait_for_everyone()


def _write_state(run: Run, folder: Path) -> None:
    save_file(_copied(run.model), folder / "weights.safetensors")
    save_file(run.best, folder / "best.safetensors")
    moments = {
        f"{name}/{key}": value.cpu()
        for name, parameter in _learning(run.model).items()
        for key, value in run.optimizer.state[parameter].items()
    }
    save_file(moments, folder / "optimizer.safetensors")
    state = {"progress": asdict(run.progress), "run": _identity(run.about)}
    (folder / "state.json").write_text(json.dumps(state))


def _identity(about: Mapping[str, Any]) -> dict[str, Any]:
    """Keep of a run's facts what its weights depend on."""
    names = ("config", "data_sha256", "base", "template_sha256", "processes")
    kept: dict[str, Any] = json.loads(json.dumps({name: about[name] for name in names}))
    return kept


def _resume(run: Run) -> None:
    """Take over the newest whole checkpoint. Raises CannotRun for one of another run."""
    with run.device.main_process_first():
        found, damaged = checkpoints.newest(run.out)
    for folder in damaged:
        logger.warning("The checkpoint %s is damaged; the one before it is used.", folder.name)
        run.report("damaged", checkpoint=folder.name)
    if found is None:
        run.report("start", steps=run.total)
        return
    state = json.loads((found / "state.json").read_text())
    if changed := _differences(state["run"], _identity(run.about)):
        raise CannotRun(
            f"{run.out} holds the checkpoints of another run: {', '.join(changed)} changed. Use a "
            "new folder."
        )
    run.progress = Progress(**state["progress"])
    run.best = load_file(found / "best.safetensors")
    _put(run.model, load_file(found / "weights.safetensors"))
    _put_moments(run, load_file(found / "optimizer.safetensors"))
    run.report("resume", step=run.progress.step, steps=run.total)
    logger.info("Going on after step %d of %d.", run.progress.step, run.total)


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    names = [name for name in new if name != "config" and old.get(name) != new[name]]
    settings = [name for name, value in new["config"].items() if old["config"].get(name) != value]
    return [*names, *settings]


def _copied(model: nn.Module) -> Weights:
    return {name: each.detach().cpu().clone() for name, each in _learning(model).items()}


def _put(model: nn.Module, weights: Weights) -> None:
    with torch.no_grad():
        for name, parameter in _learning(model).items():
            parameter.copy_(weights[name])


def _put_moments(run: Run, moments: Weights) -> None:
    for name, parameter in _learning(run.model).items():
        state = run.optimizer.state[parameter]
        for key, value in moments.items():
            owner, _, kind = key.rpartition("/")
            if owner == name:
                state[kind] = value if kind == "step" else value.to(parameter.device)


# The result


def _publish(run: Run, base: Path) -> Result:
    """Save the best weights as an adapter, checked, under a name made from its digest."""
    if run.best:
        _put(run.model, run.best)
    weights = _adapter_weights(run)
    digest = hashlib.sha256(weights).hexdigest()
    config, progress = run.config, run.progress
    folder = run.out / contract.adapter_name(config.slug, config.version, digest)
    settings = json.loads((base / "config.json").read_text())

    def write(aside: Path) -> None:
        (aside / contract.WEIGHTS).write_bytes(weights)
        (aside / contract.CONFIG).write_text(json.dumps(_adapter_config(run), indent=2) + "\n")
        if problems := contract.check_adapter(aside, settings, config.server, shards=config.shards):
            raise contract.ContractBroken(problems)

    if run.device.is_main_process:
        about = {
            "name": folder.name,
            **run.about,
            "progress": asdict(progress),
            "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
            "python": platform.python_version(),
            "peak_memory_bytes": peak_memory(),
        }
        checkpoints.publish(folder, write, about=about)
        run.report("end", step=progress.step, adapter=folder.name, seconds=progress.seconds)
    run.device.wait_for_everyone()
    return _result(progress, folder)


def _adapter_weights(run: Run) -> bytes:
    """Give the adapter as a safetensors file, in the type in which it is served."""
    tensors = get_peft_model_state_dict(run.model, save_embedding_layers=False)
    kind = torch.bfloat16 if run.bf16 else torch.float32
    kept = {name: tensors[name].detach().to("cpu", kind).contiguous() for name in sorted(tensors)}
    return save(kept, metadata={"format": "pt"})


def _adapter_config(run: Run) -> dict[str, Any]:
    settings = run.model.peft_config["default"].to_dict()
    values = {key: getattr(value, "value", value) for key, value in settings.items()}
    values.update(
        base_model_name_or_path=run.config.base_model,
        revision=run.about["base"]["revision"] or None,
        inference_mode=True,
    )
    values.pop("auto_mapping", None)
    return contract.slim(values)


def _finished(out: Path, about: Mapping[str, Any]) -> Result | None:
    """Find the adapter that this very run left in an earlier call."""
    for folder in sorted(out.glob("*")):  # which another process may still be about to make
        if not contract.is_adapter_name(folder.name):
            continue
        manifest = checkpoints.manifest_of(folder)
        if manifest and not _differences(_identity(manifest), _identity(about)):
            return _result(Progress(**manifest["progress"]), folder)
    return None


def _result(progress: Progress, adapter: Path | None) -> Result:
    return Result(adapter, progress.step, progress.best_loss, progress.base_loss, progress.seconds)


@contextmanager
def _metrics(run: Run, on_step: OnStep | None) -> Iterator[None]:
    """Report to the metrics file, a line of JSON an event; a reader may follow it as it grows.

    After a "resume" line at step n, lines of later steps that stand before it are void.
    """
    if not run.device.is_main_process:
        yield
        return
    path = run.out / METRICS
    torn = path.exists() and path.read_bytes()[-1:] not in (b"", b"\n")
    with path.open("a", encoding="utf-8") as file:
        if torn:
            file.write("\n")  # after the line at which an earlier process was killed

        def report(event: str, **values: Any) -> None:
            line = {"event": event, "time": time.time(), **values}
            print(json.dumps(line), file=file, flush=True)
            if on_step:
                on_step(line)

        run.report = report
        yield


def peak_memory() -> int:
    """Give the most bytes used so far: of the card if there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts kibibytes


# From a shell


def main(settings_file: Path) -> int:
    """Run what a file of settings says; gives the exit code.

    SIGTERM asks for a checkpoint; so does the end of the process whose mark is in RECIPE_PARENT. In
    the folder RECIPE_FOLDER each process leaves its own mark, and the first to end the outcome:
    a launcher between this and the parent passes neither on.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    asked: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        asked.append(number)

    signal.signal(signal.SIGTERM, note)
    _tell(RANK.format(os.environ.get("RANK", "0")), processes.mark_of(os.getpid()))
    code, sentence = _ended(settings_file, lambda: _left_alone() or bool(asked))
    logger.log(logging.ERROR if code in (REFUSED, TAKEN) else logging.INFO, "%s", sentence)
    _tell(OUTCOME, json.dumps({"code": code, "sentence": sentence}))
    return code


def _ended(settings_file: Path, should_stop: Callable[[], bool]) -> tuple[int, str]:
    try:
        config, data, out = read_settings(settings_file)
        result = train(config, data, out, on_step=_log, should_stop=should_stop)
    except checkpoints.FolderTaken as error:
        return TAKEN, str(error)
    except (
        CannotRun,
        InvalidConfig,
        contract.ContractBroken,
        SnapshotUnreadable,
        OSError,
    ) as error:
        return REFUSED, str(error)
    if torch.distributed.is_initialized():
        # Or the last message to another process may be lost with this one's end.
        torch.distributed.destroy_process_group()
    if not result.finished:
        return STOPPED, f"Stopped after step {result.step}; the same command goes on from there."
    return 0, str(result.adapter)


def _tell(name: str, text: str) -> None:
    """Leave a file for who started this, unless another process has done so."""
    if folder := os.environ.get("RECIPE_FOLDER"):
        with suppress(OSError), (Path(folder) / name).open("x") as file:
            file.write(text)


def _left_alone() -> bool:
    """Say whether the agent that started this process, or its launcher, is gone."""
    parent = os.environ.get("RECIPE_PARENT")
    return parent is not None and not processes.is_running(parent)


def read_settings(path: Path) -> tuple[TrainingConfig, Path, Path]:
    """Read the settings; "data" and "out" count from the folder of the file."""
    try:
        values = json.loads(path.read_text())
        data, out = (path.parent / values.pop(name) for name in ("data", "out"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CannotRun(
            f"{path} must be a JSON object with the settings, “data” and “out”: {error!r}"
        ) from error
    return TrainingConfig.from_dict(values), data, out


def _log(line: Mapping[str, Any]) -> None:
    shown = {
        key: f"{value:.4g}" if isinstance(value, float) else value
        for key, value in line.items()
        if key not in ("event", "time")
    }
    words = " ".join(f"{key}={value}" for key, value in shown.items())
    logger.info("%s %s", line["event"], words)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Usage: python -m finetune.recipe config.json")
    sys.exit(main(Path(sys.argv[1])))
