"""Evaluate an adapter here and now; the same call as the agent's."""

import threading
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from finetune import evaluation
from finetune.gate import InvalidRules
from finetune.models import Adapter
from kb.models import Job
from workers import trainer


class Command(BaseCommand):
    help = "Hold an adapter against its base in this process; Ctrl-C puts it back."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("adapter", help="its name")

    def handle(self, *args: Any, **options: Any) -> None:
        adapter = Adapter.objects.filter(name=options["adapter"]).first()
        if adapter is None:
            raise CommandError(f"There is no adapter {options['adapter']}.")
        try:
            made = evaluation.start(adapter, None)
        except InvalidRules as refusal:
            raise CommandError(str(refusal)) from refusal
        stop = threading.Event()
        trainer.stop_at_signals(stop)
        job = Job.objects.claim(Job.Kind.EVALUATE, pk=made.job_id)
        if job is None:
            raise CommandError("This evaluation is running elsewhere.")
        evaluation.evaluate(job, stop=stop)
        made.refresh_from_db()
        for line in made.gate.get("lines", []):
            self.stdout.write(f"{'met    ' if line['passed'] else 'NOT MET'} {line['sentence']}")
        if made.passed is not True:
            raise CommandError(made.job.error or "The gate refuses this adapter.")
        self.stdout.write(f"{adapter.name} passed.")
