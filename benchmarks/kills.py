"""Kill training again and again, and compare its weights with those of an undisturbed run.

`script/bench kills [--kills 20] [--seed 0] [--save]`: a tiny model is trained twice with the same
settings, on one thread in fp32. The second run is ended with SIGKILL, by turns at a random moment
some steps further and while a checkpoint is being written; after every fifth kill the newest
checkpoint is damaged as well. Each time the run is started again, in a process of its own. The
program fails when the adapters differ in a single bit.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from transformers.utils import logging as transformers_logging

from finetune import base_model, checkpoints, contract, recipe
from finetune.hyperparameters import TrainingConfig

ROOT = Path(__file__).resolve().parents[1]
CHECKPOINT_EVERY = 3
STEPS_A_KILL = 8


@dataclass
class Outcome:
    """`steps_lost` were trained again because they came after the last whole checkpoint."""

    kills: int = 0
    while_writing: int = 0
    damaged: int = 0
    steps: int = 0
    steps_lost: int = 0
    killed_at: list[int] = field(default_factory=list)
    sha256: str = ""
    identical: bool = False


def in_child(work: Callable[[], object]) -> int:
    """Do something in a process of its own; gives its id. It shares our imports, nothing else."""
    sys.stdout.flush()
    if child := os.fork():
        return child
    try:
        work()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)


def finish(child: int) -> None:
    if code := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise RuntimeError(f"a training process ended with {code}")


def write_data(path: Path) -> None:
    """Make pairs out of the project's own pages: a heading asks, its section answers."""
    lines = []
    for page in sorted((ROOT / "docs").glob("*.md")):
        for number, section in enumerate(page.read_text().split("\n## ")[1:]):
            question, _, answer = section.partition("\n")
            messages = [
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer.strip()[:200] or "Nothing."},
            ]
            split = "validation" if number % 5 == 4 else "train"
            lines.append(json.dumps({"messages": messages, "split": split}))
    path.write_text("\n".join(lines[:60]))


def settings(base: Path, steps: int) -> TrainingConfig:
    return TrainingConfig(
        base_model=str(base),
        epochs=1000,
        max_steps=steps,
        batch_size=1,
        max_length=256,
        learning_rate=3e-3,
        dropout=0.1,
        precision="fp32",
        evaluate_every=7,
        checkpoint_every=CHECKPOINT_EVERY,
        patience=0,
    )


def digest(out: Path) -> str:
    (weights,) = out.glob(f"*/{contract.WEIGHTS}")
    return checkpoints.sha256_of(weights)


def last_step(out: Path) -> int:
    """Read the newest step that was reported, of a file that may end in the middle of a line."""
    steps = [0]
    path = out / recipe.METRICS
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if row["event"] in ("train", "resume"):
            steps.append(row["step"])
    return steps[-1]


def kill_once(child: int, out: Path, chance: random.Random, *, while_writing: bool) -> bool:
    """Kill the child some steps further on; False when it ended before that."""
    resumed_from = max(map(checkpoints.step_of, out.glob("step-*")), default=0)
    goal = resumed_from + chance.randint(1, STEPS_A_KILL)
    delay = chance.random() * 0.05
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        # A run that resumes reports its old steps no more: the goal lies after them.
        if last_step(out) >= goal and (not while_writing or any(out.glob(".writing-*"))):
            if not while_writing:
                time.sleep(delay)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return True
        time.sleep(0.0002 if while_writing else 0.002)
    return False


def damage_newest(out: Path) -> None:
    newest = max(out.glob("step-*"))
    with (newest / "optimizer.safetensors").open("r+b") as file:
        file.seek(-3, os.SEEK_END)
        file.write(b"\xff\xff\xff")


def disturb(train: Callable[[Path], None], out: Path, kills: int, seed: int) -> Outcome:
    """Train to the end with so many kills on the way."""
    chance, outcome = random.Random(seed), Outcome()
    while outcome.kills < kills:
        while_writing = outcome.kills % 2 == 1
        child = in_child(lambda: train(out))
        if not kill_once(child, out, chance, while_writing=while_writing):
            raise RuntimeError("the run ended before it could be killed often enough")
        outcome.kills += 1
        outcome.while_writing += any(out.glob(".writing-*"))
        reached = last_step(out)
        outcome.killed_at.append(reached)
        whole = sorted(out.glob("step-*"))
        if outcome.kills % 5 == 0 and len(whole) > 1:
            damage_newest(out)
            outcome.damaged += 1
            whole.pop()
        outcome.steps_lost += reached - (checkpoints.step_of(whole[-1]) if whole else 0)
    finish(in_child(lambda: train(out)))
    return outcome


def measure(folder: Path, *, kills: int, seed: int) -> Outcome:
    base, data = folder / "base", folder / "snapshot.jsonl"
    write_data(data)
    pages = [page.read_text() for page in sorted((ROOT / "docs").glob("*.md"))]
    finish(
        in_child(
            lambda: base_model.make(base, pages, vocabulary=512, hidden=64, layers=2, steps=10)
        )
    )
    config = settings(base, steps=kills * STEPS_A_KILL)

    def train(out: Path) -> None:
        recipe.train(config, data, out)

    finish(in_child(lambda: train(folder / "undisturbed")))
    outcome = disturb(train, folder / "disturbed", kills, seed)
    outcome.steps = config.max_steps
    outcome.sha256 = digest(folder / "disturbed")
    outcome.identical = outcome.sha256 == digest(folder / "undisturbed")
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    # One thread: a process with several cannot be copied, and sums stay in one order.
    torch.set_num_threads(1)
    transformers_logging.disable_progress_bar()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        outcome = measure(Path(folder), kills=options.kills, seed=options.seed)
    report = {**asdict(outcome), "seconds": round(time.monotonic() - began, 1)}
    print(json.dumps(report, indent=2))
    if options.save:
        path = ROOT / "benchmarks" / "results" / "kills.json"
        path.write_text(json.dumps(report, indent=2) + "\n")
    if not outcome.identical:
        sys.exit("The weights differ from those of the undisturbed run.")


if __name__ == "__main__":
    main()
