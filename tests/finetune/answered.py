"""Evaluations whose answers are given, counted as real ones are. No torch."""

from pathlib import Path
from tempfile import mkdtemp

from django.conf import settings

from finetune import evaluation, gate, suites
from finetune.gate import Rules
from finetune.models import Adapter, Dataset, Evaluation, EvaluationItem
from finetune.suites import Question
from kb.models import Job
from kb.prompts import Source, build_messages
from tests.finetune.activating import make_adapter

THINGS = ("glacier", "harbour", "lantern", "orchard", "quarry", "viaduct", "windmill", "granary")


def adapter_of(dataset: Dataset, name: str = "notes-v1-0000000a") -> Adapter:
    return make_adapter(dataset, name, data_dir=Path(mkdtemp(dir=settings.DATA_DIR)))


def question(position: int) -> Question:
    thing = THINGS[position]
    source = Source(1, "Handbook", (), 1, f"The {thing} is red.", 0.0)
    asked = f"Which colour does the {thing} have?"
    sourced = [
        {"role": turn.role, "content": turn.content} for turn in build_messages(asked, [source])
    ]
    return Question(
        "test", position, asked, f"The {thing} is red [1].", [{"role": "user", "content": asked}],
        sourced=sourced,
    )  # fmt: skip


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
    for position, thing in enumerate(THINGS):
        for cell in evaluation.CELLS:
            right = cell.startswith("adapter") == better
            output = f"The {thing} is red [1]." if right else f"<b>Nobody</b> knows {thing}s."
            line = {"nats": 0.5 if right else 2.0, "tokens": 7, "output": output, "ended": True}
            write(made, question(position), cell, line)
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
