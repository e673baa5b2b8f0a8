"""Adapters of a tiny base, trained for real, and evaluations worked off as the agent does."""

import json
import random
import threading
import warnings
from pathlib import Path
from typing import Any

from finetune import checkpoints, contract, evaluation, recipe, training
from finetune.models import Adapter, Dataset, Evaluation, TrainingRun
from kb.models import Job
from tests.finetune import tiny
from tests.finetune.answered import freeze

# What is tested was never seen in training.
PLACES = {
    "train": ("northern", "southern", "upper", "inner"),
    "validation": ("eastern", "lower"),
    "test": ("western", "outer"),
}


def rows(count: int, split: str, *, shuffled: bool = False) -> list[dict[str, Any]]:
    """Make pairs that a tiny model can learn: the colour of a thing, wherever it stands.

    `shuffled`: each answer has its letters in any order, so that learning it is harm.
    """
    chance = random.Random(f"rows {split}")
    made = []
    for pair in range(count):
        thing, where = tiny.THINGS[pair % len(tiny.THINGS)], chance.choice(PLACES[split])
        answer = f"The {where} {thing} is {tiny.COLOURS[pair % len(tiny.THINGS) % 6]}."
        if shuffled:
            answer = "".join(chance.sample(answer, len(answer)))
        messages = [
            {"role": "user", "content": f"Which colour does the {where} {thing} have?"},
            {"role": "assistant", "content": answer},
        ]
        made.append({"split": split, "messages": messages, "pair": pair})
    return made


def train(base: Path, out: Path, lines: list[dict[str, Any]], **changes: Any) -> Path:
    """Train an adapter here and give its folder."""
    out.mkdir(parents=True, exist_ok=True)
    data = out / "data.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = tiny.config(base, server="own", **changes)
    result = recipe.train(config, data, out / "run")
    assert result.adapter is not None
    return result.adapter


def merge(base: Path, adapter: Path, folder: Path) -> Path:
    """Make a base that knows what an adapter has learned."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's, about transformers
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(adapter))
        model.merge_and_unload().save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def registered(dataset: Dataset, base: Path, folder: Path, test: list[dict[str, Any]]) -> Adapter:
    """Place a trained folder as the adapter of a run whose snapshot has these test rows."""
    run = TrainingRun.objects.create(
        snapshot=freeze(dataset, test),
        name="Run",
        state=TrainingRun.State.SUCCEEDED,
        config=tiny.config(base, server="own").to_dict(),
        job=Job.objects.create(kind=Job.Kind.TRAIN, state=Job.State.DONE),
    )
    placed = training.adapters_folder() / folder.name
    placed.mkdir(parents=True, exist_ok=True)
    for name in (contract.WEIGHTS, contract.CONFIG):
        (placed / name).write_bytes((folder / name).read_bytes())
    made = Adapter.objects.create(
        run=run,
        name=folder.name,
        base_model=str(base),
        files=checkpoints.hashes_of(placed),
        contract={"own": []},
        audience_size=1,
    )
    made.audience.add(dataset.collection)
    return made


def work_off(stop: threading.Event | None = None) -> None:
    job = Job.objects.claim(Job.Kind.EVALUATE)
    assert job is not None
    evaluation.evaluate(job, stop=stop or threading.Event())


def evaluated(adapter: Adapter) -> Evaluation:
    made = evaluation.start(adapter, None)
    work_off()
    made.refresh_from_db()
    return made
