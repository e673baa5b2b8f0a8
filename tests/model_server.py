"""The stub model server as a fixture: a second process, started once a session."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings

from kb.backends import get_backend


@dataclass(frozen=True)
class ModelServer:
    """A running stub; see tests/stub_model_server.py for its behaviours."""

    url: str

    def behave(self, behaviour: str) -> None:
        """Set how requests are answered whose model names no behaviour."""
        self._call("/stub/behaviour", {"behaviour": behaviour})

    def reset(self) -> None:
        self._call("/stub/reset", {})

    def stats(self) -> dict[str, Any]:
        return self._call("/stub/stats")

    def _call(self, path: str, body: dict[str, str] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        # No proxy from the environment may stand between a test and its own process.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(urllib.request.Request(self.url + path, data), timeout=10) as response:
            answer: dict[str, Any] = json.load(response)
            return answer


@contextmanager
def answering(settings: Settings, **options: str) -> Iterator[None]:
    """Let a model server write the answers; its generator takes the options."""
    settings.GENERATOR_NAME = "chat_completions"
    settings.GENERATOR = {
        "BACKEND": "kb.generators.chat_completions.ChatCompletionsGenerator",
        "OPTIONS": options,
    }
    get_backend.cache_clear()
    yield
    get_backend.cache_clear()


@contextmanager
def running() -> Iterator[ModelServer]:
    """Start a stub in a process of its own, and end it."""
    script = Path(__file__).with_name("stub_model_server.py")
    process = subprocess.Popen(
        [sys.executable, script, "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    try:
        yield ModelServer(process.stdout.readline().strip())
    finally:
        process.terminate()
        process.wait(timeout=5)
        process.stdout.close()


@pytest.fixture(scope="session")
def model_server_process() -> Iterator[ModelServer]:
    with running() as server:
        yield server


@pytest.fixture
def model_server(model_server_process: ModelServer) -> ModelServer:
    """A stub that behaves normally and has counted nothing yet."""
    model_server_process.reset()
    return model_server_process
