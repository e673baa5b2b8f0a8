"""End a worker that is alive but takes no work; its supervisor starts another.

Celery workers have been seen idle beside a full queue after Redis came back
(https://github.com/celery/celery/issues/10302). The rows show it: jobs have waited long and no job
was claimed meanwhile.
"""

import logging
import os
import signal
import threading
from datetime import timedelta
from typing import Any

from celery.signals import worker_ready
from django.conf import settings
from django.db import DatabaseError, connection
from django.utils import timezone

from kb.models import Job

logger = logging.getLogger(__name__)


def is_stuck() -> bool:
    """Whether a job has waited longer than WATCHDOG_S while no worker started or renewed any."""
    since = timezone.now() - timedelta(seconds=settings.WATCHDOG_S)
    jobs = Job.objects.for_workers()
    waits = jobs.waiting().filter(not_before__lt=since, created_at__lt=since).exists()
    busy = jobs.filter(state=Job.State.RUNNING, lease_until__gt=timezone.now()).exists()
    recent = jobs.filter(started_at__gt=since).exists()
    return waits and not busy and not recent


def _watch() -> None:
    pause = threading.Event()
    while not pause.wait(settings.WATCHDOG_S / 2):
        try:
            if is_stuck():
                logger.error("jobs wait and nobody takes them; this worker ends to be restarted")
                os.kill(os.getpid(), signal.SIGKILL)
        except DatabaseError:
            logger.warning("the database is away")
        finally:
            connection.close()


@worker_ready.connect
def start(**kwargs: Any) -> None:
    threading.Thread(target=_watch, name="watchdog", daemon=True).start()
