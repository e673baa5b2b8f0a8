"""Train a run here and now; the same call as the agent's."""

import threading
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from finetune import training
from finetune.models import TrainingRun
from kb.models import Job
from workers import trainer


class Command(BaseCommand):
    help = "Train a queued run in this process; Ctrl-C writes a checkpoint and puts it back."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("run", type=int, help="its number")

    def handle(self, *args: Any, **options: Any) -> None:
        run = TrainingRun.objects.filter(pk=options["run"]).first()
        if run is None:
            raise CommandError(f"There is no run {options['run']}.")
        if run.job is None:
            raise CommandError("This run has not been started; its pre-flight comes first.")
        stop = threading.Event()
        trainer.stop_at_signals(stop)
        job = Job.objects.claim(Job.Kind.TRAIN, pk=run.job_id)
        if job is None:
            raise CommandError("This run does not wait; it is running elsewhere, or has ended.")
        training.train(job, stop=stop)
        run.refresh_from_db()
        self.stdout.write(f"{run.name}: {run.get_state_display()}. {run.error}".strip())
