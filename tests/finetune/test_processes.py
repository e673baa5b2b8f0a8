"""Processes known by number and start, and ended with everything they started."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from finetune import processes, training

SLEEPS = [sys.executable, "-c", "import time; time.sleep(60)"]


def test_a_process_is_known_until_it_ends() -> None:
    with subprocess.Popen(SLEEPS) as process:
        mark = processes.mark_of(process.pid)
        assert processes.is_running(mark)
        processes.kill(mark)
        while processes.is_running(mark):  # dead, though nobody has waited for it
            time.sleep(0.01)
        assert process.poll() is not None or process.wait()
    processes.kill(mark)  # once more harms nothing


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="only Linux tells the start of a process")
def test_a_number_that_is_used_again_is_another_process() -> None:
    with subprocess.Popen(SLEEPS) as process:
        earlier = f"{process.pid} 1"
        assert not processes.is_running(earlier)
        processes.kill(earlier)
        assert process.poll() is None
        process.kill()


def test_a_launcher_is_ended_with_processes_that_left_its_session(tmp_path: Path) -> None:
    launcher = subprocess.Popen(SLEEPS, start_new_session=True)
    with subprocess.Popen(SLEEPS, start_new_session=True) as rank:
        (tmp_path / "rank-1").write_text(processes.mark_of(rank.pid))
        launcher.kill()
        training._kill_all(launcher, tmp_path)
        assert rank.wait(timeout=10) == -9
    launcher.wait()
