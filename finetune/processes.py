"""Know a process again: by its number and its start, for numbers are used again. No Django, no torch.

Linux tells the start below /proc; elsewhere the number alone has to do.
"""

import contextlib
import os
import signal
from pathlib import Path

_PROC = Path("/proc")


def mark_of(pid: int) -> str:
    """Give what `is_running` and `kill` take: "PID START", START in clock ticks since boot."""
    return f"{pid} {_start_of(pid)}"


def is_running(mark: str) -> bool:
    pid, start = _read(mark)
    if _PROC.is_dir():
        return start != "" and _start_of(pid) == start
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's
    return True


def kill(mark: str) -> None:
    """End a process at once; nothing happens when it has ended before."""
    if is_running(mark):
        with contextlib.suppress(ProcessLookupError):
            os.kill(_read(mark)[0], signal.SIGKILL)


def _read(mark: str) -> tuple[int, str]:
    pid, _, start = mark.partition(" ")
    return int(pid), start


def _start_of(pid: int) -> str:
    """Read when a process started; "" for one that is gone, or dead and not yet waited for."""
    try:
        # The name of the program, in brackets, may hold anything; what follows are 50 numbers.
        state, *rest = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "" if state in "ZX" else rest[18]  # field 22 of proc(5)
