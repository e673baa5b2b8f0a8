"""Every task: claim rows and call the journey. A lost or doubled message harms nothing."""

import logging
from collections.abc import Callable

from django.db import transaction
from kombu.exceptions import OperationalError

from finetune import activation, drafting, duplicates, importing, snapshots
from kb import ingestion
from kb.models import Job
from workers.app import app

logger = logging.getLogger(__name__)
# A hint that waited this long is stale: the sweeper has sent another.
HINT_EXPIRES_S = 60
JOURNEYS: dict[str, Callable[[Job], None]] = {
    Job.Kind.INGEST: ingestion.ingest,
    Job.Kind.REEMBED: ingestion.reembed,
    Job.Kind.RETITLE: ingestion.retitle,
    Job.Kind.IMPORT: importing.import_pairs,
    Job.Kind.DRAFT: drafting.draft,
    Job.Kind.CLEAN: duplicates.clean,
    Job.Kind.FREEZE: snapshots.freeze,
    Job.Kind.ACTIVATE: activation.activate,
}


@app.task(queue="ingest", expires=HINT_EXPIRES_S)
def work_on_waiting_rows() -> None:
    """One row of each kind in turn, so that ten thousand documents do not hold up an import."""
    while sum(work_on_next(kind) for kind in JOURNEYS):
        pass


def work_on_next(kind: str) -> bool:
    """Work on the next waiting row of a kind; False when none waits."""
    job = Job.objects.claim(kind)
    if job is not None:
        JOURNEYS[kind](job)
    return job is not None


def hint_workers() -> None:
    """Tell the workers, after commit, that rows wait. The sweeper does when Redis is away."""
    transaction.on_commit(_send_hint)


def _send_hint() -> None:
    try:
        work_on_waiting_rows.apply_async(retry=False)
    except OperationalError:
        logger.warning("Redis is away; the sweeper will tell the workers")
