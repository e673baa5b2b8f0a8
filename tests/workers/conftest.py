"""Tiny models, and our model server as a second process."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks import random_models

ROOT = Path(__file__).resolve().parents[2]
KEY = "a key for tests"
# No proxy from the environment may stand between a test and its own process.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    text: str

    def json(self) -> Any:
        return json.loads(self.text)

    def events(self) -> list[Any]:
        """Return the data of each event of a stream, decoded except for [DONE]."""
        data = [line.removeprefix("data: ") for line in self.text.split("\n\n") if line]
        return [part if part == "[DONE]" else json.loads(part) for part in data]


@dataclass(frozen=True)
class Server:
    url: str
    process: "subprocess.Popen[bytes]"
    log: Path
    key: str = KEY

    def get(self, path: str) -> Answer:
        return self._send(urllib.request.Request(self.url + path))

    def post(self, path: str, body: object, key: str | None = None) -> Answer:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {self.key if key is None else key}",
        }
        return self._send(urllib.request.Request(self.url + path, data, headers))

    def generate(self, prompt: str, **parameters: Any) -> Any:
        """Return the answer of /generate with its details; greedy unless told otherwise."""
        body = {"inputs": prompt, "parameters": {"details": True, **parameters}}
        answer = self.post("/generate", body)
        assert answer.status == 200, answer.text
        return answer.json()

    def metric(self, name: str) -> int:
        lines = self.get("/metrics").text.splitlines()
        return int(next(line for line in lines if line.startswith(f"{name} ")).split()[1])

    def is_generating(self) -> bool:
        return self.metric("tgi_batch_current_size") > 0

    def _send(self, request: urllib.request.Request) -> Answer:
        try:
            with _opener.open(request, timeout=60) as response:
                return Answer(response.status, _headers(response), response.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, _headers(error), error.read().decode())


def _headers(response: Any) -> dict[str, str]:
    return {name.casefold(): value for name, value in response.headers.items()}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def wait_for(condition: Callable[[], object], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def is_up(url: str) -> bool:
    try:
        with _opener.open(f"{url}/health", timeout=5):
            return True
    except OSError:
        return False


StartServer = Callable[..., Server]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a base model and adapters: a, b, c, dora, prompt, prefix."""
    pytest.importorskip("peft", reason="peft comes with the train extra")
    folder = tmp_path_factory.mktemp("models")
    base = random_models.make_base(folder / "base")
    for seed, name in enumerate("abc", start=1):
        random_models.make_lora(base, folder / name, seed=seed)
    random_models.make_lora(base, folder / "dora", seed=4, use_dora=True)
    for seed, kind in enumerate(("prompt", "prefix"), start=5):
        random_models.make_prompt_adapter(base, folder / kind, kind=kind, seed=seed)
    return folder


@pytest.fixture(scope="session")
def start_server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """Return a function that starts the model server: options, adapters, key, base → Server."""
    started = []

    def start(
        *options: str, adapters: str = "abc", key: str = KEY, base: Path = models / "base"
    ) -> Server:
        listed = ",".join(f"{name}={models / name}" for name in adapters)
        log = tmp_path_factory.mktemp("server") / "log"
        url = f"http://127.0.0.1:{(port := free_port())}"
        command = [
            *(sys.executable, "-m", "workers.model_server", str(base)),
            *("--port", str(port), "--threads", "1", "--lora-adapters", listed, *options),
        ]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdout=output,
                stderr=output,
                env={**os.environ, "API_KEY": key},
            )
        started.append(process)
        wait_for(lambda: is_up(url) or process.poll() is not None, timeout_s=150)
        assert process.poll() is None, log.read_text()
        return Server(url, process, log, key)

    yield start
    for process in started:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="session")
def serving(start_server: StartServer) -> Server:
    """A server with the LoRA adapters a, b and c."""
    return start_server()
