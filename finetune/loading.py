"""Bring an adapter onto the model server and off it, whatever server it is. No Django, no torch.

Our own server and vLLM load at run time; TGI is restarted by workers/tgi_supervisor.py, which is
told by a file. None of this proves that the adapter is used: finetune/probe.py does.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import httpx2

LOAD_TIMEOUT_S, CONNECT_TIMEOUT_S = 120.0, 5.0
CHANGE_TIMEOUT_S = 900.0  # of TGI, which loads the base model anew
POLL_S = 0.2


class LoadingFailed(Exception):
    """The adapter could not be loaded or unloaded; the message says why."""


@dataclass(frozen=True, slots=True)
class Placed:
    """An adapter where the server can read it. A name never stands for other weights."""

    name: str
    folder: str


class Loader(Protocol):
    def ensure_loaded(self, adapter: Placed) -> None:
        """Return once the server has the adapter; raises LoadingFailed. May be repeated."""

    def unload(self, name: str) -> None:
        """Return once the server no longer has the adapter; raises LoadingFailed."""

    def loaded(self) -> set[str]:
        """Name what the server has now; raises LoadingFailed."""


class RuntimeLoader:
    """For our own server and vLLM (with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True)."""

    def __init__(self, url: str, key: str = "") -> None:
        self._url = url.rstrip("/").removesuffix("/v1")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def ensure_loaded(self, adapter: Placed) -> None:
        body = {"lora_name": adapter.name, "lora_path": adapter.folder}
        loaded = self._loaded()
        if adapter.name not in loaded:
            try:
                self._call("POST", "/v1/load_lora_adapter", body)
            except LoadingFailed:
                if adapter.name not in self._loaded():  # else another process was quicker
                    raise
        elif loaded[adapter.name] not in ("", adapter.folder):
            raise LoadingFailed(
                f"The model server has another “{adapter.name}”, from {loaded[adapter.name]}."
            )

    def unload(self, name: str) -> None:
        if name in self._loaded():
            self._call("POST", "/v1/unload_lora_adapter", {"lora_name": name})

    def loaded(self) -> set[str]:
        return set(self._loaded())

    def _loaded(self) -> dict[str, str]:
        """Return the folder of each adapter by its name, "" where the server does not tell it."""
        models = self._call("GET", "/v1/models").json()["data"]
        return {m["id"]: m.get("root") or "" for m in models if m.get("parent")}

    def _call(self, method: str, path: str, body: dict[str, str] | None = None) -> httpx2.Response:
        try:
            timeout = httpx2.Timeout(LOAD_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
            with httpx2.Client(trust_env=False, timeout=timeout) as client:
                response = client.request(
                    method, self._url + path, json=body, headers=self._headers
                )
        except httpx2.HTTPError as error:
            raise LoadingFailed(f"The model server cannot be reached: {error}") from error
        if response.is_error:
            raise LoadingFailed(
                f"The model server answered {response.status_code}: {_words(response)}"
            )
        return response


def _words(response: httpx2.Response) -> str:
    """Read an error object of TGI's, vLLM's or OpenAI's kind."""
    try:
        body = response.json()
        error = body.get("error", body)
    except (ValueError, AttributeError):
        return response.text[:300]
    return str(error.get("message", error) if isinstance(error, dict) else error)[:300]


# --- TGI, by its supervisor -------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class SupervisorState:
    """What the supervisor tells: names that serve now, and why others do not.

    `revision` is the newest of the wanted lists that it has read. `proved`: names that passed its
    probe once. `instances`: how many serve; 0 while the server starts.
    """

    serving: tuple[str, ...] = ()
    refused: dict[str, str] = field(default_factory=dict)
    revision: int = 0
    proved: tuple[str, ...] = ()
    instances: int = 0


class SupervisedLoader:
    """For TGI, which takes adapters only at its start: asks the supervisor and waits.

    `folder` is shared with it. A change takes as long as TGI needs to load the base model.
    """

    def __init__(self, folder: Path, timeout_s: float = CHANGE_TIMEOUT_S) -> None:
        self._folder = folder
        self._timeout_s = timeout_s

    def ensure_loaded(self, adapter: Placed) -> None:
        with wanted(self._folder) as adapters:
            if adapters.get(adapter.name, adapter.folder) != adapter.folder:
                raise LoadingFailed(f"Another “{adapter.name}” is wanted already.")
            adapters[adapter.name] = adapter.folder
        state = self._wait(adapter.name, present=True)
        if adapter.name in state.refused:
            with wanted(self._folder) as adapters:
                adapters.pop(adapter.name, None)
            raise LoadingFailed(state.refused[adapter.name])

    def unload(self, name: str) -> None:
        with wanted(self._folder) as adapters:
            adapters.pop(name, None)
        self._wait(name, present=False)

    def loaded(self) -> set[str]:
        return set(read_state(self._folder).serving)

    def _wait(self, name: str, *, present: bool) -> SupervisorState:
        """Wait until the adapter serves or is refused, or until it no longer does."""
        revision = read_wanted(self._folder)[1]
        deadline = time.monotonic() + self._timeout_s
        while time.monotonic() < deadline:
            state = read_state(self._folder)
            is_done = (name in state.serving) == present or (present and name in state.refused)
            if state.revision >= revision and is_done:
                return state
            time.sleep(POLL_S)
        raise LoadingFailed("The supervisor of the model server did not finish the change in time.")


@contextmanager
def wanted(folder: Path) -> Iterator[dict[str, str]]:
    """Change the list of wanted adapters, name → folder, for one process at a time."""
    with (folder / "wanted.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before, revision = read_wanted(folder)
        adapters = dict(before)
        yield adapters
        if adapters != before:
            write_json(folder / "wanted.json", {"adapters": adapters, "revision": revision + 1})


def read_wanted(folder: Path) -> tuple[dict[str, str], int]:
    """Return the wanted adapters, name → folder, and the number of the list."""
    data = _read_json(folder / "wanted.json")
    return dict(data.get("adapters", {})), int(data.get("revision", 0))


def read_state(folder: Path) -> SupervisorState:
    data = _read_json(folder / "state.json").get("state", {})
    return SupervisorState(
        tuple(data.get("serving", ())),
        dict(data.get("refused", {})),
        data.get("revision", 0),
        tuple(data.get("proved", ())),
        data.get("instances", 0),
    )


def write_state(folder: Path, state: SupervisorState, processes: dict[str, str]) -> None:
    """Tell the state, and the processes (id → start) that a later supervisor must end."""
    write_json(folder / "state.json", {"state": asdict(state), "processes": processes})


def read_processes(folder: Path) -> dict[str, str]:
    return dict(_read_json(folder / "state.json").get("processes", {}))


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Replace a file in one step: a reader sees the old one or the new one, whole."""
    aside = path.with_suffix(".new")
    aside.write_text(json.dumps(data, indent=1))
    os.replace(aside, path)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return data
