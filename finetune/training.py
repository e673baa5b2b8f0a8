"""From a frozen snapshot to a registered adapter: the pre-flight, the supervised run, the adapter.

The recipe runs as a process of its own, so that a fault of a card's driver ends that process and
not the agent, and so that `accelerate launch` can start one for each card. Whatever is killed, the
row and the newest checkpoint say where to go on.
"""

import json
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from django.conf import settings
from django.core.files.storage import default_storage
from django.db import connection, transaction
from django.utils import timezone

from finetune import advice, checkpoints, contract, devices, metrics, probe, processes
from finetune.cards import model_card
from finetune.hyperparameters import TrainingConfig
from finetune.models import (
    Adapter,
    AuditEvent,
    DatasetSnapshot,
    Erasure,
    TrainingMetric,
    TrainingRun,
)
from kb.models import Job, User
from kb.models.jobs import LeaseLost

logger = logging.getLogger(__name__)
PID = "recipe.pid"
# Of finetune.recipe, which loads torch.
METRICS, OUTCOME, RANKS = "metrics.jsonl", "outcome.json", "rank-*"
REFUSED, STOPPED, TAKEN = 2, 3, 4
PREFLIGHT_TIMEOUT_S = 1800
LOOK_EVERY_S = 1.0
CARD = "README.md"
LOG_TAIL = 8_000
BROKEN = "The training stopped because of a fault in the program; the log has the details."
ENDED = "The training process ended by itself ({code}). It goes on from its newest checkpoint."
EXHAUSTED = (
    "It ended too often without a word, most likely for want of memory. Choose fewer rows at once, "
    "gradient checkpointing or QLoRA."
)
KILLED = (
    "The trial was killed, most likely for want of memory. Choose gradient checkpointing, fewer rows "
    "at once, a shorter max_length or QLoRA."
)
TOO_SLOW = "The pre-flight took longer than {minutes} minutes, before every row was looked at."
SAME = (
    "It came to the very weights of the adapter {name} of the run “{run}”, which stays as it is. "
    "Change the seed or a setting to get another one."
)
_PLANNING = "SELECT pg_advisory_xact_lock(hashtext('finetune.training.plan'))"
LOST = "The recipe said that it was done, but its adapter is not there."


class Stop(Protocol):
    """Says whether the agent was asked to end."""

    def is_set(self) -> bool: ...


class RunRefused(Exception):
    """The run cannot be started as asked; a sentence for the person."""


# What people start


def plan(
    snapshot: DatasetSnapshot,
    user: User | None,
    *,
    name: str,
    config: TrainingConfig,
    sweep: str = "",
) -> TrainingRun:
    """Write a run down and queue its pre-flight; it trains only after `start`.

    Where its slug and version were planned before, it takes the next version: equal runs can come
    to equal weights, and a name stands for one adapter. Raises RunRefused.
    """
    if snapshot.state != DatasetSnapshot.State.READY:
        raise RunRefused("The snapshot is not frozen yet.")
    if why := snapshot.why_not_train():
        raise RunRefused(why)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_PLANNING)
        run = TrainingRun.objects.create(
            snapshot=snapshot,
            name=name,
            config=_versioned(config).to_dict(),
            sweep=sweep,
            created_by=user,
            preflight_job=Job.objects.create(kind=Job.Kind.PREFLIGHT),
        )
        _record(user, AuditEvent.Action.CREATED, run)
    return run


def _versioned(config: TrainingConfig) -> TrainingConfig:
    runs = TrainingRun.objects.filter(config__slug=config.slug)
    used = {version for version in runs.values_list("config__version", flat=True) if version}
    return replace(config, version=max(used) + 1) if config.version in used else config


def start(run: TrainingRun, user: User) -> None:
    """Queue a run whose pre-flight was looked at. Raises RunRefused."""
    with transaction.atomic():
        run = TrainingRun.objects.select_for_update().get(pk=run.pk)
        if run.state != TrainingRun.State.DRAFT:
            raise RunRefused("This run has been started already.")
        if run.is_blocked:
            raise RunRefused("The pre-flight says that this run cannot work. Change its settings.")
        if not run.preflight:
            raise RunRefused("The pre-flight is not done yet.")
        if why := run.snapshot.why_not_train():
            raise RunRefused(why)
        run.state = TrainingRun.State.QUEUED
        run.job = Job.objects.create(kind=Job.Kind.TRAIN)
        run.save(update_fields=["state", "job"])
        _record(user, AuditEvent.Action.APPROVED, run)


def cancel(run: TrainingRun, user: User) -> bool:
    """Ask a run to stop; False when it has ended. Its checkpoints stay until it is deleted."""
    with transaction.atomic():
        run = TrainingRun.objects.select_for_update().get(pk=run.pk)
        if run.is_final:
            return False
        run.cancel_requested = True
        waiting = run.job is None or run.job.state == Job.State.WAITING
        if waiting:
            run.state, run.finished_at = TrainingRun.State.CANCELLED, timezone.now()
            jobs = [job for job in (run.job_id, run.preflight_job_id) if job]
            Job.objects.filter(pk__in=jobs, state=Job.State.WAITING).update(
                state=Job.State.CANCELLED, finished_at=timezone.now()
            )
        run.save(update_fields=["cancel_requested", "state", "finished_at"])
        _record(user, AuditEvent.Action.REJECTED, run)
    return True


def go_on(run: TrainingRun, user: User) -> None:
    """Queue a run that failed or was cancelled again; it goes on from its newest checkpoint.

    One that was not started yet is a draft again, and looked at again unless that was done. Raises
    RunRefused.
    """
    with transaction.atomic():
        run = TrainingRun.objects.select_for_update(of=("self",)).get(pk=run.pk)
        if not run.may_go_on or (run.job and not run.job.retry()):
            raise RunRefused("Only a run that failed or was cancelled can go on.")
        if why := run.snapshot.why_not_train():
            raise RunRefused(why)
        if run.preflight_job and not run.job:
            run.preflight_job.retry()  # which does nothing when it is done
        run.state = TrainingRun.State.QUEUED if run.job else TrainingRun.State.DRAFT
        run.error, run.cancel_requested, run.finished_at = "", False, None
        run.save(update_fields=["state", "error", "cancel_requested", "finished_at"])
        _record(user, AuditEvent.Action.REOPENED, run)


def _record(user: User | None, action: str, run: TrainingRun) -> None:
    collection = run.snapshot.dataset.collection
    AuditEvent.objects.record(user, action, run, collection, name=run.name)


# Pre-flight


def preflight(job: Job) -> None:
    """Have the run looked at by `finetune.preflight` and write its report on the row."""
    run = TrainingRun.objects.select_related("snapshot__dataset").get(preflight_job=job)
    try:
        with job.heartbeat():
            job.report("looking", 0, 0)
            if why := run.snapshot.why_not_train():
                raise RunRefused(why)
            report = _judged(_priced(_inspect(run)))
            report["lines"] = advice.lines(run, report)
        with job.publishing():
            if Erasure.objects.note(run.snapshot):
                report.pop("example", None)  # of a row that was erased meanwhile
            TrainingRun.objects.filter(pk=run.pk).update(preflight=report, error="")
    except RunRefused as error:
        _say(run, error=str(error))
        job.fail(str(error), code="refused")
    except LeaseLost:
        logger.info("job %s was taken over by another agent", job.pk)
    except Exception:
        _say(run, error=BROKEN)
        job.fail(BROKEN, code="broken")
        raise


def _inspect(run: TrainingRun) -> dict[str, Any]:
    command = [sys.executable, "-m", "finetune.preflight", str(_write_settings(run))]
    command.append(str(settings.TRAIN_PROCESSES))
    try:
        done = subprocess.run(
            command, cwd=settings.ROOT, capture_output=True,
            timeout=PREFLIGHT_TIMEOUT_S, env=environment(),
        )  # fmt: skip
    except subprocess.TimeoutExpired as expired:
        return _until_then(expired.stdout or b"")
    said = done.stdout.splitlines()
    report: dict[str, Any] = json.loads(said[-1]) if said else {}
    if done.returncode == REFUSED:
        raise RunRefused(report["refused"])
    if done.returncode == -signal.SIGKILL and said:
        return {"tried": {"problem": KILLED}} | report  # or it ended after the trial
    if done.returncode:
        raise RuntimeError(done.stderr.decode(errors="replace")[-LOG_TAIL:])
    return report


def _until_then(said: bytes) -> dict[str, Any]:
    """Give what a pre-flight had found when its time was over. Raises RunRefused for nothing."""
    whole, _, _ = said.rpartition(b"\n")  # it may have been ended in the middle of a line
    minutes = PREFLIGHT_TIMEOUT_S // 60
    if not whole:
        raise RunRefused(TOO_SLOW.format(minutes=minutes))
    return {**json.loads(whole.splitlines()[-1]), "ended_after_minutes": minutes}


def _priced(report: dict[str, Any]) -> dict[str, Any]:
    """Add what the run is about to draw and cost, from the steps that were tried; and elsewhere."""
    seconds = report.get("tried", {}).get("seconds", 0.0)
    elsewhere = devices.estimates(
        report, hour_price=settings.DEVICE_HOUR_PRICE, energy_price=settings.ENERGY_PRICE
    )
    cards = [asdict(each) for each in elsewhere]
    return {**report, **price_of(seconds * report.get("processes", 1)), "cards": cards}


def _judged(report: dict[str, Any]) -> dict[str, Any]:
    """Put what the base reaches already in the place of its answers: {"n", "f1": 0–1}."""
    answers = report.pop("base_answers", [])
    if not answers:
        return report
    scores = [metrics.token_f1(each["output"], each["expected"]) for each in answers]
    return {**report, "base": {"n": len(scores), "f1": sum(scores) / len(scores)}}


def price_of(device_seconds: float) -> dict[str, float]:
    """Give energy in Wh and cost in the currency of the settings, for the time of all devices."""
    energy_wh = settings.DEVICE_WATTS * device_seconds / 3600
    hours = device_seconds / 3600
    cost = hours * settings.DEVICE_HOUR_PRICE + energy_wh / 1000 * settings.ENERGY_PRICE
    return {"energy_wh": energy_wh, "cost": cost}


def _write_settings(run: TrainingRun) -> Path:
    """Write what the recipe reads: the settings, the snapshot's file and the run's folder."""
    folder = folder_of(run)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.json"
    data = default_storage.path(str(run.snapshot.file.name))
    path.write_text(json.dumps({**run.config, "data": str(data), "out": str(folder / "out")}))
    return path


def folder_of(run: TrainingRun) -> Path:
    return Path(settings.DATA_DIR) / "runs" / str(run.pk)


def environment() -> dict[str, str]:
    """Give the process what it needs to compute, and none of our secrets."""
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH")
    ours = ("CUDA_", "NVIDIA_", "HF_", "OMP_", "MKL_", "OPENBLAS_", "NCCL_", "ACCELERATE_")
    return {
        name: value for name, value in os.environ.items() if name in kept or name.startswith(ours)
    }


# The run


def train(job: Job, *, stop: Stop) -> None:
    """Train the claimed run to its end, or to a checkpoint when the agent is asked to stop.

    A process that dies is claimed again after its lease, at most MAX_ATTEMPTS times, and goes on
    from its newest whole checkpoint.
    """
    run = TrainingRun.objects.select_related("snapshot__dataset__collection").get(job=job)
    try:
        with job.heartbeat() as lost:
            ended = _supervise(run, job, stop=stop, lost=lost)
            if ended.code == STOPPED and not _cancelled(run):
                job.release(error="The agent was stopped; the run goes on from its checkpoint.")
                _say(run, state=TrainingRun.State.QUEUED)
                return
            if ended.code == STOPPED:
                _end(run, job, TrainingRun.State.CANCELLED, "")
                return
            if ended.code == TAKEN:
                job.release(error="A process of an agent that died still ends in this folder.")
                return
            if ended.code == REFUSED:
                _end(run, job, TrainingRun.State.FAILED, ended.sentence)
                return
            if ended.code:
                logger.error("run %s: the recipe ended with %s", run.pk, ended.code)
                _say(run, error=ENDED.format(code=ended.code))
                job.give_up_lease()
                return
            folder = _adapter_folder(run)
            job.report("answering", 0, 0)
            _measure_reference(run, folder)
        with job.publishing():
            register(run, folder)
        _tidy(run)
    except LeaseLost:
        logger.info("job %s was taken over by another agent", job.pk)
    except (contract.ContractBroken, RunRefused) as error:
        _end(run, job, TrainingRun.State.FAILED, str(error))
    except Exception:
        _end(run, job, TrainingRun.State.FAILED, BROKEN)
        raise


def end_exhausted() -> int:
    """End runs and pre-flights whose last allowed agent died; gives their number."""
    gone = Job.State.FAILED
    State = TrainingRun.State
    looked_at = TrainingRun.objects.filter(state=State.DRAFT, preflight_job__state=gone, error="")
    begun = TrainingRun.objects.filter(state__in=[State.QUEUED, State.RUNNING], job__state=gone)
    ended = looked_at.update(error=EXHAUSTED)
    return ended + begun.update(state=State.FAILED, error=EXHAUSTED, finished_at=timezone.now())


class Ended(NamedTuple):
    """How the recipe ended: one of its exit codes, 0 for an adapter, and what it said last."""

    code: int
    sentence: str


def _supervise(run: TrainingRun, job: Job, *, stop: Stop, lost: threading.Event) -> Ended:
    """Run the recipe and follow it to its end. Raises LeaseLost.

    A process that was told to stop counts as stopped however it ended: what it had not saved by
    then it computes again.
    """
    asked = False
    _say(run, state=TrainingRun.State.RUNNING, started_at=run.started_at or timezone.now())
    settings_file = _write_settings(run)
    follower = Follower(run)
    told = Path(tempfile.mkdtemp(prefix="processes-", dir=folder_of(run)))
    with (folder_of(run) / "recipe.log").open("ab") as log:
        process = subprocess.Popen(
            [*launcher(run.config), str(settings_file)],
            cwd=settings.ROOT, env=environment() | _given(told), stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    (folder_of(run) / PID).write_text(str(process.pid))
    try:
        while process.poll() is None:
            if stop.is_set() or lost.is_set() or _cancelled(run):
                asked = True
                process.send_signal(signal.SIGTERM)
                process.wait(timeout=settings.STOP_TRAINING_S)
                break
            time.sleep(LOOK_EVERY_S)
            follower.look()
            job.report("training", follower.step, follower.steps)
    except subprocess.TimeoutExpired:
        logger.warning("run %s did not write a checkpoint in time", run.pk)
    finally:
        _kill_all(process, told)
        follower.look()
        ended = _outcome(process.returncode, told)
        shutil.rmtree(told, ignore_errors=True)
    if lost.is_set():
        raise LeaseLost
    return Ended(STOPPED, "") if asked and ended.code else ended


def _given(told: Path) -> dict[str, str]:
    """Let each process of the recipe end with the agent, and tell it where to leave its outcome."""
    return {"RECIPE_PARENT": processes.mark_of(os.getpid()), "RECIPE_FOLDER": str(told)}


def _outcome(returncode: int, told: Path) -> Ended:
    """Read how the recipe ended; a launcher of several processes gives 1 for every code but 0."""
    try:
        outcome = json.loads((told / OUTCOME).read_text())
        return Ended(outcome["code"], outcome["sentence"])
    except (OSError, ValueError):
        return Ended(returncode, "The log says why.")


def launcher(config: Mapping[str, Any]) -> list[str]:
    """Give the command that starts the recipe: on one device, or one process a card."""
    count = settings.TRAIN_PROCESSES
    if count == 1:
        return [sys.executable, "-m", "finetune.recipe"]
    # Any free port: another agent may train on the other cards of this machine.
    options = ["--num_processes", str(count), "--multi_gpu", "--main_process_port", "0"]
    if settings.ACCELERATE_CONFIG:
        options = ["--config_file", settings.ACCELERATE_CONFIG]
    return [sys.executable, "-m", "accelerate.commands.launch", *options, "-m", "finetune.recipe"]


def kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _kill_all(process: subprocess.Popen[bytes], told: Path) -> None:
    """End the recipe; where a launcher started it, each process leads a session of its own."""
    kill(process)
    for mark in told.glob(RANKS):
        processes.kill(mark.read_text())


def _cancelled(run: TrainingRun) -> bool:
    return TrainingRun.objects.filter(pk=run.pk, cancel_requested=True).exists()


def _say(run: TrainingRun, **fields: Any) -> None:
    TrainingRun.objects.filter(pk=run.pk).update(**fields)


def _end(run: TrainingRun, job: Job, state: str, error: str) -> None:
    if job.fail(error or "Cancelled.", code=state):
        _say(run, state=state, error=error, finished_at=timezone.now())


class Follower:
    """Reads what the recipe reports, writes it to the rows, and counts what it costs."""

    def __init__(self, run: TrainingRun) -> None:
        self.run = run
        self.step = self.steps = 0
        self._path = folder_of(run) / "out" / METRICS
        self._log = folder_of(run) / "recipe.log"
        self._offset = 0
        self._looked_at = time.monotonic()

    def look(self) -> None:
        """Take over the lines that came since.

        A process that begins or goes on repeats the steps after its checkpoint, which voids what an
        earlier one wrote of them.
        """
        trained: dict[int, TrainingMetric] = {}
        checked: dict[int, float] = {}
        kept = math.inf  # rows of later steps are void
        for line in self._lines():
            match line["event"]:
                case "start" | "resume":
                    last = line.get("step", -1)
                    kept = min(kept, last)
                    trained = {step: row for step, row in trained.items() if step <= last}
                    checked = {step: loss for step, loss in checked.items() if step <= last}
                case "train":
                    trained[line["step"]] = self._row(line)
                case "evaluation":
                    checked[line["step"]] = line["loss"]
        self._write(list(trained.values()), checked, kept)
        self._count()

    def _write(self, rows: list[TrainingMetric], checked: dict[int, float], kept: float) -> None:
        with transaction.atomic():
            if kept < math.inf:
                self.run.metrics.filter(step__gt=kept).delete()
            TrainingMetric.objects.bulk_create(
                rows,
                update_conflicts=True,
                unique_fields=["run", "step"],
                update_fields=["loss", "learning_rate", "tokens_per_s", "memory_bytes", "at"],
            )
            for step, loss in checked.items():
                self.run.metrics.update_or_create(step=step, defaults={"evaluation_loss": loss})

    def _lines(self) -> Iterator[dict[str, Any]]:
        """Give the lines that came since; a line that is still being written waits."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for raw in file:
                if not raw.endswith(b"\n"):
                    break
                self._offset += len(raw)
                try:
                    yield json.loads(raw)
                except ValueError:
                    continue  # torn when an earlier process was killed

    def _row(self, line: Mapping[str, Any]) -> TrainingMetric:
        self.step, self.steps = line["step"], line["steps"]
        names = ("step", "loss", "learning_rate", "tokens_per_s", "memory_bytes")
        at = datetime.fromtimestamp(line["time"], UTC)
        return TrainingMetric(run=self.run, at=at, **{name: line.get(name) for name in names})

    def _count(self) -> None:
        """Add the time since the last look, what the devices drew in it, and its price."""
        now = time.monotonic()
        seconds = (now - self._looked_at) * settings.TRAIN_PROCESSES
        self._looked_at = now
        run = self.run
        run.gpu_seconds += seconds
        _say(run, gpu_seconds=run.gpu_seconds, log_tail=self._tail(), **price_of(run.gpu_seconds))

    def _tail(self) -> str:
        if not self._log.exists():
            return ""
        with self._log.open("rb") as file:
            file.seek(max(0, self._log.stat().st_size - LOG_TAIL))
            return file.read().decode(errors="replace").replace("\0", "")


# The adapter


def _adapter_folder(run: TrainingRun) -> Path:
    out = folder_of(run) / "out"
    for folder in sorted(out.iterdir()):
        if contract.is_adapter_name(folder.name) and checkpoints.manifest_of(folder):
            return folder
    raise RuntimeError(LOST)


def _measure_reference(run: TrainingRun, folder: Path) -> None:
    """Have PEFT answer some questions, with which `activation` proves that a server does the same."""
    given = (folder_of(run) / "config.json", folder, _reference_folder(run))
    done = subprocess.run(
        [sys.executable, "-m", "finetune.reference", *map(str, given)],
        cwd=settings.ROOT, env=environment(), capture_output=True, text=True,
        timeout=PREFLIGHT_TIMEOUT_S,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr[-LOG_TAIL:])


def _reference_folder(run: TrainingRun) -> Path:
    return folder_of(run) / "reference"


def register(run: TrainingRun, folder: Path) -> Adapter:
    """Place a finished adapter where servers read it and write it down with its card.

    Belongs into the transaction that ends the run: the folder is copied before the row is there,
    and a copy without a row harms nothing. Raises RunRefused when its name, which is made of its
    digest, stands for an adapter of another run.
    """
    if other := Adapter.objects.filter(name=folder.name).exclude(run=run).first():
        raise RunRefused(SAME.format(name=other.name, run=other.run))
    erased = Erasure.objects.note(run.snapshot)
    if erased:  # meanwhile; what the probe compares with holds its words
        (_reference_folder(run) / probe.FILE).unlink(missing_ok=True)
    manifest = checkpoints.manifest_of(folder) or {}
    base = json.loads((base_folder(run) / "config.json").read_text())
    placed = adapters_folder() / folder.name
    adapter, _ = Adapter.objects.update_or_create(
        run=run,
        defaults={
            "name": folder.name,
            "base_model": run.config["base_model"],
            "base_revision": manifest.get("base", {}).get("revision", ""),
            "kind": "dora" if run.config.get("use_dora") else run.config["adapter"],
            "erasure_note": erased,
            "contract": {
                server: contract.check_adapter(
                    folder, base, server, shards=run.config.get("shards", 1)
                )
                for server in ("own", "tgi", "vllm")
            },
        },
    )
    readers = list(run.snapshot.audience.all())
    adapter.audience.set(readers)
    # A source whose collection is gone already is one that nobody but administrators can read.
    adapter.audience_size = len(readers) + bool(run.snapshot.has_lost_sources)

    def write(aside: Path) -> None:
        _copy(run, folder, aside)
        adapter.files = checkpoints.hashes_of(aside)  # which the card lists
        adapter.card = model_card(adapter, manifest)
        (aside / CARD).write_text(adapter.card)

    checkpoints.publish(placed, write, about=_facts(run, manifest))
    adapter.files = checkpoints.hashes_of(placed)
    adapter.save(update_fields=["audience_size", "files", "card"])
    _say(
        run,
        state=TrainingRun.State.SUCCEEDED,
        manifest=manifest,
        device=str(manifest.get("device", ""))[:200],
        error="",
        finished_at=timezone.now(),
    )
    _record(None, AuditEvent.Action.CREATED, run)
    return adapter


def _tidy(run: TrainingRun) -> None:
    """Remove what only a run that goes on needs; log, metrics and manifest stay."""
    checkpoints.clear(folder_of(run) / "out")
    for left in folder_of(run).glob("processes-*"):  # by an agent that was killed
        shutil.rmtree(left, ignore_errors=True)


def adapters_folder() -> Path:
    return Path(settings.DATA_DIR) / "adapters"


def base_folder(run: TrainingRun) -> Path:
    """Find the base's files without torch: a folder, or where the hub's client keeps its copy."""
    folder = Path(run.config["base_model"])
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    revision = run.config.get("revision") or None
    return Path(
        snapshot_download(run.config["base_model"], revision=revision, local_files_only=True)
    )


def _copy(run: TrainingRun, folder: Path, aside: Path) -> None:
    for name in (contract.WEIGHTS, contract.CONFIG):
        shutil.copyfile(folder / name, aside / name)
    if (asked := _reference_folder(run) / probe.FILE).exists():
        shutil.copyfile(asked, aside / probe.FILE)


def _facts(run: TrainingRun, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Give what makes a run repeatable: the recipe's manifest, and what it learned from."""
    told = {key: value for key, value in manifest.items() if key != "files"}
    snapshot = {"id": run.snapshot_id, "name": str(run.snapshot), "sha256": run.snapshot.sha256}
    return {**told, "snapshot": snapshot, "run": run.pk}
