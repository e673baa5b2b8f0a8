"""Runs from the command line: plan, read, start, cancel, resume, delete."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db.models import QuerySet

from finetune import erasure, sweeps, training
from finetune.hyperparameters import InvalidConfig
from finetune.management import people
from finetune.models import Dataset, DatasetSnapshot, TrainingRun
from kb.models import User


class Command(BaseCommand):
    help = "Plan, read, start, cancel, resume and delete runs; an agent does the work."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        planned = actions.add_parser(
            "plan", help="plan a run, or a sweep; its pre-flight is queued"
        )
        planned.add_argument("snapshot", type=int, help="its number in its address")
        planned.add_argument("name")
        planned.add_argument("--config", type=Path, help="a JSON file of settings")
        planned.add_argument("--set", action="append", default=[], metavar="SETTING=VALUE")
        planned.add_argument(
            "--try", dest="tried", action="append", default=[], metavar="SETTING=VALUE,VALUE",
            help="a run for each value, as a sweep",
        )  # fmt: skip
        shown = actions.add_parser("show", help="its state, pre-flight, curves' end, cost, adapter")
        shown.add_argument("--log", action="store_true", help="its last lines, too")
        shown.add_argument("--manifest", action="store_true", help="what it depended on, too")
        started = actions.add_parser("start", help="start it once its pre-flight was read")
        cancelled = actions.add_parser("cancel", help="stop it at its next step")
        resumed = actions.add_parser("resume", help="let it go on after it failed or was cancelled")
        deleted = actions.add_parser(
            "delete", help="with its adapter and all files, when it is over"
        )
        for each in (shown, started, cancelled, resumed, deleted):
            each.add_argument("run", type=int, help="its number")
        for each in (planned, shown, started, cancelled, resumed, deleted):
            each.add_argument("--user", help="who asks; the first administrator unless named")

    def handle(self, *args: Any, **options: Any) -> None:
        told, user = Namespace(**options), people.person(options["user"])
        actions: dict[str, Callable[[Namespace, User], None]] = {
            "plan": self._plan, "show": self._show, "start": self._start, "cancel": self._cancel,
            "resume": self._resume, "delete": self._delete,
        }  # fmt: skip
        try:
            actions[told.action](told, user)
        except (training.RunRefused, erasure.StillNeeded, InvalidConfig) as refusal:
            raise CommandError(str(refusal)) from refusal

    def _plan(self, told: Namespace, user: User) -> None:
        snapshot = _owned_snapshots(user).filter(pk=told.snapshot).first()
        if snapshot is None:
            raise CommandError(f"{user.username} may not train on a snapshot {told.snapshot}.")
        config = _read(told.config) | {name: _value(text) for name, text in map(_parted, told.set)}
        tried = {
            name: [_value(part) for part in text.split(",")]
            for name, text in map(_parted, told.tried)
        }
        configs = sweeps.grid(config, tried)
        for run in sweeps.plan(snapshot, user, name=told.name, configs=configs):
            self.stdout.write(f"run {run.pk}: {run.name}")
        self.stdout.write("The pre-flight waits for an agent; read it with “run show”.")

    def _show(self, told: Namespace, user: User) -> None:
        run = TrainingRun.objects.visible_to(user).filter(pk=told.run).first()
        if run is None:
            raise CommandError(f"There is no run {told.run} that {user.username} may see.")
        for line in _about(run):
            self.stdout.write(line)
        if told.manifest:
            self.stdout.write(json.dumps(run.manifest, indent=2, ensure_ascii=False))
        if told.log:
            self.stdout.write(run.log_tail)

    def _start(self, told: Namespace, user: User) -> None:
        training.start(_managed(told.run, user), user)
        self.stdout.write("It waits for an agent.")

    def _cancel(self, told: Namespace, user: User) -> None:
        if not training.cancel(_managed(told.run, user), user):
            raise CommandError("This run has ended already.")
        self.stdout.write("It ends at its next step.")

    def _resume(self, told: Namespace, user: User) -> None:
        training.go_on(_managed(told.run, user), user)
        self.stdout.write("It waits for an agent.")

    def _delete(self, told: Namespace, user: User) -> None:
        erasure.delete_run(_managed(told.run, user), user)
        self.stdout.write(f"run {told.run} is deleted.")


def _owned_snapshots(user: User) -> QuerySet[DatasetSnapshot]:
    owned = Dataset.objects.owned_by(user)
    return DatasetSnapshot.objects.visible_to(user).filter(dataset__in=owned)


def _managed(pk: int, user: User) -> TrainingRun:
    run = TrainingRun.objects.filter(snapshot__in=_owned_snapshots(user), pk=pk).first()
    if run is None:
        raise CommandError(f"{user.username} manages no run {pk}.")
    return run


def _read(path: Path | None) -> dict[str, Any]:
    try:
        settings: Any = json.loads(path.read_text()) if path else {}
    except (OSError, ValueError) as error:
        raise CommandError(f"{path} cannot be read: {error}") from error
    if not isinstance(settings, dict):
        raise CommandError(f"{path} holds no settings.")
    return settings


def _parted(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign:
        raise CommandError(f"“{text}” is not SETTING=VALUE.")
    return name, value


def _value(text: str) -> Any:
    """Read a number, true, false or a list as JSON; everything else is a word."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _about(run: TrainingRun) -> list[str]:
    """Say how a run stands, in lines."""
    lines = [f"{run.name}: {run.get_state_display()}. {run.error}".strip()]
    if run.state == TrainingRun.State.DRAFT and not (run.preflight or run.error):
        lines.append("The pre-flight is not done yet.")
    found = run.preflight.get("lines", [])
    lines += [f"{line['level']:7} {line['name']}: {line['sentence']}" for line in found]
    if last := run.metrics.exclude(loss=None).order_by("step").last():
        lines.append(f"step {last.step:,}: loss {last.loss:.4f}")
    if run.gpu_seconds:
        lines.append(
            f"device time {run.gpu_seconds:,.0f} s, {run.energy_wh:,.0f} Wh, {run.cost:.2f}"
        )
    if hasattr(run, "adapter"):
        lines.append(f"adapter {run.adapter.name}")
    return lines
