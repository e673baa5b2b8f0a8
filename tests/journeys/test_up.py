"""`manage.py up` as a person runs it: first start, kills, Ctrl-C, second start with the data kept."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from workers import processes

ROOT = Path(__file__).resolve().parents[2]
# Generous: the machine may run other things beside the tests.
TIMEOUT_S = 180
SET_BY_THE_TEST_RUN = {"DATABASE_URL", "REDIS_URL", "SECRET_KEY", "DATA_DIR", "BASE_URL"}


class Up:
    """A running `manage.py up` with a data folder and a port of its own."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        inherited = {k: v for k, v in os.environ.items() if k not in SET_BY_THE_TEST_RUN}
        self.environment = inherited | {"DATA_DIR": str(data_dir), "EMBEDDER": "hashing"}
        self.console = data_dir / "console.txt"
        self.process: subprocess.Popen[bytes] | None = None
        self.arguments: list[str] = []

    def start(self) -> str:
        """Start and wait for the first page; returns what was printed."""
        with self.console.open("wb") as console:
            self.process = subprocess.Popen(
                self.command(), cwd=ROOT, env=self.environment, stdout=console, stderr=console
            )
        wait_for(lambda: "Tacit is ready" in self.console.read_text() or self._has_ended())
        assert not self._has_ended(), self.console.read_text()
        return self.console.read_text()

    def command(self) -> list[str]:
        return [sys.executable, "manage.py", "up", "--port", str(self.port), *self.arguments]

    def stop(self) -> str:
        """Press Ctrl-C; returns all that was printed."""
        assert self.process
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(60) == 0
        return self.console.read_text()

    def pid(self, name: str) -> int | None:
        return processes.read_pid_file(self.data_dir / "run" / f"{name}.pid")

    def postgres_pid(self) -> int:
        return int((self.data_dir / "postgres/cluster/postmaster.pid").read_text().split()[0])

    def is_ready(self) -> bool:
        url = f"http://127.0.0.1:{self.port}/readyz"
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as page:
            return bool(json.load(page)["ready"])
        return False

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "ignore", "manage.py", *arguments]
        return subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True
        )

    def shell(self, code: str) -> str:
        return self.manage("shell", "-v", "0", "-c", code).stdout.strip()

    def _has_ended(self) -> bool:
        return self.process is None or self.process.poll() is not None


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


@pytest.fixture
def up() -> Iterator[Up]:
    data_dir = Path(tempfile.mkdtemp(prefix="tacit-up-"))
    data_dir.chmod(0o711)
    up = Up(data_dir)
    yield up
    if up.process and up.process.poll() is None:
        up.process.send_signal(signal.SIGINT)
        up.process.wait(60)
    shutil.rmtree(data_dir)


@pytest.mark.slow
def test_up_survives_kills_and_keeps_what_it_holds(up):
    printed = up.start()
    assert re.search(r"password  \S{12,}", printed), "the first administrator's, once"
    ready = "from kb.models import Document; print({d.state for d in Document.objects.all()})"
    wait_for(lambda: up.shell(ready) == "{'ready'}")

    second = subprocess.run(up.command(), cwd=ROOT, env=up.environment, capture_output=True)
    assert second.returncode == 1
    assert b"already runs" in second.stderr

    names = ("web", "worker", "sweeper", "redis")
    wait_for(lambda: all(up.pid(name) for name in names))
    killed = {name: up.pid(name) for name in names}
    for pid in (*killed.values(), up.postgres_pid()):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: all(up.pid(name) not in (None, killed[name]) for name in names))
    wait_for(up.is_ready)

    # The supervisor itself: what it leaves running is taken over, not doubled.
    assert up.process
    up.process.kill()
    up.process.wait()
    orphan = up.pid("web")
    assert orphan
    printed = up.start()
    assert "password" not in printed
    assert up.pid("web") not in (None, orphan)
    assert processes.started_at(orphan) is None
    assert up.shell(ready) == "{'ready'}"

    left = [up.pid(name) for name in names] + [up.postgres_pid()]
    assert up.stop().endswith("Stopped.\n")
    assert [pid for pid in left if pid and processes.started_at(pid)] == []
    assert "No database is running" in up.manage("migrate").stderr


def test_up_refuses_a_taken_port_before_it_starts_anything(up):
    with socket.create_server(("127.0.0.1", up.port)):
        refused = subprocess.run(
            up.command(), cwd=ROOT, env=up.environment, capture_output=True, text=True
        )
    assert refused.returncode == 1
    assert f"script/up --port {up.port + 1}" in refused.stderr
    assert not (up.data_dir / "postgres").exists()


@pytest.mark.train
def test_up_with_a_model_asks_it_and_knows_it_in_other_commands(up, tmp_path):
    pytest.importorskip("peft", reason="peft comes with the train extra")
    from benchmarks import random_models

    base = random_models.make_base(tmp_path / "base")
    assert "--model needs a base model" in up.manage("up", "--model").stderr
    assert "There is no base model in" in up.manage("up", "--model", "/nowhere").stderr
    up.environment |= {"BASE_MODEL": str(base)}
    up.arguments = ["--model"]
    up.start()
    probe = (
        "import asyncio; from kb.backends import get_backend;"
        "asyncio.run(get_backend('GENERATOR').probe()); print('it answers')"
    )
    wait_for(lambda: "it answers" in up.shell(probe))
    server = up.pid("model")
    assert server
    assert up.stop().endswith("Stopped.\n")
    assert processes.started_at(server) is None
