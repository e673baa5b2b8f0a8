"""Measure many pairs at once, in processes of their own: it is most of an import's work.

A child is this module run as a program: a line of JSON with the arguments of quality.measure for
each pair in, a line with what it measured out, until its input ends. It needs neither Django nor
our environment, and it ends with its parent.
"""

import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import Any, TypeVar

from finetune import quality
from finetune.quality import Quality

ROOT = Path(__file__).resolve().parents[1]
MOST_PROCESSES = 4
# Fewer pairs are measured before a process has started.
WORTH_A_PROCESS = 1_000
T = TypeVar("T")


def measure_all(
    batches: Iterable[tuple[T, Sequence[dict[str, Any]]]], *, processes: int
) -> Iterator[tuple[T, list[Quality]]]:
    """Measure batches of arguments in parallel; gives (what came with a batch, qualities) in order.

    A few batches are read ahead, one a process. 0 processes measure here.
    """
    if not processes:
        yield from (
            (given, [quality.measure(**pair) for pair in pairs]) for given, pairs in batches
        )
        return
    with ExitStack() as stack:
        idle = deque(stack.enter_context(_child()) for _ in range(processes))
        busy: deque[tuple[T, subprocess.Popen[bytes]]] = deque()
        for given, pairs in batches:
            if not idle:
                waiting, child = busy.popleft()
                yield waiting, _receive(child)
                idle.append(child)
            child = idle.popleft()
            _send(child, pairs)
            busy.append((given, child))
        for waiting, child in busy:
            yield waiting, _receive(child)


def processes_for(rows: int) -> int:
    """Say how many processes are worth their start: one a core, as far as there is work."""
    return min(os.cpu_count() or 1, MOST_PROCESSES, rows // WORTH_A_PROCESS)


@contextmanager
def _child() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(
        [sys.executable, "-m", "finetune.measuring"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={"PATH": os.environ.get("PATH", "")},
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def _send(child: subprocess.Popen[bytes], pairs: Sequence[dict[str, Any]]) -> None:
    assert child.stdin is not None
    child.stdin.write(json.dumps(pairs).encode() + b"\n")
    child.stdin.flush()


def _receive(child: subprocess.Popen[bytes]) -> list[Quality]:
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        raise RuntimeError(f"a measuring process ended with {child.wait()}")
    return [Quality(*values) for values in json.loads(line)]


def main() -> None:
    os.nice(5)  # pages and searches go first
    for line in sys.stdin.buffer:
        measured = [astuple(quality.measure(**pair)) for pair in json.loads(line)]
        sys.stdout.buffer.write(json.dumps(measured).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
