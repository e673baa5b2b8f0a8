"""What a parser that was taken over might try; each runs inside the sandbox, as a reader does."""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from kb.extraction.limits import Limits


def echo(file: BinaryIO, *, limits: Limits) -> bytes:
    return file.read()


def reach_out(file: BinaryIO, *, limits: Limits) -> bytes:
    """Try every way out; gives one line for each that was open."""
    parent = os.getppid()
    ways: dict[str, Callable[[], object]] = {
        "read a file": lambda: Path("/etc/passwd").read_text(),
        "list a folder": lambda: os.listdir("/"),
        "write a file": lambda: Path("/tmp/tacit-was-here").write_text("x"),
        "make a folder": lambda: os.mkdir("/tmp/tacit-was-here"),
        "open a socket": lambda: socket.socket(),
        "open a unix socket": lambda: socket.socket(socket.AF_UNIX),
        "fork": lambda: os.fork() or os._exit(0),
        "run a program": lambda: os.execv("/bin/true", ["/bin/true"]),
        "signal the parent": lambda: os.kill(parent, 0),
        "become root": lambda: os.setuid(0) if os.getuid() else os.open("/root", os.O_RDONLY),
        "see the environment": lambda: os.environ["PATH"],
        "read standard input": lambda: os.read(0, 1) or 1 / 0,
    }
    return "\n".join(name for name, way in ways.items() if _is_open(way)).encode()


def _is_open(way: Callable[[], object]) -> bool:
    try:
        way()
    except (OSError, KeyError, ZeroDivisionError):
        return False
    return True


def loop_for_ever(file: BinaryIO, *, limits: Limits) -> bytes:
    while True:
        pass


def sleep_for_ever(file: BinaryIO, *, limits: Limits) -> bytes:
    while True:
        time.sleep(1)


def ignore_signals(file: BinaryIO, *, limits: Limits) -> bytes:
    for number in (signal.SIGTERM, signal.SIGXCPU, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    return loop_for_ever(file, limits=limits)


def take_four_gigabytes(file: BinaryIO, *, limits: Limits) -> bytes:
    return b"%d" % len(bytearray(4 << 30))


def talk_for_ever(file: BinaryIO, *, limits: Limits) -> bytes:
    """Write to the answer's descriptor, past the size cap, without an end."""
    answer = max(number for number in range(64) if _is_open(lambda n=number: os.fstat(n)))
    while True:
        for number in range(1, answer + 1):
            try:
                os.write(number, b"x" * 65536)
            except OSError:
                continue


def chatter_on_standard_error(file: BinaryIO, *, limits: Limits) -> bytes:
    for _ in range(2000):
        sys.stderr.write("noise " * 1000)
    print("print goes there too")
    return b"done"


def crash(file: BinaryIO, *, limits: Limits) -> bytes:
    os.abort()


def lie(file: BinaryIO, *, limits: Limits) -> bytes:
    """Answer with a page whose spans point outside of its text."""
    return (
        b'{"pages": [[1, "abc", [["text", 0, 999, 0]], [], 0, 0, ""]], "title": "", "warnings": []}'
    )


def fail_with_a_long_detail(file: BinaryIO, *, limits: Limits) -> bytes:
    from kb.extraction.unreadable import Unreadable

    raise Unreadable("unsupported", found="A\n\x1b[31m" + "z" * 10_000, advice="{0}")
