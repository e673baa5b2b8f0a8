import os
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.core.files.storage import default_storage
from django.utils import timezone
from redis import Redis

from kb.models import Conversation, Job, Message, User
from tests.conftest import AddDocument
from workers import sweeper, watchdog

pytestmark = pytest.mark.django_db


@pytest.fixture
def queue() -> Redis:
    redis = Redis.from_url(settings.REDIS_URL)
    redis.delete("ingest")
    return redis


def test_waiting_work_is_hinted_at_and_never_floods_the_queue(
    queue: Redis, add_document: AddDocument
) -> None:
    for number in range(20):
        add_document(f"{number}.md", "text", wait=False)

    for _ in range(30):
        sweeper.sweep(queue)

    assert 0 < queue.llen("ingest") <= 2 * settings.CELERY_WORKER_CONCURRENCY


def test_no_hint_is_sent_when_nothing_waits(queue: Redis) -> None:
    sweeper.sweep(queue)

    assert queue.llen("ingest") == 0


def test_an_answer_whose_process_died_ends_with_what_it_had(queue: Redis, alice: User) -> None:
    conversation = Conversation.objects.create(user=alice)
    answer = conversation.messages.create(
        role=Message.Role.ASSISTANT,
        state=Message.State.STREAMING,
        text="The glacier",
        lease_until=timezone.now() - timedelta(seconds=1),
    )

    sweeper.sweep(queue)

    answer.refresh_from_db()
    assert (answer.state, answer.text) == (Message.State.FAILED, "The glacier")
    assert answer.error


def test_old_files_without_a_row_are_removed_and_young_ones_stay(
    add_document: AddDocument,
) -> None:
    document = add_document("guide.md", "text", wait=False)
    kept = Path(default_storage.path(document.newest_version.file.name))
    folder = Path(default_storage.location) / "zz"
    folder.mkdir(exist_ok=True)
    old, young = folder / "old", folder / "young"
    old.write_bytes(b"1")
    young.write_bytes(b"2")
    long_ago = time.time() - 2 * sweeper.ORPHAN_AGE_S
    os.utime(old, (long_ago, long_ago))
    os.utime(kept, (long_ago, long_ago))

    sweeper.remove_orphans()

    assert not old.exists()
    assert young.exists()
    assert kept.exists()


def test_the_watchdog_sees_work_that_nobody_takes() -> None:
    long_ago = timezone.now() - timedelta(seconds=10 * settings.WATCHDOG_S)
    job = Job.objects.create(kind=Job.Kind.INGEST, created_at=long_ago, not_before=long_ago)
    assert watchdog.is_stuck()

    Job.objects.filter(pk=job.pk).update(
        state=Job.State.RUNNING, lease_until=timezone.now() + timedelta(seconds=30)
    )
    assert not watchdog.is_stuck()


def test_the_watchdog_gives_fresh_work_its_time() -> None:
    Job.objects.create(kind=Job.Kind.INGEST)

    assert not watchdog.is_stuck()


def test_what_waits_for_another_machine_holds_up_nothing_and_runs_once_at_a_time() -> None:
    go, began = threading.Event(), []

    def wait() -> None:
        began.append(threading.current_thread())
        go.wait(20)

    aside = sweeper.Aside(wait)
    aside()
    aside()
    go.set()
    began[0].join()
    aside()
    began[1].join()
    assert len(began) == 2
