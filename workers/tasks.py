"""Every task: claim rows and call the journey. A lost or doubled message harms nothing."""

import logging

from django.db import transaction
from kombu.exceptions import OperationalError

from kb import ingestion
from kb.models import Job
from workers.app import app

logger = logging.getLogger(__name__)
# A hint that waited this long is stale: the sweeper has sent another.
HINT_EXPIRES_S = 60


@app.task(queue="ingest", expires=HINT_EXPIRES_S)
def ingest_waiting_documents() -> None:
    while job := Job.objects.claim(Job.Kind.INGEST):
        ingestion.ingest(job)


@app.task(queue="ingest", expires=HINT_EXPIRES_S)
def reembed_waiting_spaces() -> None:
    while job := Job.objects.claim(Job.Kind.REEMBED):
        ingestion.reembed(job)


def hint_ingestion() -> None:
    """Tell the workers, after commit, that documents wait. The sweeper does when Redis is away."""
    transaction.on_commit(_send_ingest_hint)


def _send_ingest_hint() -> None:
    try:
        ingest_waiting_documents.apply_async(retry=False)
    except OperationalError:
        logger.warning("Redis is away; the sweeper will tell the workers")
