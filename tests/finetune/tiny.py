"""Tiny things to train with: texts, snapshots, settings."""

import json
import random
from pathlib import Path
from typing import Any

from finetune.hyperparameters import TrainingConfig

ROOT = Path(__file__).resolve().parents[2]
TEXTS = Path(__file__).with_name("texts")
COLOURS = ("red", "green", "blue", "white", "black", "grey")
THINGS = ("glacier", "harbour", "lantern", "orchard", "quarry", "viaduct", "windmill", "granary")


def own_texts() -> list[str]:
    """Read pages of the project as they once were: what a base learns stays when docs change."""
    return [(TEXTS / f"{name}.txt").read_text() for name in ("readme", "use", "operate")]


def rows(count: int, split: str, *, seed: int = 0) -> list[dict[str, Any]]:
    """Make pairs that a tiny model can learn: which colour a thing has; answers differ in length."""
    chance = random.Random(seed)
    made = []
    for pair in range(count):
        thing = THINGS[pair % len(THINGS)]
        colour = COLOURS[THINGS.index(thing) % len(COLOURS)]
        wrong = COLOURS[(THINGS.index(thing) + 1) % len(COLOURS)]
        extra = " It stands in the valley." * chance.randrange(4)
        messages = [
            {"role": "system", "content": "Answer from the sources." * chance.randrange(1, 4)},
            {"role": "user", "content": f"Which colour does the {thing} have?"},
            {"role": "assistant", "content": f"The {thing} is {colour}.{extra}"},
        ]
        made.append(
            {
                "pair": pair,
                "split": split,
                "messages": messages,
                "rejected": f"The {thing} is {wrong}.",
            }
        )
    return made


def write_snapshot(path: Path, *, train: int = 24, validation: int = 8) -> Path:
    lines = [*rows(train, "train"), *rows(validation, "validation", seed=1)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def config(base: Path, **changes: Any) -> TrainingConfig:
    """Give settings with which a run takes a second or two."""
    settings: dict[str, Any] = {
        "base_model": str(base),
        "epochs": 4,
        "batch_size": 2,
        "max_length": 160,
        "learning_rate": 5e-3,
        "precision": "fp32",
        **changes,
    }
    return TrainingConfig(**settings)
