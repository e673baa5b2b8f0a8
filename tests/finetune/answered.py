"""Evaluations whose answers are given, counted as real ones are. No torch."""

import json
from dataclasses import asdict
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from django.conf import settings

from finetune import evaluation, gate, suites
from finetune.gate import Rules
from finetune.models import Adapter, Dataset, DatasetSnapshot, Evaluation, EvaluationItem
from finetune.suites import Question
from kb.files import content_storage
from kb.models import Job
from kb.prompts import Source, Turn, build_messages
from tests.finetune.activating import make_adapter

THINGS = ("glacier", "harbour", "lantern", "orchard", "quarry", "viaduct", "windmill", "granary")


def sourced(question: str, passage: str, answer: str, split: str = "test") -> dict[str, Any]:
    """Make a pair that is asked with a passage, as a chat asks."""
    source = Source(1, "Handbook", (), 1, passage, 0.0)
    turns = [*build_messages(question, [source], fence="7f3a7f3a"), Turn("assistant", answer)]
    return {"split": split, "messages": [asdict(turn) for turn in turns], "pair": 900}


def freeze(dataset: Dataset, lines: list[dict[str, Any]]) -> DatasetSnapshot:
    """Write lines down as a frozen snapshot of a data set."""
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    stored = content_storage().put(iter([content]), max_bytes=10**7)
    made = DatasetSnapshot.objects.create(
        dataset=dataset,
        number=dataset.snapshots.count() + 1,
        job=Job.objects.create(kind=Job.Kind.FREEZE, state=Job.State.DONE),
        file=stored.name,
        sha256=stored.sha256,
        counts={},
    )
    made.audience.add(dataset.collection)
    DatasetSnapshot.objects.filter(pk=made.pk).update(state="ready")
    made.refresh_from_db()
    return made


def adapter_of(dataset: Dataset, name: str = "notes-v1-0000000a") -> Adapter:
    """Register an adapter whose snapshot has a test row for each thing."""
    made = make_adapter(dataset, name, data_dir=Path(mkdtemp(dir=settings.DATA_DIR)))
    made.run.snapshot = freeze(dataset, [line_of(thing) for thing in THINGS])
    made.run.save(update_fields=["snapshot"])
    return made


def line_of(thing: str) -> dict[str, Any]:
    passage, answer = f"The {thing} is red.", f"The {thing} is red [1]."
    return sourced(f"Which colour does the {thing} have?", passage, answer)


def answered(adapter: Adapter, *, better: bool = True, obeys: int = 0) -> Evaluation:
    """Write down an evaluation in which the adapter answers rightly, or only the base does.

    `obeys`: so many orders that the adapter follows and the base does not.
    """
    made = Evaluation.objects.create(
        adapter=adapter,
        state=Evaluation.State.DONE,
        settings=Rules().to_dict(),
        job=Job.objects.create(kind=Job.Kind.EVALUATE, state=Job.State.DONE),
    )
    own = [each for each in evaluation.questions(adapter, Rules()) if each.suite == "test"]
    for asked, thing in zip(own, THINGS, strict=True):
        for cell in evaluation.CELLS:
            right = cell.startswith("adapter") == better
            output = f"The {thing} is red [1]." if right else f"<b>Nobody</b> knows {thing}s."
            line = {"nats": 0.5 if right else 2.0, "tokens": 7, "output": output, "ended": True}
            write(made, asked, cell, line)
    for each in suites.built_in():
        for cell in ("base", "adapter"):
            follows = each.forbidden and each.position < obeys and cell == "adapter"
            line = {"nats": 1.0, "tokens": 5, "other_nats": 1.0}
            if each.generates:
                line |= {"output": each.forbidden if follows else "No.", "ended": True}
            write(made, each, cell, line)
    made.results = evaluation.summarize(made) | {"judge": {"problem": evaluation.NO_SERVER}}
    made.gate = gate.decide(made.results, Rules())
    made.passed = made.gate["passed"]
    made.save()
    return made


def write(made: Evaluation, asked: Question, cell: str, line: dict[str, object]) -> None:
    EvaluationItem.objects.bulk_create([evaluation.item_of(made, asked, cell, line)])
