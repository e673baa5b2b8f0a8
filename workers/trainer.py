"""The agent on the machine with the card: claims pre-flights, runs and evaluations, one at a time.

`manage.py trainer` starts it. Any number may run, on any number of machines that share database and
data folder: a row is claimed with a lease, as everywhere (docs/operate.md).
"""

import logging
import signal
import threading
from collections.abc import Callable

from django.db import DatabaseError, connection

from finetune import evaluation, training
from kb.models import Job

logger = logging.getLogger(__name__)
IDLE_S = 2.0


JOURNEYS: dict[str, Callable[[Job, threading.Event], None]] = {
    Job.Kind.PREFLIGHT: lambda job, stop: training.preflight(job),
    Job.Kind.TRAIN: lambda job, stop: training.train(job, stop=stop),
    Job.Kind.EVALUATE: lambda job, stop: evaluation.evaluate(job, stop=stop),
}


def stop_at_signals(stop: threading.Event) -> None:
    """Let SIGTERM and Ctrl-C end the work after a checkpoint."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())


def run(stop: threading.Event) -> None:
    """Work until told to stop; a database that is away is waited for."""
    while not stop.is_set():
        try:
            evaluation.start_missing()
            if not sum(work_on_next(kind, stop) for kind in JOURNEYS):
                stop.wait(IDLE_S)
        except DatabaseError as error:
            logger.warning("training waits: %s", error)
            connection.close()
            stop.wait(IDLE_S)
        except Exception:
            # The row has its sentence; the agent goes on with the next one.
            logger.exception("a training journey broke")
            stop.wait(IDLE_S)


def work_on_next(kind: str, stop: threading.Event) -> bool:
    """Work on the next waiting row of a kind; False when none waits."""
    job = None if stop.is_set() else Job.objects.claim(kind)
    if job is not None:
        JOURNEYS[kind](job, stop)
    return job is not None
