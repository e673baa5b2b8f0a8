"""Adapters as a run leaves them, evaluated or not."""

import shutil
from pathlib import Path
from typing import Any

from finetune import activation, checkpoints
from finetune.models import (
    Activation,
    Adapter,
    Dataset,
    DatasetSnapshot,
    Evaluation,
    TrainingRun,
)
from kb.models import Collection, Conversation, Job, Message, ModelDeployment, User


def make_run(dataset: Dataset, **fields: Any) -> TrainingRun:
    number = dataset.snapshots.count() + 1
    job = Job.objects.create(kind=Job.Kind.FREEZE, state=Job.State.DONE)
    snapshot = DatasetSnapshot.objects.create(dataset=dataset, number=number, job=job)
    snapshot.audience.add(dataset.collection)
    DatasetSnapshot.objects.filter(pk=snapshot.pk).update(state="ready")
    snapshot.refresh_from_db()
    return TrainingRun.objects.create(snapshot=snapshot, name=f"Run {number}", **fields)


def make_adapter(
    dataset: Dataset, name: str, *also: Collection, weights: Path | None = None, data_dir: Path
) -> Adapter:
    """Register an adapter of random weights, or of the folder `weights`, below `data_dir`."""
    folder = data_dir / "adapters" / name
    if weights is not None:
        shutil.copytree(weights, folder)
    else:
        folder.mkdir(parents=True)
        (folder / "adapter_model.safetensors").write_bytes(name.encode())
    run = make_run(dataset, state="succeeded")
    adapter = Adapter.objects.create(
        run=run,
        name=name,
        base_model="base",
        files=checkpoints.hashes_of(folder),
        contract={"own": [], "vllm": [], "tgi": []},
        audience_size=1 + len(also),
    )
    adapter.audience.add(dataset.collection, *also)
    return adapter


def evaluate(adapter: Adapter, *, passed: bool = True) -> Evaluation:
    line = {"name": "f1", "passed": passed, "sentence": "Token F1 fell by 12 %."}
    return Evaluation.objects.create(
        adapter=adapter,
        state="done",
        passed=passed,
        gate={"passed": passed, "lines": [line]},
        job=Job.objects.create(kind=Job.Kind.EVALUATE, state=Job.State.DONE),
    )


def work_off_activation() -> None:
    job = Job.objects.claim(Job.Kind.ACTIVATE)
    assert job is not None
    activation.activate(job)


def deployed(adapter: Adapter, user: User, **fields: Any) -> Activation:
    """Write down that an adapter serves, without any server."""
    others = activation.chain("tgi")
    deployment = ModelDeployment.objects.create(
        base_model="tgi",
        adapter_name=adapter.name,
        share=fields.get("share", 1.0),
        audience_size=adapter.audience_size,
        otherwise=others[0] if others else None,
        created_by=user,
    )
    deployment.audience.set(adapter.audience.all())
    return Activation.objects.create(
        adapter=adapter,
        state="deployed",
        deployment=deployment,
        requested_by=user,
        **{"deployed_at": deployment.created_at, **fields},
    )


def speaker(user: User) -> str:
    """Name the adapter that answers a new conversation of a person; "" for the base."""
    conversation = Conversation.objects.create(user=user)
    found = ModelDeployment.objects.current_for(conversation, "tgi")
    return found.adapter_name if found else ""


def answers(
    user: User, count: int, *, label: str, deployment: ModelDeployment | None, **fields: Any
) -> list[Message]:
    conversation = Conversation.objects.create(user=user)
    return [
        Message.objects.create(
            conversation=conversation,
            role="assistant",
            text="An answer.",
            generator=label,
            deployment=deployment,
            **fields,
        )
        for _ in range(count)
    ]
