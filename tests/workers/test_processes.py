"""Processes are known again by id and start, and ended with what they left behind."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from workers import processes


def test_a_process_is_known_again_by_its_start(tmp_path: Path):
    pid_file = tmp_path / "pid"
    processes.write_pid_file(pid_file, os.getpid())
    assert processes.read_pid_file(pid_file) == os.getpid()

    pid_file.write_text(f"{os.getpid()} 12345\n")
    assert processes.read_pid_file(pid_file) is None, "the id was given to another process since"


def test_no_file_and_half_a_file_name_nobody(tmp_path: Path):
    assert processes.read_pid_file(tmp_path / "missing") is None
    (tmp_path / "half").write_text("12")
    assert processes.read_pid_file(tmp_path / "half") is None


def test_an_ended_process_does_not_run_even_before_it_is_buried():
    with subprocess.Popen(["true"]) as process:
        assert processes.wait_until_ended(process.pid, timeout_s=5)
        assert processes.started_at(process.pid) is None


@pytest.mark.skipif(not processes.PROC.is_dir(), reason="threads are read from /proc")
def test_a_process_runs_as_long_as_any_of_its_threads():
    program = (
        "import ctypes, os, threading;"
        "threading.Thread(target=lambda: (os.read(0, 1), os._exit(0))).start();"
        "ctypes.CDLL(None).pthread_exit(None)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) as process:
        assert process.stdin
        while " Z " not in (processes.PROC / str(process.pid) / "stat").read_text():
            time.sleep(0.001)
        assert process.poll() is None
        assert processes.started_at(process.pid) is not None, "its first thread alone has ended"
        process.stdin.close()
        assert processes.wait_until_ended(process.pid, timeout_s=5)
        assert process.poll() == 0


def test_ending_a_group_ends_a_stubborn_leader_and_its_children():
    program = (
        "import signal, subprocess, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "child = subprocess.Popen(['sleep', '60']); print(child.pid, flush=True); child.wait()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout
        child = int(process.stdout.readline())
        started = time.monotonic()
        processes.end_group(process.pid, timeout_s=0.3)
    assert time.monotonic() - started < 5
    assert processes.wait_until_ended(child, timeout_s=2)
