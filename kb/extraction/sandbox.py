"""Run one function on one file in a child process that can do no harm.

The child starts without our environment, so it holds no secret; it inherits the open file and
nothing else; `confinement` takes away the rest. Here: start it, read what it says within bounds of
size and time, kill its whole process group, and say in words why it gave nothing.
"""

import functools
import json
import logging
import os
import resource
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kb.extraction.limits import Limits
from kb.extraction.unreadable import DocumentUnreadable, in_words

logger = logging.getLogger(__name__)

CHILD = Path(__file__).with_name("child.py")
ROOT = CHILD.parents[2]
IMPORT_FROM = [str(ROOT), *(path for path in sys.path if path.endswith("-packages"))]

READ_BYTES = 1 << 20
LONGEST_HEADER = 10_000
LONGEST_LOG = 4_000  # bytes of the child's standard error
OUT_OF_MEMORY = (b"MemoryError", b"memory allocation of", b"bad_alloc", b"Cannot allocate memory")


@dataclass(slots=True)
class _Outcome:
    """What came out of the child. `returncode` is negative for the signal that ended it."""

    output: bytearray
    log: bytes
    returncode: int
    cpu_s: float
    peak_bytes: int
    stopped: str = ""  # "timeout" or "output" when we ended it


@dataclass(frozen=True, slots=True)
class _Answer:
    header: dict[str, Any]
    body: bytes


def run(function: str, path: Path, *, kind: str, limits: Limits, **options: Any) -> bytes:
    """Call `function` ("package.module:name") in a child with the open file; give its bytes.

    The function is called as `name(file, limits=limits, **options)`; options must fit JSON.
    `kind` names the file in sentences. Raises DocumentUnreadable.
    """
    with path.open("rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        limits = limits.for_file(size_bytes)
        outcome = _watch(_start(function, file.fileno(), limits, options), limits)
    answer = _answer(outcome)
    if answer is None:
        raise _explain(outcome, kind, limits, function)
    _report_missing(tuple(map(str, answer.header.get("missing", ()))))
    if "unreadable" in answer.header:
        details = answer.header.get("details")
        known = details if isinstance(details, dict) else {}
        raise in_words(str(answer.header["unreadable"]), kind, known)
    return answer.body


def _answer(outcome: _Outcome) -> _Answer | None:
    """Read what came out; None unless it is whole. How the child ended then is no matter."""
    end = outcome.output.find(b"\n", 0, LONGEST_HEADER)
    if outcome.stopped or end < 0:
        return None
    try:
        header = json.loads(outcome.output[:end])
    except ValueError:
        return None
    body = bytes(memoryview(outcome.output)[end + 1 :])
    if not isinstance(header, dict) or header.get("length", 0) != len(body):
        return None
    return _Answer(header, body)


def _start(
    function: str, descriptor: int, limits: Limits, options: dict[str, Any]
) -> subprocess.Popen[bytes]:
    job = {
        "function": function,
        "file": descriptor,
        "limits": limits.as_dict(),
        "options": options,
        "import_from": IMPORT_FROM,
        "parent": os.getpid(),
        "scratch": tempfile.gettempdir(),
    }
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(CHILD), json.dumps(job)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=[descriptor],
        env={},
        cwd="/",
        start_new_session=True,
    )


def _watch(child: subprocess.Popen[bytes], limits: Limits) -> _Outcome:
    """Read until the child is done, too slow or too talkative; nothing of it is left running."""
    assert child.stdout is not None
    assert child.stderr is not None
    output, log, stopped = bytearray(), b"", ""
    deadline = time.monotonic() + limits.wall_s
    try:
        with selectors.DefaultSelector() as selector, child.stdout, child.stderr:
            selector.register(child.stdout, selectors.EVENT_READ)
            selector.register(child.stderr, selectors.EVENT_READ)
            while selector.get_map() and not stopped:
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                for key, _ in ready:
                    data = os.read(key.fd, READ_BYTES)
                    if not data:
                        selector.unregister(key.fileobj)
                    elif key.fileobj is child.stdout:
                        output += data
                    else:
                        log = (log + data)[-LONGEST_LOG:]
                if len(output) > limits.output_bytes:
                    stopped = "output"
                elif time.monotonic() >= deadline:
                    stopped = "timeout"
    finally:
        _end(child, patience_s=0 if stopped else 5)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)  # so that Popen does not wait again
    cpu_s = usage.ru_utime + usage.ru_stime
    return _Outcome(output, log, child.returncode, cpu_s, usage.ru_maxrss * 1024, stopped)


def _end(child: subprocess.Popen[bytes], *, patience_s: float) -> None:
    """Kill what still runs; a child that closed its output may first exit by itself."""
    deadline = time.monotonic() + patience_s
    while not os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        if time.monotonic() >= deadline:
            break
        time.sleep(0.01)
    else:
        return
    os.killpg(child.pid, signal.SIGKILL)


def _explain(outcome: _Outcome, kind: str, limits: Limits, function: str) -> DocumentUnreadable:
    """Name the limit that a silent child ran into; without one the file itself is to blame."""
    logger.warning(
        "%s ended with %s after %.1f CPU s, peak %d MiB%s: %s",
        function,
        outcome.returncode,
        outcome.cpu_s,
        outcome.peak_bytes >> 20,
        f", stopped ({outcome.stopped})" if outcome.stopped else "",
        _printable(outcome.log.decode(errors="replace")),
    )
    killed = outcome.returncode in (-signal.SIGKILL, -signal.SIGXCPU)
    if outcome.stopped == "output":
        return too_much_text(kind, limits)
    if outcome.stopped == "timeout" or (killed and outcome.cpu_s > limits.cpu_s - 2):
        seconds = limits.wall_s if outcome.stopped else limits.cpu_s
        return in_words("timeout", kind, {"seconds": seconds})
    if killed or any(words in outcome.log for words in OUT_OF_MEMORY):
        return in_words("memory", kind, {})
    # Until it starts its own program a child counts what its parent holds.
    ours = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if outcome.returncode < 0 and outcome.peak_bytes > max(limits.memory_bytes // 2, ours):
        return in_words("memory", kind, {})
    return in_words("damaged", kind, {})


def _printable(log: str) -> str:
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in log)


def too_much_text(kind: str, limits: Limits) -> DocumentUnreadable:
    details = {
        "size": "it holds more text than can be indexed as one document",
        "limit": f"{limits.characters // 1_000_000} million characters",
        "advice": "Split it into smaller files and upload those",
    }
    return in_words("too_large", kind, details)


@functools.cache
def _report_missing(layers: tuple[str, ...]) -> None:
    """Say once a process which walls this machine does not give us."""
    if layers:
        logger.warning(
            "Documents are read with less protection: this machine gives us no %s.",
            ", ".join(layers),
        )
