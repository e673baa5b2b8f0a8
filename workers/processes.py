"""Know a process again by its id and its start, and end it."""

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")


def started_at(pid: int) -> str | None:
    """Say when a process started, as an opaque text; None when it does not run.

    Ids are given out again, so an id alone does not name a process. A zombie counts as ended.
    """
    if PROC.is_dir():
        return _started_at_linux(pid)
    line = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True
    ).stdout.strip()
    return None if not line or line.startswith("Z") else line.split(maxsplit=1)[1]


def _started_at_linux(pid: int) -> str | None:
    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    # The second field is the name in brackets, which may hold spaces and brackets itself.
    state, *fields = stat.rpartition(")")[2].split()
    # A killed process looks like a zombie from when its first thread has ended, but its others
    # still hold its sockets and files, and nobody can bury it before they have ended too.
    ended = state == "X" or (state == "Z" and fields[16] == "1")
    return None if ended else fields[18]


def write_pid_file(path: Path, pid: int) -> None:
    path.write_text(f"{pid} {started_at(pid)}\n")


def read_pid_file(path: Path) -> int | None:
    """Return the id of the process that the file names if that very process still runs."""
    try:
        pid, start = path.read_text().split(maxsplit=1)
    except (OSError, ValueError):
        return None
    return int(pid) if started_at(int(pid)) == start.strip() else None


def wait_until_ended(pid: int, *, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while started_at(pid) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def end_group(pid: int, *, timeout_s: float) -> None:
    """End a process that leads its own group, politely, and then whatever is left of the group.

    Only the leader is asked: it knows in which order its children end.
    """
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        wait_until_ended(pid, timeout_s=timeout_s)
    kill_group(pid)
    wait_until_ended(pid, timeout_s=5)


def kill_group(pid: int) -> None:
    """Kill what is left of a group, whose leader may have ended."""
    # macOS answers "not permitted" where only a zombie is left.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
