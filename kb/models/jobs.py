"""One long piece of work on one row: claimed with a lease, finished behind a fence.

Rows are the truth and messages are hints (docs/architecture.md). A worker that was stopped, lost
the network or slept too long finds its token gone and its result is thrown away.
"""

import logging
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Self

from django.conf import settings
from django.db import (
    InterfaceError,
    OperationalError,
    connection,
    models,
    transaction,
)
from django.db.models import F, Q
from django.utils import timezone

logger = logging.getLogger(__name__)
_CLAIM = """
UPDATE kb_job SET state = 'running', lease_token = %(token)s, attempts = attempts + 1,
       lease_until = statement_timestamp() + make_interval(secs => %(lease_s)s),
       started_at = COALESCE(started_at, statement_timestamp()), stage = '', done = 0, total = 0
 WHERE id = (SELECT id FROM kb_job
              WHERE kind = %(kind)s AND (%(pk)s::bigint IS NULL OR id = %(pk)s)
                AND attempts < %(max_attempts)s
                AND ((state = 'waiting' AND not_before <= statement_timestamp())
                     OR (state = 'running' AND lease_until < statement_timestamp()))
              ORDER BY not_before, id FOR UPDATE SKIP LOCKED LIMIT 1)
RETURNING *
"""
RELEASE_PAUSE = timedelta(seconds=15)
EXHAUSTED = (
    "Processing stopped {attempts} times without finishing, most likely because the file needs more"
    " memory than there is. Split the file or try again when the machine is less busy."
)


class LeaseLost(Exception):
    """Another worker holds the job by now; this one's result is thrown away."""


class JobQuerySet(models.QuerySet["Job"]):
    def waiting(self) -> Self:
        """Jobs that a worker could claim now."""
        now = timezone.now()
        return self.filter(
            Q(state=Job.State.WAITING, not_before__lte=now)
            | Q(state=Job.State.RUNNING, lease_until__lt=now),
            attempts__lt=settings.MAX_ATTEMPTS,
        )

    def for_workers(self) -> Self:
        """Leave out what only an agent on a machine with a card takes."""
        return self.exclude(kind__in=Job.AGENT_KINDS)

    def exhausted(self) -> Self:
        """Jobs whose last allowed worker died."""
        return self.filter(
            state=Job.State.RUNNING,
            lease_until__lt=timezone.now(),
            attempts__gte=settings.MAX_ATTEMPTS,
        )

    def claim(self, kind: str, *, pk: int | None = None) -> "Job | None":
        """Take the oldest job of a kind that waits or lost its worker; None when there is none.

        `pk`: only this one.
        """
        parameters = {
            "kind": kind,
            "pk": pk,
            "token": uuid.uuid4(),
            "lease_s": settings.LEASE_S,
            "max_attempts": settings.MAX_ATTEMPTS,
        }
        return next(iter(self.raw(_CLAIM, parameters)), None)


class Job(models.Model):
    class Kind(models.TextChoices):
        INGEST = "ingest", "Ingest a document"
        REEMBED = "reembed", "Embed everything with another model"
        RETITLE = "retitle", "Index a renamed document"
        IMPORT = "import", "Import pairs"
        CLEAN = "clean", "Look for duplicates and flags"
        DRAFT = "draft", "Draft pairs from passages"
        FREEZE = "freeze", "Freeze a snapshot"
        PREFLIGHT = "preflight", "Look at a training run before it starts"
        TRAIN = "train", "Train an adapter"
        EVALUATE = "evaluate", "Evaluate an adapter"
        ACTIVATE = "activate", "Activate an adapter"

    AGENT_KINDS = ("preflight", "train", "evaluate")

    class State(models.TextChoices):
        WAITING = "waiting", "Waiting"
        RUNNING = "running", "Running"
        DONE = "done", "Done"
        FAILED = "failed", "Failed"
        CANCELLED = "cancelled", "Cancelled"

    kind = models.CharField(max_length=16, choices=Kind)
    state = models.CharField(max_length=16, choices=State, default=State.WAITING)
    stage = models.CharField(max_length=32, blank=True)
    done = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField(default=0)
    attempts = models.PositiveSmallIntegerField(default=0)
    lease_token = models.UUIDField(null=True, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    not_before = models.DateTimeField(default=timezone.now)
    error_code = models.CharField(max_length=32, blank=True)
    error = models.TextField(blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = JobQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=["waiting", "running", "done", "failed", "cancelled"]),
                name="job_state_known",
            ),
        ]
        indexes = [
            models.Index(
                fields=["kind", "not_before", "id"],
                condition=Q(state__in=["waiting", "running"]),
                name="job_open",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.pk}: {self.state}"

    @property
    def is_final(self) -> bool:
        return self.state in (self.State.DONE, self.State.FAILED, self.State.CANCELLED)

    @property
    def percent(self) -> int:
        """How far the present stage is, 0–100."""
        if self.state == self.State.DONE:
            return 100
        return min(99, self.done * 100 // self.total) if self.total else 0

    def _mine(self) -> JobQuerySet:
        return Job.objects.filter(
            pk=self.pk, lease_token=self.lease_token, state=self.State.RUNNING
        )

    def renew(self) -> bool:
        """Extend our lease; False when another worker holds the job by now."""
        lease_until = timezone.now() + timedelta(seconds=settings.LEASE_S)
        return bool(self._mine().update(lease_until=lease_until))

    def report(self, stage: str, done: int, total: int) -> None:
        """Show progress. Raises LeaseLost when the job is no longer ours."""
        if not self._mine().update(stage=stage, done=done, total=total):
            raise LeaseLost

    @contextmanager
    def heartbeat(self) -> Iterator[threading.Event]:
        """Renew the lease from a thread while the body works; the event says that it was lost."""
        stop, lost = threading.Event(), threading.Event()

        def beat() -> None:
            while not (lost.is_set() or stop.wait(settings.LEASE_S / 3)):
                try:
                    if not self.renew():
                        lost.set()
                except (OperationalError, InterfaceError):
                    pass  # it may be restarting; the next beat tries again
                finally:
                    connection.close()

        thread = threading.Thread(target=beat, name=f"heartbeat-{self.pk}", daemon=True)
        thread.start()
        try:
            yield lost
        finally:
            stop.set()
            thread.join()

    @contextmanager
    def publishing(self) -> Iterator[None]:
        """Commit the body together with DONE, or nothing. Raises LeaseLost when fenced off."""
        with transaction.atomic():
            finished = self._mine().update(
                state=self.State.DONE,
                stage="",
                error="",
                error_code="",
                lease_until=None,
                finished_at=timezone.now(),
            )
            if not finished:
                raise LeaseLost
            yield

    @contextmanager
    def settled(self, *, broken: str, away: type[Exception]) -> Iterator[None]:
        """Put the job back when something is `away`; end it with `broken` for a fault of ours."""
        try:
            yield
        except away as error:
            self.release(error=str(error))
        except LeaseLost:
            logger.info("job %s was taken over by another worker", self.pk)
        except Exception:
            self.fail(broken, code="broken")
            raise

    def fail(self, error: str, *, code: str = "") -> bool:
        """End the job with a sentence for a person; False when it is not ours any more."""
        self.error, self.error_code = error, code
        return bool(
            self._mine().update(
                state=self.State.FAILED,
                error=error,
                error_code=code,
                lease_until=None,
                finished_at=timezone.now(),
            )
        )

    def release(self, *, error: str) -> None:
        """Put the job back because something it needs is away; that costs no attempt."""
        self._mine().update(
            state=self.State.WAITING,
            lease_token=None,
            lease_until=None,
            attempts=F("attempts") - 1,
            error=error,
            not_before=timezone.now() + RELEASE_PAUSE,
        )

    def give_up_lease(self) -> None:
        """Let the job be claimed again at once; unlike `release` that costs an attempt."""
        self._mine().update(lease_until=timezone.now())

    def retry(self) -> bool:
        """Let a failed job run again from its beginning; False when it has not failed."""
        failed = Job.objects.filter(pk=self.pk, state__in=[self.State.FAILED, self.State.CANCELLED])
        return bool(
            failed.update(
                state=self.State.WAITING,
                attempts=0,
                error="",
                error_code="",
                not_before=timezone.now(),
                finished_at=None,
            )
        )
