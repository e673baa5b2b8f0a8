"""Run the sweeper until a signal ends it."""

import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand

from workers import sweeper


class Command(BaseCommand):
    help = "Put right what died: expired leases, abandoned answers, files without rows."

    def handle(self, *args: Any, **options: Any) -> None:
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        sweeper.run(stop)
