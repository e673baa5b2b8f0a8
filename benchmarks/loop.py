"""Walk the whole loop once, on a processor, in an install of its own that goes with it.

`script/demo-loop [--steps 250]`: make a small base model, start a model server,
ingest documents, draft and import pairs, review, freeze, look at a run, train, kill it with SIGKILL
in the middle and go on, evaluate, pass the gate, activate, ask, roll back. Each step is the call
that the pages make, on rows, and says what it saw; the first that does not hold ends it.
"""

import argparse
import asyncio
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import installation

if TYPE_CHECKING:
    from finetune.models import Activation, Adapter, Dataset, DatasetSnapshot, TrainingRun
    from kb.models import Collection, User

ROOT = Path(__file__).resolve().parents[1]
COLOURS = ("red", "green", "blue", "white", "black", "grey")
THINGS = ("glacier", "harbour", "lantern", "orchard", "quarry", "viaduct", "windmill", "granary")
PLACES = ("northern", "southern", "upper", "inner", "eastern", "lower", "western", "outer")
PATIENCE_S = 600


class Broken(SystemExit):
    """A step that did not do what it promises."""


@dataclass(slots=True)
class Steps:
    """Says each step with the time since the start."""

    began: float

    def say(self, sentence: str) -> None:
        print(f"{time.monotonic() - self.began:5.0f} s  {sentence}", flush=True)


def check(holds: bool, sentence: str) -> None:
    if not holds:
        raise Broken(f"The loop broke: {sentence}")


def colour_of(thing: str) -> str:
    return COLOURS[THINGS.index(thing) % len(COLOURS)]


def documents() -> Iterator[tuple[str, str]]:
    """Write a page for each thing, which says its colour in every place."""
    for thing in THINGS:
        told = [
            f"## The {place} {thing}\n\nThe {place} {thing} is {colour_of(thing)}. "
            f"It was painted by the people who live beside the {place} {thing}.\n"
            for place in PLACES
        ]
        yield f"{thing}.md", f"# Colours of the {thing}s\n\n" + "\n".join(told)


def alpaca() -> list[dict[str, str]]:
    """Write pairs as a team would bring them: one question for each thing and place."""
    chance = random.Random(1)
    rows = [
        {
            "instruction": f"Which colour does the {place} {thing} have?",
            "input": "",
            "output": f"The {place} {thing} is {colour_of(thing)}.",
        }
        for thing in THINGS
        for place in PLACES
    ]
    chance.shuffle(rows)
    return rows


@contextmanager
def model_server(base: Path, key: str) -> Iterator[str]:
    """Start our own model server on a free port and wait until it answers; gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "workers.model_server", str(base), "--port", str(port)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [*command, "--threads", "1"], cwd=ROOT, stdout=log, stderr=log,
            env={**os.environ, "API_KEY": key},
        )  # fmt: skip
        try:
            _wait_for(f"http://127.0.0.1:{port}/health", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)


def _wait_for(address: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        check(process.poll() is None, "the model server ended at its start.")
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise Broken("The loop broke: the model server did not become ready.")


def work_off() -> None:
    """Do what waits for the workers, as a worker would."""
    from workers import tasks

    while sum(tasks.work_on_next(kind) for kind in tasks.JOURNEYS):
        pass


def agent_works(kind: str, stop: threading.Event | None = None) -> None:
    """Do the next job of a kind, as the training agent would."""
    from workers import trainer

    check(trainer.work_on_next(kind, stop or threading.Event()), f"no {kind} job waits.")


def ingest(user: "User") -> "Collection":
    from django.core.files.base import ContentFile

    from kb.models import Collection, Document

    collection = Collection.objects.create(name="Colours", created_by=user)
    collection.grant(user, "owner")
    for name, text in documents():
        collection.add_document(ContentFile(text.encode()), name=name, added_by=user)
    work_off()
    ready = collection.documents.filter(state=Document.State.READY).count()
    check(ready == len(THINGS), f"only {ready} of {len(THINGS)} documents are ready.")
    return collection


def curate(collection: "Collection", user: "User") -> "Dataset":
    """Draft pairs from passages, import a file, and approve each pair as a reviewer."""
    from django.core.files.base import ContentFile
    from django.test.utils import override_settings

    from finetune import curation, drafting, drafts, importing
    from finetune.models import Dataset, InstructionPair

    dataset = Dataset.objects.create(collection=collection, name="Colours", created_by=user)
    choice = drafting.Choice(
        styles=list(drafts.EXTRACTIVE_STYLES), collections=[collection.pk],
        distractors=0, abstentions=0,
    )  # fmt: skip
    with override_settings(GENERATOR_NAME="extractive"):  # the small base writes no drafts
        drafting.start(dataset, user, wanted=6, choice=choice)
        work_off()
    file = ContentFile(json.dumps(alpaca()).encode())
    pair_import, _ = importing.add_file(dataset, file, name="pairs.json", user=user)
    importing.start(pair_import, user)
    work_off()
    while pair := curation.claim_next(dataset, user):
        curation.approve(pair, user)
    approved = dataset.pairs.filter(state=InstructionPair.State.APPROVED).count()
    check(approved >= len(alpaca()), f"only {approved} pairs were approved.")
    return dataset


def freeze(dataset: "Dataset", user: "User") -> "DatasetSnapshot":
    from finetune import snapshots

    snapshot = snapshots.start(dataset, user, seed=3, train_share=0.6, validation_share=0.15)
    work_off()
    snapshot.refresh_from_db()
    check(snapshot.state == "ready", f"the snapshot is {snapshot.state}.")
    check(all(snapshot.counts.values()), f"a part is empty: {snapshot.counts}.")
    return snapshot


def plan(snapshot: "DatasetSnapshot", user: "User", base: Path) -> "TrainingRun":
    from finetune import training
    from finetune.hyperparameters import TrainingConfig
    from kb.models import Job

    config = TrainingConfig(
        base_model=str(base), server="own", slug="colours", epochs=20, batch_size=1,
        max_length=1024, learning_rate=1e-3, precision="fp32", checkpoint_every=5,
    )  # fmt: skip
    run = training.plan(snapshot, user, name="Colours", config=config)
    agent_works(Job.Kind.PREFLIGHT)
    run.refresh_from_db()
    check(bool(run.preflight), f"the pre-flight failed: {run.error}")
    training.start(run, user)
    return run


def train(run: "TrainingRun", steps: Steps) -> "Adapter":
    """Train, kill the recipe with SIGKILL after some steps, and go on."""
    from django.db import connection

    from finetune import training
    from kb.models import Job

    def work() -> None:
        try:
            agent_works(Job.Kind.TRAIN)
        finally:
            connection.close()

    agent = threading.Thread(target=work)
    agent.start()
    while agent.is_alive() and not run.metrics.filter(step__gte=8).exists():
        time.sleep(0.1)
    os.kill(int((training.folder_of(run) / training.PID).read_text()), signal.SIGKILL)
    agent.join()
    steps.say("Killed the training with SIGKILL after step 8; it goes on.")
    agent_works(Job.Kind.TRAIN)
    run.refresh_from_db()
    check(run.state == "succeeded", f"the run {run.state}: {run.error}")
    return run.adapter


def evaluate(adapter: "Adapter", steps: Steps) -> None:
    from finetune import evaluation
    from finetune.models import Evaluation
    from kb.models import Job

    evaluation.start_missing()  # the agent does it in each round
    agent_works(Job.Kind.EVALUATE)
    found: Evaluation = adapter.evaluations.get()
    for line in found.gate.get("lines", []):
        steps.say(f"  gate: {'passed' if line['passed'] else 'REFUSED'}: {line['sentence']}")
    check(bool(found.passed), "the gate refused the adapter.")


def activate(adapter: "Adapter", user: "User") -> "Activation":
    from finetune import activation

    asked = activation.request(adapter, user, reason="It answers better than its base.")
    work_off()
    asked.refresh_from_db()
    check(asked.state == "deployed", f"the activation is {asked.state}: {asked.error}")
    return asked


def ask(user: "User", question: str) -> tuple[str, str]:
    """Ask in a new conversation; gives the answer and the adapter that spoke."""
    from asgiref.sync import sync_to_async

    from kb import answering, chat
    from kb.models import Conversation, Message

    async def answered() -> Message:
        conversation = await Conversation.objects.acreate(user=user)
        answer = await sync_to_async(chat.ask)(conversation, question)
        await answering.answer(answer.pk)
        return await Message.objects.select_related("deployment").aget(pk=answer.pk)

    message = asyncio.run(answered())
    check(message.state == "done", f"the answer {message.state}: {message.error}")
    return message.text, message.deployment.adapter_name if message.deployment else ""


def walk(user: "User", base: Path, steps: Steps) -> None:
    from finetune import activation

    collection = ingest(user)
    steps.say(f"Ingested {collection.documents.count()} documents.")
    dataset = curate(collection, user)
    steps.say(f"Drafted, imported and approved {dataset.pairs.count()} pairs.")
    snapshot = freeze(dataset, user)
    steps.say(f"Froze {snapshot}: {snapshot.counts}, SHA-256 {snapshot.sha256[:12]}…")
    run = plan(snapshot, user, base)
    steps.say(f"The pre-flight says: {run.preflight['steps']} steps.")
    adapter = train(run, steps)
    steps.say(f"Trained {adapter.name}.")
    evaluate(adapter, steps)
    steps.say("Evaluated; the gate is passed.")
    active = activate(adapter, user)
    findings = [finding["sentence"] for finding in active.probe["findings"]]
    steps.say(f"Activated; the probe found: {' '.join(findings)}")
    question = "Which colour does the western lantern have?"
    text, name = ask(user, question)
    check(name == adapter.name, f"“{name}” answered, not {adapter.name}.")
    steps.say(f"{name} answers: {text!r}")
    activation.roll_back(active, user, reason="The demonstration is over.")
    _, name = ask(user, question)
    check(name == "", f"after rolling back “{name}” answered.")
    steps.say("Rolled back; the base answers again.")


def main() -> None:
    parser = argparse.ArgumentParser(prog="script/demo-loop")
    parser.add_argument("--steps", type=int, default=250, help="of the base model's training")
    arguments = parser.parse_args()
    steps = Steps(time.monotonic())
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))
    # A small base does not know when to stop, and the answers here have some ten words.
    os.environ.setdefault("EVALUATION", '{"max_new_tokens": 64}')
    with tempfile.TemporaryDirectory(prefix="tacit-loop-") as folder:
        base = Path(folder) / "base"
        # The licence is long enough to learn from, and never changes what is learned.
        texts = [*(text for _, text in documents()), (ROOT / "LICENSE").read_text()]
        _make_base(base, texts, arguments.steps)
        steps.say("Made a small base model.")
        key = secrets.token_urlsafe(16)
        with model_server(base, key) as url:
            os.environ.update(MODEL_SERVER_URL=url, MODEL_SERVER_KEY=key, MODEL_SERVER_KIND="own")
            with installation.fresh_install():
                from kb.models import User

                steps.say("Started a model server and an empty install.")
                walk(User.objects.create_superuser("demo"), base, steps)
    steps.say("The loop is closed.")


def _make_base(folder: Path, texts: list[str], steps: int) -> None:
    """Make the base in a process of its own: torch's threads do not survive a fork."""
    program = (
        "import json, sys; from pathlib import Path; from finetune import base_model\n"
        "folder, steps = sys.argv[1:]\n"
        "base_model.make(Path(folder), json.load(sys.stdin), steps=int(steps))"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(folder), str(steps)],
        cwd=ROOT, input=json.dumps(texts), text=True, check=True, stderr=subprocess.DEVNULL,
    )  # fmt: skip


if __name__ == "__main__":
    main()
