"""Follow a job from a command."""

import time
from collections.abc import Callable

from django.core.management.base import CommandError

from kb.models import Job

POLL_S = 0.5


def _stage(job: Job) -> str:
    return "" if job.is_final else f"{job.stage or job.state} {job.percent} %"


def wait(job: Job, say: Callable[[str], object], describe: Callable[[Job], str] = _stage) -> None:
    """Say how far a job is, in the words of `describe`, whenever they change, until it ends."""
    said = ""
    while True:
        job.refresh_from_db()
        if (words := describe(job)) and words != said:
            say(words)
            said = words
        if job.is_final:
            return
        time.sleep(POLL_S)


def insist(job: Job) -> None:
    """Raise CommandError with the sentence of a job that did not end well."""
    if job.state != Job.State.DONE:
        raise CommandError(job.error or "It was cancelled.")


def follow(job: Job, say: Callable[[str], object]) -> None:
    """Wait for the end of a job. Raises CommandError with its sentence when it failed."""
    wait(job, say)
    insist(job)
