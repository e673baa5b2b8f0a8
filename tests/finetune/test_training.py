"""From a snapshot to a registered adapter, with the real recipe as a real process."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from django.db import connection
from pytest_django import Settings

pytest.importorskip("torch")

from finetune import checkpoints, contract, probe, processes, training
from finetune.models import Adapter, Dataset, DatasetSnapshot, TrainingRun
from kb import ingestion
from kb.files import content_storage
from kb.models import Collection, Job, User
from tests.finetune import tiny

pytestmark = [pytest.mark.train, pytest.mark.django_db(transaction=True)]


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "LOOK_EVERY_S", 0.1)


@pytest.fixture
def snapshot(dataset: Dataset, collection: Collection, tmp_path: Path) -> DatasetSnapshot:
    path = tiny.write_snapshot(tmp_path / "snapshot.jsonl")
    stored = content_storage().put(iter([path.read_bytes()]), max_bytes=10**6)
    made = DatasetSnapshot.objects.create(
        dataset=dataset,
        number=1,
        job=Job.objects.create(kind=Job.Kind.FREEZE, state=Job.State.DONE),
        file=stored.name,
        sha256=stored.sha256,
        counts={"train": 24, "validation": 8, "test": 0},
    )
    made.audience.add(collection)
    made.state = "ready"
    made.save(update_fields=["state"])
    return made


def planned(snapshot: DatasetSnapshot, user: User, base: Path, **changes: object) -> TrainingRun:
    config = tiny.config(base, server="own", **changes)
    return training.plan(snapshot, user, name="First", config=config)


def looked_at(run: TrainingRun) -> TrainingRun:
    job = Job.objects.claim(Job.Kind.PREFLIGHT)
    assert job is not None
    training.preflight(job)
    run.refresh_from_db()
    return run


def without_preflight(run: TrainingRun, user: User) -> TrainingRun:
    TrainingRun.objects.filter(pk=run.pk).update(preflight={"lines": []})
    training.start(run, user)
    run.refresh_from_db()
    return run


def train_next(stop: threading.Event | None = None) -> None:
    job = Job.objects.claim(Job.Kind.TRAIN)
    assert job is not None
    training.train(job, stop=stop or threading.Event())


def train_in_thread(stop: threading.Event | None = None) -> threading.Thread:
    def work() -> None:
        try:
            train_next(stop)
        finally:
            connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_run_is_looked_at_trained_and_registered(
    snapshot: DatasetSnapshot, alice: User, base: Path, collection: Collection
) -> None:
    run = looked_at(planned(snapshot, alice, base))
    assert run.preflight["rows"]["train"]["kept"] == 24
    assert run.preflight["steps"] > 0
    assert run.preflight["tried"]["step_s"] > 0
    assert run.preflight["cards"][0]["device"]["name"] == "RTX 3090"
    assert run.preflight["cards"][0]["fits"]
    assert run.preflight["example"][1]["is_learned"]
    assert "is" in run.preflight["example"][1]["text"]
    assert {line["name"] for line in run.preflight["lines"]} >= {"Rows", "Stop token", "Contract"}
    few = [line for line in run.preflight["lines"] if line["name"] == "Advice"]
    assert "24 rows" in few[0]["sentence"]

    training.start(run, alice)
    train_next()

    run.refresh_from_db()
    assert (run.state, run.error) == ("succeeded", "")
    steps = run.metrics.exclude(loss=None).order_by("step")
    losses = list(steps.values_list("loss", flat=True))
    assert len(losses) == run.preflight["steps"]
    assert losses[-1] < losses[0]
    assert run.metrics.exclude(evaluation_loss=None).exists()
    assert run.gpu_seconds > 0
    adapter = run.adapter
    assert contract.is_adapter_name(adapter.name)
    assert adapter.contract["own"] == []
    assert list(adapter.audience.all()) == [collection]
    assert adapter.audience_size == 1
    placed = training.adapters_folder() / adapter.name
    assert (placed / contract.WEIGHTS).exists()
    assert len(probe.Reference.read(placed).samples) == 8
    assert json.loads((placed / "manifest.json").read_text())["snapshot"]["sha256"] == (
        snapshot.sha256
    )
    assert snapshot.sha256 in adapter.card
    assert (placed / "README.md").read_text() == adapter.card
    assert adapter.files == checkpoints.hashes_of(placed)
    assert adapter.files[contract.WEIGHTS] in adapter.card
    out = training.folder_of(run) / "out"
    assert not list(out.glob("step-*"))
    assert (out / training.METRICS).exists()
    assert Job.objects.get(pk=run.job_id).state == "done"


def test_a_run_starts_only_after_its_preflight_and_only_once(
    snapshot: DatasetSnapshot, alice: User, base: Path
) -> None:
    run = planned(snapshot, alice, base)
    with pytest.raises(training.RunRefused, match="not done"):
        training.start(run, alice)
    without_preflight(run, alice)
    with pytest.raises(training.RunRefused, match="already"):
        training.start(run, alice)


def test_what_the_server_could_not_load_is_refused_before_training(
    snapshot: DatasetSnapshot, alice: User, base: Path
) -> None:
    config = tiny.config(base, server="tgi", rank=8, alpha=16)
    run = looked_at(training.plan(snapshot, alice, name="Odd", config=config))
    stops = [line["sentence"] for line in run.preflight["lines"] if line["level"] == "stop"]
    assert any("rank of 8" in sentence.lower() for sentence in stops)
    with pytest.raises(training.RunRefused, match="cannot work"):
        training.start(run, alice)


def test_a_base_that_is_not_there_ends_the_preflight_with_a_sentence(
    snapshot: DatasetSnapshot, alice: User, tmp_path: Path
) -> None:
    run = looked_at(planned(snapshot, alice, tmp_path))
    assert "safetensors" in run.error
    assert run.preflight == {}


def ended_in_time(path: Path, *said: str) -> str:
    """Write a pre-flight that prints its report as far as it comes, and then goes on for ever."""
    printed = "".join(f"printf '%s' '{each}'\n" for each in said)
    path.write_text(f"#!/bin/sh\n{printed}exec sleep 600\n")
    path.chmod(0o755)
    return str(path)


def test_a_preflight_that_takes_too_long_keeps_what_it_had_found(
    snapshot: DatasetSnapshot, alice: User, base: Path, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    part = {"kept": 24, "truncated": 3, "dropped": 1, "masked": 1}
    rows = {"rows": {"train": part, "validation": part}, "contract": {"own": []}}
    memory = {**rows, "steps": 44, "memory": {"total": 5}}
    slow = ended_in_time(
        tmp_path / "slow", json.dumps(rows) + "\n", json.dumps(memory) + "\n", '{"rows": {"tr'
    )
    monkeypatch.setattr(training.sys, "executable", slow)
    monkeypatch.setattr(training, "PREFLIGHT_TIMEOUT_S", 2)

    run = looked_at(planned(snapshot, alice, base))

    assert run.error == ""
    assert run.preflight["rows"]["train"] == part
    assert (run.preflight["steps"], run.preflight["memory"]) == (44, {"total": 5})
    (told,) = [line for line in run.preflight["lines"] if line["name"] == "Not reached"]
    assert told["level"] == "warn"
    words = "did not come to the trial of three steps for time, memory and cost, nor to the answers"
    assert words in told["sentence"]
    assert "the run would be very slow here" in told["sentence"]
    assert not run.is_blocked


def test_a_preflight_that_found_nothing_in_time_says_so(
    snapshot: DatasetSnapshot, alice: User, base: Path, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    slow = ended_in_time(tmp_path / "slow", '{"rows": ')
    monkeypatch.setattr(training.sys, "executable", slow)
    monkeypatch.setattr(training, "PREFLIGHT_TIMEOUT_S", 1)
    run = looked_at(planned(snapshot, alice, base))
    assert "before every row was looked at" in run.error
    assert run.preflight == {}


def test_a_trial_that_is_killed_leaves_the_rest_of_the_report(
    snapshot: DatasetSnapshot, alice: User, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report: dict[str, object] = {"memory": {"total": 5}}

    def killed(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], -signal.SIGKILL, json.dumps(report) + "\n", "")

    monkeypatch.setattr(subprocess, "run", killed)
    run = planned(snapshot, alice, base)
    assert training._inspect(run) == {**report, "tried": {"problem": training.KILLED}}
    report["tried"] = {"step_s": 1.0}
    assert training._inspect(run) == report


def wait_for_step(run: TrainingRun, step: int) -> None:
    deadline = time.monotonic() + 120
    while not run.metrics.filter(step__gte=step).exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_killed_recipe_goes_on_from_its_checkpoint(
    snapshot: DatasetSnapshot, alice: User, base: Path
) -> None:
    run = without_preflight(
        planned(snapshot, alice, base, epochs=12, checkpoint_every=2, patience=0), alice
    )
    thread = train_in_thread()
    wait_for_step(run, 5)
    os.kill(int((training.folder_of(run) / training.PID).read_text()), signal.SIGKILL)
    thread.join(timeout=120)
    run.refresh_from_db()
    assert "newest checkpoint" in run.error

    # The next agent is stopped, so that a third one reads the steps that the file holds twice.
    stop = threading.Event()
    thread = train_in_thread(stop)
    wait_for_step(run, 6)
    stop.set()
    thread.join(timeout=120)
    Job.objects.update(not_before="2020-01-01T00:00Z")
    train_next()

    run.refresh_from_db()
    assert (run.state, run.error) == ("succeeded", "")
    assert Job.objects.get(pk=run.job_id).attempts == 2
    steps = list(run.metrics.exclude(loss=None).order_by("step").values_list("step", flat=True))
    assert steps == list(range(1, len(steps) + 1))


def test_a_stopped_agent_puts_the_run_back_and_a_cancelled_one_ends(
    snapshot: DatasetSnapshot, alice: User, base: Path
) -> None:
    run = without_preflight(planned(snapshot, alice, base, epochs=200, patience=0), alice)
    stop = threading.Event()
    thread = train_in_thread(stop)
    wait_for_step(run, 2)
    stop.set()
    thread.join(timeout=120)
    run.refresh_from_db()
    assert run.state == "queued"
    assert Job.objects.get(pk=run.job_id).attempts == 0

    Job.objects.update(not_before="2020-01-01T00:00Z")
    reached = run.metrics.count()
    thread = train_in_thread()
    wait_for_step(run, reached + 1)
    assert training.cancel(run, alice)
    thread.join(timeout=120)
    run.refresh_from_db()
    assert run.state == "cancelled"
    assert not hasattr(run, "adapter")
    assert not training.cancel(run, alice)

    training.go_on(run, alice)
    reached = run.metrics.count()
    stop.clear()
    thread = train_in_thread(stop)
    wait_for_step(run, reached + 1)
    stop.set()
    thread.join(timeout=120)
    run.refresh_from_db()
    assert (run.state, run.cancel_requested) == ("queued", False)


def reported(event: str, step: int, **values: object) -> str:
    line = {"event": event, "time": 1.8e9 + step, "step": step, "steps": 9, **values}
    return json.dumps(line) + "\n"


def trained(step: int, loss: float) -> str:
    return reported("train", step, loss=loss, learning_rate=1e-4)


def test_a_metrics_file_that_holds_steps_twice_gives_each_once(
    snapshot: DatasetSnapshot, alice: User, base: Path
) -> None:
    run = planned(snapshot, alice, base)
    path = training.folder_of(run) / "out" / training.METRICS
    path.parent.mkdir(parents=True)
    killed = trained(1, 5.0) + trained(2, 4.0) + reported("evaluation", 2, loss=4.5)
    killed += trained(3, 3.0) + '{"event": "tra\n'
    path.write_text(reported("start", -1) + killed)
    training.Follower(run).look()
    assert dict(run.metrics.values_list("step", "loss")) == {1: 5.0, 2: 4.0, 3: 3.0}

    # Killed without a word: step 2 is made again, 3 is void, and an agent reads from the start.
    with path.open("a") as file:
        file.write(reported("resume", 1) + trained(2, 4.1))
    for _ in range(2):
        follower = training.Follower(run)
        follower.look()
        assert dict(run.metrics.values_list("step", "loss")) == {1: 5.0, 2: 4.1}
        assert not run.metrics.exclude(evaluation_loss=None).exists()
    with path.open("a") as file:
        file.write(trained(3, 3.1) + reported("resume", 2) + trained(3, 3.2))
    follower.look()
    assert dict(run.metrics.values_list("step", "loss")) == {1: 5.0, 2: 4.1, 3: 3.2}
    assert (follower.step, follower.steps) == (3, 9)


def test_a_run_over_several_processes_is_stopped_and_goes_on(
    snapshot: DatasetSnapshot, alice: User, base: Path, settings: Settings
) -> None:
    settings.TRAIN_PROCESSES = 2
    run = without_preflight(planned(snapshot, alice, base, epochs=4, patience=0), alice)
    stop = threading.Event()
    thread = train_in_thread(stop)
    wait_for_step(run, 2)
    stop.set()
    thread.join(timeout=120)
    run.refresh_from_db()
    assert run.state == "queued"

    Job.objects.update(not_before="2020-01-01T00:00Z")
    train_next()
    run.refresh_from_db()
    assert (run.state, run.error) == ("succeeded", "")
    assert run.manifest["processes"] == 2
    steps = list(run.metrics.exclude(loss=None).order_by("step").values_list("step", flat=True))
    assert steps == list(range(1, run.manifest["progress"]["step"] + 1))


def test_a_run_whose_agents_all_died_says_so(
    snapshot: DatasetSnapshot, alice: User, base: Path
) -> None:
    run = without_preflight(planned(snapshot, alice, base), alice)
    Job.objects.filter(pk=run.job_id).update(
        state="running", attempts=5, lease_until="2020-01-01T00:00Z"
    )
    assert ingestion.fail_exhausted() == 1
    assert training.end_exhausted() == 1
    run.refresh_from_db()
    assert (run.state, run.error) == ("failed", training.EXHAUSTED)


@pytest.mark.parametrize("count", [1, 2])
def test_every_process_of_a_recipe_ends_with_the_agent_that_started_it(
    snapshot: DatasetSnapshot, alice: User, base: Path, settings: Settings, count: int
) -> None:
    settings.TRAIN_PROCESSES = count
    run = without_preflight(planned(snapshot, alice, base, epochs=500, patience=0), alice)
    command = [*training.launcher(run.config), str(training._write_settings(run))]
    told = training.folder_of(run) / "told"
    told.mkdir()
    # An agent that starts the recipe, tells its number and is gone.
    agent = (
        "import os, subprocess, sys; from finetune import processes;"
        f"print(subprocess.Popen({command!r}, start_new_session=True, stderr=subprocess.DEVNULL,"
        "env=os.environ | {'RECIPE_PARENT': processes.mark_of(os.getpid()),"
        f"'RECIPE_FOLDER': {str(told)!r}}}).pid, flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", agent], cwd=settings.ROOT, **pipes)
    assert process.stdout is not None
    started = processes.mark_of(int(process.stdout.readline()))
    out = training.folder_of(run) / "out"
    deadline = time.monotonic() + 240
    while not (out / training.METRICS).exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    ranks = [mark.read_text() for mark in told.glob(training.RANKS)]
    assert len(ranks) == count
    assert all(map(processes.is_running, ranks))
    process.kill()
    if count > 1:
        processes.kill(started)  # the launcher
    process.communicate()
    while any(map(processes.is_running, ranks)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert list(out.glob("step-*"))
    with checkpoints.sole_user(out):
        assert json.loads((told / training.OUTCOME).read_text())["code"] == training.STOPPED


@pytest.mark.parametrize("count", [1, 2])
def test_what_cannot_be_trained_is_refused_once_and_in_a_sentence(
    snapshot: DatasetSnapshot, alice: User, base: Path, settings: Settings, count: int
) -> None:
    settings.TRAIN_PROCESSES = count
    wild = {"learning_rate": 1.0, "alpha": 4096, "max_gradient_norm": 1000.0}
    run = without_preflight(planned(snapshot, alice, base, **wild), alice)
    train_next()
    run.refresh_from_db()
    assert run.state == "failed"
    assert run.error.startswith("The loss is no longer a number in step")
    assert run.error.endswith("Try a lower learning rate.")
    job = Job.objects.get(pk=run.job_id)
    assert (job.state, job.attempts) == ("failed", 1)
    assert not list(training.folder_of(run).glob("processes-*"))


def test_every_problem_of_a_refused_run_is_told_whole(
    snapshot: DatasetSnapshot, alice: User, base: Path
) -> None:
    config = tiny.config(base, server="tgi", rank=8, use_dora=True)
    run = without_preflight(training.plan(snapshot, alice, name="Odd", config=config), alice)
    train_next()
    run.refresh_from_db()
    assert "TGI cannot load DoRA. Choose plain LoRA" in run.error
    assert run.error.endswith(
        "A rank of 8 is scaled wrongly by TGI on 1 card. It must be one of 16, 32, 64."
    )


def test_a_version_is_planned_once(snapshot: DatasetSnapshot, alice: User, base: Path) -> None:
    def version(**changes: object) -> int:
        number: int = planned(snapshot, alice, base, **changes).config["version"]
        return number

    assert [version(), version(), version(version=7), version(version=7)] == [1, 2, 7, 8]
    assert version(slug="others") == 1


def test_weights_that_stand_already_replace_no_adapter(
    snapshot: DatasetSnapshot, alice: User, base: Path, tmp_path: Path
) -> None:
    first, again = (planned(snapshot, alice, base) for _ in range(2))
    name = "adapter-v1-0123abcd"
    Adapter.objects.create(run=first, name=name)
    placed = training.adapters_folder() / name
    placed.mkdir(parents=True)
    (placed / "manifest.json").write_text("{}")
    with pytest.raises(training.RunRefused, match=f"the adapter {name} of the run “First”"):
        training.register(again, tmp_path / name)
    assert (placed / "manifest.json").read_text() == "{}"


def test_a_waiting_run_is_cancelled_at_once(
    snapshot: DatasetSnapshot, alice: User, base: Path
) -> None:
    run = planned(snapshot, alice, base)
    assert training.cancel(run, alice)
    run.refresh_from_db()
    assert run.state == "cancelled"
    assert Job.objects.claim(Job.Kind.PREFLIGHT) is None
