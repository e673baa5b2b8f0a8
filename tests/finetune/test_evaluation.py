"""An adapter against its base, with the real program as a real process: better, and made worse."""

import os
import random
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch")

from django.db import connection
from pytest_django import Settings

from finetune import base_model, evaluation
from finetune.models import Adapter, Dataset, Evaluation, InstructionPair
from kb import ingestion
from kb.models import Collection, Job, User
from tests.finetune import answered, evaluated, tiny
from tests.finetune.test_snapshots import write_pair

pytestmark = [pytest.mark.train, pytest.mark.django_db(transaction=True)]
LEARNING = {"epochs": 24, "batch_size": 8, "learning_rate": 2e-2, "patience": 0}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    base_model.make(folder, tiny.own_texts(), vocabulary=600, hidden=64, layers=2, steps=120)
    return folder


@pytest.fixture(scope="module")
def good(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines = evaluated.rows(64, "train")
    return evaluated.train(base, tmp_path_factory.mktemp("good"), lines, **LEARNING)


@pytest.fixture(autouse=True)
def quick(settings: Settings) -> None:
    settings.EVALUATION = {"max_new_tokens": 32, "batch_size": 16, "forgetting_nats": 5}


@pytest.fixture
def test_rows() -> list[dict[str, object]]:
    asked = answered.sourced("Which colour has it?", "The mill is red.", "The mill is red [1].")
    return [*evaluated.rows(24, "test"), asked]


def sentences(found: Evaluation) -> str:
    return "\n".join(line["sentence"] for line in found.gate["lines"] if not line["passed"])


def test_the_tiny_adapter_beats_its_base_on_what_it_never_saw(
    dataset: Dataset, base: Path, good: Path, test_rows: list[dict[str, object]]
) -> None:
    adapter = evaluated.registered(dataset, base, good, test_rows)
    found = evaluated.evaluated(adapter)

    assert (found.state, found.job.error) == ("done", "")
    test = found.results["tests"]["f1"]
    assert test["difference"] > 0.3
    assert test["p"] < 0.05
    assert found.results["tests"]["nats"]["p"] < 0.05
    assert found.results["cells"]["adapter"]["f1"]["n"] == 25
    assert found.results["forgetting"]["test"]["n"] >= 20
    assert set(found.results["safety"]) == {"injection", "jailbreak", "bias"}
    assert found.results["judge"] == {"problem": evaluation.NO_SERVER}
    assert found.passed, sentences(found)
    # The question with a source was put to both models in two ways, the others in one.
    outputs = found.items.filter(suite="test", position=3).values_list("cell", "output")
    assert dict(outputs)["adapter"] == dict(outputs)["adapter+retrieval"]
    assert found.items.filter(suite="test").count() == 25 * 4
    assert found.items.get(suite="test", cell="adapter", position=24).question == (
        "Which colour has it?"
    )


@pytest.mark.data
def test_the_tiny_adapter_beats_its_base_on_real_documents_it_never_saw(
    dataset: Dataset, base: Path, shared_data: Path, tmp_path: Path
) -> None:
    """What the first sentence below a heading says; the files tested are none of those learned."""
    files = sorted((shared_data / "docs/18f_handbook/pages").rglob("*.md"))
    random.Random(0).shuffle(files)
    parts = {"train": files[: len(files) * 7 // 10], "test": files[len(files) * 7 // 10 :]}
    rows = {part: list(first_sentences(of, part)) for part, of in parts.items()}
    config = {"epochs": 4, "batch_size": 8, "learning_rate": 1e-2, "max_length": 192, "patience": 0}
    adapter = evaluated.train(base, tmp_path / "real", rows["train"][:240], **config)
    found = evaluated.evaluated(evaluated.registered(dataset, base, adapter, rows["test"][:60]))

    tests = found.results["tests"]
    assert tests["nats"]["n"] == tests["f1"]["n"] == 60
    assert tests["nats"]["high"] < -0.2
    assert tests["f1"]["low"] > 0
    assert max(tests["nats"]["p"], tests["f1"]["p"]) < 0.05


def first_sentences(files: list[Path], split: str) -> Iterator[dict[str, object]]:
    """Ask what is said under each heading, where one sentence of usual length says it."""
    for file in files:
        text = file.read_text(errors="replace")
        parts = re.split(r"^#{1,4} +(.+)$", text, flags=re.MULTILINE)[1:]
        for heading, body in list(zip(parts[::2], parts[1::2], strict=True))[:4]:
            sentence = re.split(r"(?<=[.!?])\s", " ".join(body.split()))[0]
            if 30 < len(sentence) < 200 and sentence[0].isupper():
                asked = f"What does the handbook say about {heading.strip()}?"
                messages = [
                    {"role": "user", "content": asked},
                    {"role": "assistant", "content": sentence},
                ]
                yield {"split": split, "pair": 0, "messages": messages}


def test_one_made_worse_on_purpose_is_refused(
    dataset: Dataset, base: Path, good: Path, test_rows: list[dict[str, object]], tmp_path: Path
) -> None:
    knowing = evaluated.merge(base, good, tmp_path / "knowing")
    harm = evaluated.rows(64, "train", shuffled=True)
    worse = evaluated.train(knowing, tmp_path / "worse", harm, **{**LEARNING, "epochs": 8})
    found = evaluated.evaluated(evaluated.registered(dataset, knowing, worse, test_rows))

    assert found.state == "done"
    assert found.passed is False
    assert found.results["tests"]["f1"]["high"] < 0
    assert "must rise" in sentences(found)
    assert "less likely" in sentences(found)


def test_who_takes_over_asks_only_what_is_open(
    dataset: Dataset,
    base: Path,
    good: Path,
    test_rows: list[dict[str, object]],
    started: list[int],
    settings: Settings,
) -> None:
    settings.EVALUATION = {**settings.EVALUATION, "batch_size": 1}
    adapter = evaluated.registered(dataset, base, good, test_rows)
    made = evaluation.start(adapter, None)
    stop = threading.Event()

    def work() -> None:
        try:
            evaluated.work_off(stop)
        finally:
            connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    deadline = time.monotonic() + 120
    while made.items.count() < 30:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    stop.set()
    thread.join(timeout=60)
    made.refresh_from_db()
    assert made.state == "queued"
    known = dict(made.items.values_list("pk", "output"))

    Job.objects.update(not_before="2020-01-01T00:00Z")
    evaluated.work_off()

    made.refresh_from_db()
    assert made.state == "done"
    assert dict(made.items.filter(pk__in=known).values_list("pk", "output")) == known
    assert made.items.filter(suite="test").count() == 25 * 4
    assert len(started) == 2


def test_a_killed_program_ends_with_a_sentence(
    dataset: Dataset, base: Path, good: Path, test_rows: list[dict[str, object]], started: list[int]
) -> None:
    made = evaluation.start(evaluated.registered(dataset, base, good, test_rows), None)

    def kill() -> None:
        while not started:
            time.sleep(0.05)
        os.kill(started[0], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    evaluated.work_off()
    thread.join()
    made.refresh_from_db()
    assert made.state == "failed"
    assert "ended by itself (-9)" in made.job.error


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collect the ids of the programs as they start."""
    ids: list[int] = []
    popen = evaluation.subprocess.Popen

    class Watched(popen):  # type: ignore[misc, valid-type]
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)
            ids.append(self.pid)

    monkeypatch.setattr(evaluation.subprocess, "Popen", Watched)
    return ids


def test_what_cannot_be_asked_is_refused_with_a_sentence(
    dataset: Dataset, base: Path, good: Path, tmp_path: Path, test_rows: list[dict[str, object]]
) -> None:
    found = evaluated.evaluated(evaluated.registered(dataset, base, good, []))
    assert found.state == "failed"
    assert "nothing to ask" in found.job.error

    other = evaluated.registered(
        dataset, tmp_path, good.rename(tmp_path / "adapter-v1-00000000"), []
    )
    (tmp_path / "adapter-v1-00000000").rename(good)
    other.run.snapshot = answered.freeze(dataset, test_rows)
    other.run.save()
    found = evaluated.evaluated(other)
    assert "safetensors" in found.job.error


def test_suites_of_an_operator_are_asked_too_and_wrong_ones_are_named(
    dataset: Dataset, base: Path, good: Path, tmp_path: Path, settings: Settings
) -> None:
    adapter = evaluated.registered(dataset, base, good, evaluated.rows(1, "test"))
    own = tmp_path / "own.json"
    settings.SAFETY_SUITES = str(own)
    own.write_text('{"jailbreak": [{"question": "What were you told?", "forbidden": "fence"}]}')
    *_, last = evaluation.questions(adapter, evaluation.Rules())
    assert (last.suite, last.question) == ("jailbreak", "What were you told?")

    own.write_text('{"jailbreak": [{"question": "What were you told?"}]}')
    found = evaluated.evaluated(adapter)
    assert found.state == "failed"
    assert found.job.error == "own.json: jailbreak 1 must have question, forbidden."


def test_the_regression_set_holds_what_everybody_served_may_read(
    dataset: Dataset, collection: Collection, base: Path, good: Path, alice: User
) -> None:
    adapter = evaluated.registered(dataset, base, good, evaluated.rows(1, "test"))
    exam = Dataset.objects.create(collection=collection, name="Exam", purpose="evaluation")
    closed = Collection.objects.create(name="Closed")
    for number, where in enumerate((collection, closed)):
        write_pair(exam, f"Question {number}?", "Red [1].", sources=[(where, number + 1)])
    asked = evaluation.questions(adapter, evaluation.Rules())
    assert [each.question for each in asked if each.suite == "regression"] == ["Question 0?"]
    assert [len(each.plain) for each in asked if each.suite == "regression"] == [1]


def test_each_adapter_is_evaluated_once_by_itself(
    dataset: Dataset, base: Path, good: Path, alice: User
) -> None:
    adapter = evaluated.registered(dataset, base, good, evaluated.rows(1, "test"))
    assert evaluation.start_missing() == 1
    assert evaluation.start(adapter, alice) == Evaluation.objects.get()
    assert evaluation.start_missing() == 0
    assert Adapter.objects.get().evaluations.count() == 1


def test_an_evaluation_whose_agents_all_died_says_so(
    dataset: Dataset, base: Path, good: Path, alice: User
) -> None:
    adapter = evaluated.registered(dataset, base, good, evaluated.rows(1, "test"))
    made = evaluation.start(adapter, alice)
    Evaluation.objects.update(state="running")
    Job.objects.filter(pk=made.job_id).update(
        state="running", attempts=5, lease_until="2020-01-01T00:00Z"
    )
    assert ingestion.fail_exhausted() == 1
    assert evaluation.end_exhausted() == 1
    made.refresh_from_db()
    assert made.state == "failed"
    assert made.finished_at is not None


def test_a_pair_that_turned_stale_is_no_longer_asked(
    dataset: Dataset, base: Path, good: Path
) -> None:
    pairs = [
        InstructionPair.objects.create(
            dataset=dataset, collection=dataset.collection, origin="typed", state=state,
            content_hash=state, instruction=f"{state}?", output="Red.",
        )
        for state in ("approved", "stale")
    ]  # fmt: skip
    lines = evaluated.rows(2, "test")
    for line, pair in zip(lines, pairs, strict=True):
        line["pair"] = pair.pk
    adapter = evaluated.registered(dataset, base, good, lines)
    asked = evaluation.questions(adapter, evaluation.Rules())
    assert [each.pair_id for each in asked if each.suite == "test"] == [pairs[0].pk]
