"""Follow a job from a command."""

import time
from collections.abc import Callable

from django.core.management.base import CommandError

from kb.models import Job

POLL_S = 0.5


def follow(job: Job, say: Callable[[str], object]) -> None:
    """Say how far a job is until it ends. Raises CommandError with its sentence when it failed."""
    shown = ""
    while True:
        job.refresh_from_db()
        state = f"{job.stage or job.state} {job.percent} %"
        if state != shown and not job.is_final:
            say(state)
            shown = state
        if job.is_final:
            break
        time.sleep(POLL_S)
    if job.state != Job.State.DONE:
        raise CommandError(job.error or "The job was cancelled.")
