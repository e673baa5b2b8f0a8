"""Run the training agent until a signal ends it."""

import importlib.util
import threading
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from workers import trainer


class Command(BaseCommand):
    help = "Look at, train and evaluate what waits; on a machine that has the train extra."

    def handle(self, *args: Any, **options: Any) -> None:
        if importlib.util.find_spec("torch") is None:
            raise CommandError(
                "torch is not installed here. Install requirements/train.lock first."
            )
        stop = threading.Event()
        trainer.stop_at_signals(stop)
        trainer.run(stop)
