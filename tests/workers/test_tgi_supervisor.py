"""TGI's supervisor with a launcher that runs our model server as TGI behaves."""

import asyncio
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jinja2
import pytest

from finetune import loading
from tests.workers.conftest import KEY, ROOT, free_port, is_up, wait_for
from workers import processes, tgi_supervisor

pytestmark = pytest.mark.train
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
CHATS = [[{"role": "user", "content": text}] for text in ("Who keeps the keys?", "Größe?", "0123")]


@pytest.fixture(scope="module")
def references(models: Path) -> Path:
    """Give the adapters a, b and c their probe.json."""
    from finetune import reference

    for name in "abc":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PEFT's own, about transformers
            reference.measure(models / "base", models / name, CHATS, tokens=8).write(models / name)
    return models


@dataclass
class Supervised:
    """A running supervisor, and a client that keeps asking it."""

    folder: Path
    url: str
    models: Path
    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def loader(self) -> loading.SupervisedLoader:
        return loading.SupervisedLoader(self.folder, timeout_s=150)

    def placed(self, name: str) -> loading.Placed:
        return loading.Placed(name, str(self.models / name))

    def ask(self, model: str, tokens: int = 6) -> str:
        """Return the text of a greedy answer; raises OSError when there is none."""
        body = {
            "model": model,
            "messages": CHATS[0],
            "max_tokens": tokens,
            "temperature": 0,
        }
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
        data = json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/v1/chat/completions", data, headers)
        with _opener.open(request, timeout=60) as response:
            text: str = json.load(response)["choices"][0]["message"]["content"]
            return text

    def instances(self) -> list[int]:
        return [int(pid) for pid in loading.read_processes(self.folder)]


@pytest.fixture
def supervise(references: Path, tmp_path: Path) -> Iterator[Callable[..., Supervised]]:
    """Return a function that starts a supervisor: options → Supervised, with adapter “a”."""
    launcher = tmp_path / "launcher"
    launcher.write_text(f'#!/bin/sh\nexec {sys.executable} -m tests.workers.fake_launcher "$@"\n')
    launcher.chmod(0o755)
    started = []

    def start(*options: str) -> Supervised:
        folder = tmp_path / "shared"
        folder.mkdir(exist_ok=True)
        with loading.wanted(folder) as adapters:
            adapters["a"] = str(references / "a")
        port = free_port()
        log = tmp_path / "log"
        environment = {
            **os.environ,
            "API_KEY": KEY,
            "FAKE_LAUNCHER_FORGETS": str(tmp_path / "forgets"),
            "FAKE_LAUNCHER_BREAKS": str(tmp_path / "breaks"),
        }
        with log.open("ab") as output:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "workers.tgi_supervisor", str(folder)),
                    *("--port", str(port), "--launcher", str(launcher), "--tolerance", "0.01"),
                    *("--ready-timeout-s", "80", "--drain-timeout-s", "20", *options),
                    *("--", "--model-id", str(references / "base")),
                ],
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=output,
            )
        supervised = Supervised(folder, f"http://127.0.0.1:{port}", references, process, log)
        started.append(supervised)
        wait_for(
            lambda: "a" in loading.read_state(folder).serving or process.poll() is not None,
            timeout_s=120,
        )
        assert process.poll() is None, log.read_text()
        return supervised

    yield start
    for supervised in started:
        if supervised.process.poll() is None:
            supervised.process.terminate()
            supervised.process.wait(timeout=40)
        for pid in supervised.instances():
            processes.kill_group(pid)


@dataclass
class Asking:
    """Ask all the time from another thread; collects answers and failures."""

    supervised: Supervised
    answers: list[str] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Asking":
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.answers.append(self.supervised.ask("a"))
            except OSError as error:
                self.failures.append(error)


def test_the_start_line_names_paths_and_the_training_type():
    options = tgi_supervisor.Options(Path("/f"), arguments=("--model-id", "/m"))
    command = tgi_supervisor.command(options, 81, {"x-v1-0a": "/x", "y-v2-0b": "/y"})
    assert command[0] == "text-generation-launcher"
    line = " ".join(command)
    assert "--dtype bfloat16 --usage-stats off --lora-adapters x-v1-0a=/x,y-v2-0b=/y" in line
    assert line.endswith("--model-id /m")
    assert "--lora-adapters" not in tgi_supervisor.command(options, 81, {})


def test_two_instances_on_one_machine_share_no_socket_and_no_empty_key(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("API_KEY", "")
    options = tgi_supervisor.Options(Path("/shared"))
    one, other = (tgi_supervisor.environment(options, "0", port) for port in (4001, 4002))
    for name in ("SHARD_UDS_PATH", "MASTER_PORT", "PROMETHEUS_PORT"):
        assert one[name] != other[name]
    assert "API_KEY" not in one
    assert one["CUDA_VISIBLE_DEVICES"] == "0"


def test_tgi_is_given_the_template_of_the_training(models: Path, tmp_path: Path):
    arguments = ("--model-id", str(models / "base"), "--max-total-tokens", "512")
    options = tgi_supervisor.with_template(tgi_supervisor.Options(tmp_path, arguments=arguments))
    flag, path, *rest = options.arguments
    assert (flag, tuple(rest)) == ("--tokenizer-config-path", arguments)
    written = json.loads(Path(path).read_text())
    assert written["chat_template"] == (models / "base" / "chat_template.jinja").read_text()
    assert written["eos_token"] == "<|end|>"
    own = replace(options, arguments=("--tokenizer-config-path", "/mine", *arguments))
    assert tgi_supervisor.with_template(own) is own


def test_the_template_of_a_model_of_the_hub_is_kept_for_when_that_is_away(
    httpserver_of: Callable[[dict[str, str]], str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    template = "{{ strftime_now('%d %b %Y') }}{{ messages[0].content }}"
    config = json.dumps({"eos_token": "<e>", "chat_template": template})
    url = httpserver_of({"/org/base/resolve/main/tokenizer_config.json": config})
    monkeypatch.setenv("HF_ENDPOINT", url)
    options = tgi_supervisor.Options(tmp_path, arguments=("--model-id", "org/base"))

    for _ in range(2):
        path = Path(tgi_supervisor.with_template(options).arguments[1])
        shown = jinja2.Template(json.loads(path.read_text())["chat_template"])
        assert shown.render(messages=[{"content": "!"}]) == "01 Jan 2026!"
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    other = replace(options, arguments=("--model-id", "org/other"))
    assert tgi_supervisor.with_template(other) is other


@pytest.fixture
def httpserver_of() -> Iterator[Callable[[dict[str, str]], str]]:
    """Return a function that serves texts: path → text, gives the URL."""
    started = []

    def serve(texts: dict[str, str]) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                text = texts.get(self.path)
                self.send_response(404 if text is None else 200)
                self.end_headers()
                self.wfile.write((text or "").encode())

            def log_message(self, *_: object) -> None: ...

        server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        started.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in started:
        server.shutdown()
        server.server_close()


def test_the_set_changes_without_a_failed_request(supervise: Callable[..., Supervised]):
    supervised = supervise()
    [first] = supervised.instances()
    base, before = supervised.ask("tgi"), supervised.ask("a")
    assert supervised.ask("b") == base  # the silent fall: not loaded yet
    with Asking(supervised) as asking:
        supervised.loader.ensure_loaded(supervised.placed("b"))
        assert supervised.ask("b") not in (base, before)
        wait_for(lambda: processes.started_at(first) is None)
        supervised.loader.unload("b")
        assert supervised.ask("b") == base
    assert asking.failures == []
    assert set(asking.answers) == {before}
    assert len(asking.answers) > 20


def test_an_answer_on_the_old_instance_is_finished(supervise: Callable[..., Supervised]):
    supervised = supervise()
    whole = supervised.ask("a", 480)
    answers: list[str] = []
    stop = threading.Event()

    def ask_long() -> None:
        while not stop.is_set():
            answers.append(supervised.ask("a", 480))

    thread = threading.Thread(target=ask_long)
    thread.start()
    supervised.loader.ensure_loaded(supervised.placed("c"))
    stop.set()
    thread.join()
    assert set(answers) == {whole}


def test_an_adapter_that_the_server_drops_is_refused_and_the_old_set_serves_on(
    supervise: Callable[..., Supervised], tmp_path: Path
):
    supervised = supervise()
    [first] = supervised.instances()
    (tmp_path / "forgets").write_text("b")
    with Asking(supervised) as asking, pytest.raises(loading.LoadingFailed, match="after training"):
        supervised.loader.ensure_loaded(supervised.placed("b"))
    assert asking.failures == []
    assert processes.started_at(first) is not None
    assert loading.read_state(supervised.folder).serving == ("a",)
    (tmp_path / "forgets").unlink()
    (tmp_path / "breaks").write_text("c")
    with pytest.raises(loading.LoadingFailed, match="ended at its start with code 3"):
        supervised.loader.ensure_loaded(supervised.placed("c"))
    supervised.loader.ensure_loaded(supervised.placed("b"))


def test_replicas_are_replaced_one_after_the_other(supervise: Callable[..., Supervised]):
    supervised = supervise("--devices", "0", "1", "--change", "rolling")
    wait_for(lambda: len(supervised.instances()) == 2, timeout_s=150)
    wait_for(lambda: loading.read_state(supervised.folder).revision == 1, timeout_s=150)
    before = set(supervised.instances())
    most = 0
    with Asking(supervised) as asking:
        done = threading.Event()

        def load() -> None:
            supervised.loader.ensure_loaded(supervised.placed("b"))
            done.set()

        threading.Thread(target=load).start()
        while not done.wait(0.1):
            most = max(most, len(supervised.instances()))
        base = supervised.ask("tgi")
        assert all(supervised.ask("b") != base for _ in range(6))
    assert asking.failures == []
    assert most == 2
    assert before.isdisjoint(supervised.instances())


def test_a_killed_instance_comes_back(supervise: Callable[..., Supervised]):
    supervised = supervise()
    [first] = supervised.instances()
    os.killpg(first, signal.SIGKILL)
    wait_for(lambda: supervised.instances() not in ([first], []))
    # Refused while nothing serves; the first request may still meet the end of what was killed.
    with pytest.raises(urllib.error.URLError):
        supervised.ask("a")
    wait_for(lambda: is_up(supervised.url), timeout_s=150)
    assert supervised.ask("a") != supervised.ask("tgi")


def test_a_launcher_that_breaks_for_a_while_costs_no_adapter_its_place(
    supervise: Callable[..., Supervised], tmp_path: Path
):
    supervised = supervise()
    before = supervised.ask("a")
    (tmp_path / "breaks").write_text("always")
    [first] = supervised.instances()
    os.killpg(first, signal.SIGKILL)
    wait_for(lambda: supervised.log.read_text().count("ended at its start with code 3") >= 2)
    state = loading.read_state(supervised.folder)
    assert (state.serving, state.refused, state.proved) == ((), {}, ("a",))
    assert state.instances == 0
    (tmp_path / "breaks").unlink()
    wait_for(lambda: is_up(supervised.url), timeout_s=150)
    assert supervised.ask("a") == before
    assert loading.read_state(supervised.folder).serving == ("a",)


def test_what_a_failed_start_leaves_out_is_tried_again_when_the_launcher_was_at_fault(
    tmp_path: Path,
):
    async def judge() -> list[dict[str, str]]:
        supervisor = tgi_supervisor.Supervisor(tgi_supervisor.Options(tmp_path), _pause_s=0)
        supervisor._proved = {"old"}
        failed = tgi_supervisor.InstanceFailed("It ended.")
        seen = []
        for adapters in ({"old": "/o", "new": "/n"}, {"old": "/o"}):
            await supervisor._refuse(failed, adapters)
            seen.append(dict(supervisor.refused))
        await supervisor._refuse(tgi_supervisor.InstanceFailed("It is dropped.", "old"), {})
        return [*seen, supervisor.refused]

    assert asyncio.run(judge()) == [{"new": "It ended."}, {}, {"old": "It is dropped."}]


def test_an_adapter_counts_as_served_only_while_every_instance_has_it(tmp_path: Path):
    def instance(*names: str) -> tgi_supervisor.Instance:
        process = subprocess.Popen(["true"])
        process.wait()
        return tgi_supervisor.Instance("", dict.fromkeys(names, "/x"), 1, process)

    supervisor = tgi_supervisor.Supervisor(tgi_supervisor.Options(tmp_path))
    new = instance("b")
    supervisor._tell([new])
    assert loading.read_state(tmp_path).serving == ()
    supervisor.serving = [instance("a", "b")]
    supervisor._tell()
    assert loading.read_state(tmp_path).serving == ("a", "b")
    assert loading.read_state(tmp_path).instances == 1
    supervisor._tell([new])
    assert loading.read_state(tmp_path).serving == ("b",), "“a” must not be asked from now on"


def test_what_a_killed_supervisor_left_is_ended_and_sigterm_ends_all(
    supervise: Callable[..., Supervised],
):
    killed = supervise()
    [left] = killed.instances()
    killed.process.kill()
    killed.process.wait()
    assert processes.started_at(left) is not None
    loading.write_state(
        killed.folder,
        loading.SupervisorState(),
        loading.read_processes(killed.folder),
    )
    successor = supervise()
    assert processes.started_at(left) is None
    [now] = successor.instances()
    successor.process.terminate()
    assert successor.process.wait(timeout=40) == 0
    assert processes.started_at(now) is None
    assert successor.instances() == []


def test_two_processes_may_change_the_wanted_list_at_once(tmp_path: Path):
    def add(number: int) -> None:
        for i in range(20):
            with loading.wanted(tmp_path) as adapters:
                adapters[f"{number}-{i}"] = "/x"
                time.sleep(0.001)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    adapters, revision = loading.read_wanted(tmp_path)
    assert len(adapters) == revision == 80


def test_a_name_is_not_wanted_for_two_folders(tmp_path: Path):
    with loading.wanted(tmp_path) as adapters:
        adapters["x"] = "/one"
    loader: Any = loading.SupervisedLoader(tmp_path, timeout_s=0.1)
    with pytest.raises(loading.LoadingFailed, match="wanted already"):
        loader.ensure_loaded(loading.Placed("x", "/two"))
    with pytest.raises(loading.LoadingFailed, match="in time"):
        loader.ensure_loaded(loading.Placed("x", "/one"))
