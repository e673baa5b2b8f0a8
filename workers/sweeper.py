"""The sweeper: a small process that puts right what died. Safe in any number of copies.

Each second it fails the exhausted, ends abandoned answers and tells idle workers of waiting rows;
every few seconds it brings in ratings, looks for pairs that went stale and orders the queues of
reviewers, stops adapters that make answers worse, loads again those that the model server lost and
sees which data sets should be trained again; each hour it removes files that no row names.
"""

import logging
import threading
import time
from collections.abc import Callable

from django.conf import settings
from django.db import DatabaseError, connection
from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError

from finetune import (
    activation,
    evaluation,
    guard,
    queueing,
    restoring,
    retraining,
    snapshots,
    staleness,
    training,
    triage,
)
from kb import chat, ingestion
from kb.files import content_storage
from kb.models import Job
from kb.models.documents import delete_unused_files
from workers import tasks

logger = logging.getLogger(__name__)
# A stored file has its row within seconds; an hour is certain.
ORPHAN_AGE_S = 3600
RATINGS_EVERY_S, STALE_EVERY_S, QUEUE_EVERY_S = 3, 5, 30
GUARD_EVERY_S, RESTORE_EVERY_S, RULES_EVERY_S = 15, 10, 60


def sweep(queue: Redis) -> None:
    """Do one round of what is due each second."""
    ingestion.fail_exhausted()
    activation.end_abandoned()
    snapshots.end_exhausted()
    training.end_exhausted()
    evaluation.end_exhausted()
    chat.end_abandoned()
    hint_waiting(queue)


def hint_waiting(queue: Redis) -> None:
    """Tell the workers of waiting work, unless hints wait already.

    One hint a row once flooded Redis with 22,062 messages for 2,139 documents.
    """
    waiting = Job.objects.for_workers().waiting()
    if queue.llen("ingest") < settings.CELERY_WORKER_CONCURRENCY and waiting.exists():
        tasks.work_on_waiting_rows.apply_async(retry=False)


def remove_orphans() -> int:
    """Delete stored files older than an hour that no version names; gives their number."""
    old = time.time() - ORPHAN_AGE_S
    return delete_unused_files(name for name, at in content_storage().names() if at < old)


def run(stop: threading.Event) -> None:
    """Sweep until told to stop; a database or Redis that is away is waited for."""
    queue = Redis.from_url(settings.REDIS_URL, socket_timeout=5)
    rounds: list[tuple[float, Callable[[], object]]] = [
        (1, lambda: sweep(queue)),
        (RATINGS_EVERY_S, triage.collect),
        (STALE_EVERY_S, staleness.Watch().look),
        (QUEUE_EVERY_S, queueing.Watch().look),
        (GUARD_EVERY_S, guard.look),
        (RESTORE_EVERY_S, Aside(restoring.Watch().look)),
        (RULES_EVERY_S, retraining.look),
        (ORPHAN_AGE_S, remove_orphans),
    ]
    due = [0.0] * len(rounds)
    while not stop.wait(1):
        for at, (every_s, action) in enumerate(rounds):
            if time.monotonic() >= due[at]:
                due[at] = time.monotonic() + every_s - 0.5  # never a round late by a hair
                _calmly(action)


class Aside:
    """Does something in a thread of its own, one at a time: it waits for another machine."""

    def __init__(self, action: Callable[[], object]) -> None:
        self._action = action
        self._thread: threading.Thread | None = None

    def __call__(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def _run(self) -> None:
        try:
            _calmly(self._action)
        finally:
            connection.close()  # this thread's own


def _calmly(action: Callable[[], object]) -> None:
    try:
        action()
    except (DatabaseError, RedisError, OSError, OperationalError) as error:
        logger.warning("sweeping waits: %s", error)
        connection.close()
