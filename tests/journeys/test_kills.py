"""Kill -9 at the worst moments: nothing is lost, nothing happens twice, the work goes on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from django.conf import settings

from kb.models import Chunk, Document, Job
from tests.conftest import AddDocument

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = 12
# A worker without Celery around it: claims rows until none is left, and may be killed anywhere.
WORKER = """
import django; django.setup()
from django.conf import settings
settings.DATABASES["default"]["NAME"] = {name!r}
from kb import ingestion
from kb.models import Job
import time
while True:
    job = Job.objects.claim(Job.Kind.INGEST)
    if job:
        ingestion.ingest(job)
    else:
        time.sleep(0.05)
"""


def start_worker() -> subprocess.Popen[bytes]:
    code = WORKER.format(name=settings.DATABASES["default"]["NAME"])
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "LEASE_S": "1",
        "MAX_ATTEMPTS": "50",
    }
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, start_new_session=True
    )


def wait_for(condition: Callable[[], bool], *, limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False


def test_documents_survive_workers_that_are_killed_again_and_again(
    add_document: AddDocument,
) -> None:
    for number in range(DOCUMENTS):
        body = "\n\n".join(f"## Part {part}\n\nFact {number}-{part}." for part in range(20))
        add_document(f"{number}.md", f"# Document {number}\n\n{body}", wait=False)

    def all_ended() -> bool:
        return not Document.objects.exclude(state__in=["ready", "failed"]).exists()

    for _ in range(4):
        worker = start_worker()
        wait_for(all_ended, limit_s=2.5)
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    worker = start_worker()
    try:
        assert wait_for(all_ended, limit_s=90)
    finally:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()

    assert set(Document.objects.values_list("state", flat=True)) == {"ready"}
    assert Job.objects.filter(state=Job.State.DONE).count() == DOCUMENTS
    for document in Document.objects.all():
        positions = Chunk.objects.filter(document=document).order_by("position")
        found = list(positions.values_list("position", flat=True))
        assert found == list(range(document.chunk_count))
        assert document.chunk_count >= 20
