import threading
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from kb.models import Job
from kb.models.jobs import LeaseLost

pytestmark = pytest.mark.django_db


def waiting_job(**fields: object) -> Job:
    return Job.objects.create(kind=Job.Kind.INGEST, **fields)


def let_the_lease_end(job: Job) -> None:
    Job.objects.filter(pk=job.pk).update(lease_until=timezone.now() - timedelta(seconds=1))


def test_the_oldest_waiting_job_is_claimed_first() -> None:
    old, _ = waiting_job(), waiting_job()

    claimed = Job.objects.claim(Job.Kind.INGEST)

    assert claimed == old
    assert (claimed.state, claimed.attempts) == (Job.State.RUNNING, 1)
    assert claimed.lease_token is not None


def test_nothing_is_claimed_twice() -> None:
    waiting_job()

    assert Job.objects.claim(Job.Kind.INGEST)
    assert Job.objects.claim(Job.Kind.INGEST) is None


def test_a_job_of_another_kind_is_left_alone() -> None:
    waiting_job()

    assert Job.objects.claim(Job.Kind.REEMBED) is None


def test_a_job_whose_worker_died_is_claimed_again_and_the_first_result_is_thrown_away() -> None:
    waiting_job()
    first = Job.objects.claim(Job.Kind.INGEST)
    assert first
    let_the_lease_end(first)

    second = Job.objects.claim(Job.Kind.INGEST)

    assert second == first
    assert second.attempts == 2
    assert not first.renew()
    with pytest.raises(LeaseLost), first.publishing():
        raise AssertionError("the body must not run")
    with second.publishing():
        pass
    second.refresh_from_db()
    assert second.state == Job.State.DONE


def test_progress_of_a_lost_job_is_refused() -> None:
    waiting_job()
    job = Job.objects.claim(Job.Kind.INGEST)
    assert job
    let_the_lease_end(job)
    Job.objects.claim(Job.Kind.INGEST)

    with pytest.raises(LeaseLost):
        job.report("reading", 1, 2)


def test_a_job_that_keeps_killing_its_worker_is_given_up(settings) -> None:  # type: ignore[no-untyped-def]
    settings.MAX_ATTEMPTS = 2
    waiting_job()
    for _ in range(2):
        job = Job.objects.claim(Job.Kind.INGEST)
        assert job
        let_the_lease_end(job)

    assert Job.objects.claim(Job.Kind.INGEST) is None
    assert list(Job.objects.exhausted()) == [job]


def test_a_released_job_waits_a_little_and_loses_no_attempt() -> None:
    waiting_job()
    job = Job.objects.claim(Job.Kind.INGEST)
    assert job

    job.release(error="The embedding server is away.")

    assert Job.objects.claim(Job.Kind.INGEST) is None
    Job.objects.update(not_before=timezone.now())
    again = Job.objects.claim(Job.Kind.INGEST)
    assert again
    assert again.attempts == 1


def test_only_a_failed_job_can_be_retried() -> None:
    waiting_job()
    job = Job.objects.claim(Job.Kind.INGEST)
    assert job
    assert not job.retry()

    job.fail("The file is empty.", code="empty")

    assert job.retry()
    again = Job.objects.claim(Job.Kind.INGEST)
    assert again
    assert (again.attempts, again.error) == (1, "")


def test_percent_is_100_only_when_done() -> None:
    job = waiting_job(done=10, total=10)

    assert job.percent == 99
    job.state = Job.State.DONE
    assert job.percent == 100


@pytest.mark.django_db(transaction=True)
def test_eight_workers_at_once_claim_each_job_exactly_once() -> None:
    for _ in range(40):
        waiting_job()
    claimed: list[int] = []

    def work() -> None:
        while job := Job.objects.claim(Job.Kind.INGEST):
            claimed.append(job.pk)
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(claimed) == sorted(Job.objects.values_list("pk", flat=True))


@pytest.mark.django_db(transaction=True)
def test_the_heartbeat_keeps_the_lease_and_notices_its_loss(settings) -> None:  # type: ignore[no-untyped-def]
    settings.LEASE_S = 0.3
    waiting_job()
    job = Job.objects.claim(Job.Kind.INGEST)
    assert job

    with job.heartbeat() as lost:
        assert not lost.wait(0.8)
        assert not Job.objects.waiting().exists()
        Job.objects.update(lease_token=None)
        assert lost.wait(2)
