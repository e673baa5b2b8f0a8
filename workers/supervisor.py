"""`manage.py up`: everything Tacit needs, in one foreground process.

Starts the embedded services, brings the database up to date, starts web server, worker and
sweeper, restarts what dies, and stops all in reverse order on Ctrl-C. Does not import Django, so
that a fault in the application cannot take its supervisor along.
"""

import argparse
import fcntl
import http.client
import importlib.util
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Protocol

import environ

from workers import embedded, processes

ROOT = Path(__file__).resolve().parent.parent
LOG_BYTES = 10 * 1024 * 1024  # a full log is kept once beside its successor
TICK_S = 0.2
STOP_TIMEOUT_S = 6.0
LONGEST_PAUSE_S = 30.0
CALM_S = 60.0  # having run this long, a part may die again without being punished for before
FIRST_PAGE_TIMEOUT_S = 60.0
# What is worth the console. Celery repeats what its children print, line by line, as warnings.
LOUD = re.compile(r"\b(WARNING|ERROR|CRITICAL)\b(?! celery\.redirected)")

LOUD_LINES_PER_MINUTE = 5
MODEL_PACKAGES = ("torch", "transformers", "peft")


class CannotStart(Exception):
    """Something a person has to change first; the message says what."""


class Service(Protocol):
    log: Path

    def start(self) -> object: ...

    def is_running(self) -> bool: ...

    def exit_code(self) -> int | None: ...

    def stop(self) -> None: ...


class Child:
    """One of our own programs, in a process group of its own."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        data_dir: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.command = command
        self._environment = environment or {}
        self.log = data_dir / "logs" / f"{name}.log"
        self._pid_file = data_dir / "run" / f"{name}.pid"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the program, after ending what a killed supervisor left of it."""
        self.stop()
        # Written directly, not through a pipe: the program outlives a killed supervisor.
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                cwd=ROOT,
                env={**os.environ, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the supervisor alone
            )
        processes.write_pid_file(self._pid_file, self._process.pid)

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def exit_code(self) -> int | None:
        return self._process.poll() if self._process is not None else None

    def stop(self) -> None:
        if (pid := processes.read_pid_file(self._pid_file)) is not None:
            processes.end_group(pid, timeout_s=STOP_TIMEOUT_S)
        elif self._process is not None:
            # It died by itself; what it had started may still run.
            processes.kill_group(self._process.pid)
        if self._process is not None:
            self._process.wait()
        self._pid_file.unlink(missing_ok=True)


class Part:
    """A service with its name, what it has been through, and when it may start again."""

    def __init__(self, name: str, service: Service) -> None:
        self.name = name
        self.service = service
        self.started_at = 0.0
        self.start_again_at: float | None = None
        self.pause_s = 1.0
        self._minute_began_at = 0.0
        self._shown = 0
        self._log_offset = service.log.stat().st_size if service.log.exists() else 0

    def start(self) -> object:
        self.started_at = time.monotonic()
        return self.service.start()

    def watch(self) -> None:
        """Start the service again if it has ended, sooner the first time than the fifth."""
        now = time.monotonic()
        if self.start_again_at is None and not self.service.is_running():
            if now - self.started_at > CALM_S:
                self.pause_s = 1.0
            self.start_again_at = now + self.pause_s
            say(
                f"{self.name} has ended: {self._reason()}. It starts again in {self.pause_s:.0f} s."
            )
            self.pause_s = min(2 * self.pause_s, LONGEST_PAUSE_S)
        elif self.start_again_at is not None and now >= self.start_again_at:
            self.start_again_at = None
            try:
                self.start()
            except embedded.EmbeddedError as error:
                say(f"{self.name}: {error}")

    def look_at_log(self) -> None:
        """Show the loud new lines of our own programs, and keep every log from growing for ever."""
        log = self.service.log
        size = log.stat().st_size
        if size > self._log_offset:
            for line in self._new_lines():
                if LOUD.search(line) and isinstance(self.service, Child):
                    self._show(line)
        if size > LOG_BYTES:
            # The writer holds the file open for appending, so it is emptied, not moved.
            shutil.copyfile(log, log.with_suffix(".log.1"))
            os.truncate(log, 0)
            self._log_offset = 0

    def _show(self, line: str) -> None:
        """Print a line of the log, a few a minute: what fails once often fails each time."""
        if time.monotonic() - self._minute_began_at > 60:
            self._minute_began_at, self._shown = time.monotonic(), 0
        self._shown += 1
        if self._shown <= LOUD_LINES_PER_MINUTE:
            say(f"{self.name} | {line}")
        elif self._shown == LOUD_LINES_PER_MINUTE + 1:
            say(f"{self.name} | (and more, in {self.service.log})")

    def _new_lines(self) -> list[str]:
        with self.service.log.open("rb") as log:
            log.seek(self._log_offset)
            whole, newline, _ = log.read().rpartition(b"\n")
        self._log_offset += len(whole) + len(newline)
        return whole.decode(errors="replace").splitlines()

    def _reason(self) -> str:
        code = self.service.exit_code()
        if code is None:
            return "the reason is not known"
        if code < 0:
            return f"it was killed by signal {-code}"
        lines = self.service.log.read_text(errors="replace").splitlines()
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        return f"exit code {code}, {last.rstrip('.')}"


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="script/up", description="Start Tacit on this machine.")
    add_arguments(parser)
    options = parser.parse_args(arguments)
    run(options.host, options.port, options.model)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", default=8000, type=int, help="port to listen on (8000)")
    parser.add_argument(
        "--model",
        nargs="?",
        const="",
        metavar="FOLDER",
        help="also start a model server on this base model (BASE_MODEL), which words the answers",
    )


def run(host: str, port: int, model: str | None = None) -> None:
    """Run everything until a signal says stop; leave with a sentence where it cannot start."""
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    try:
        up(host, port, stop, model)
    except (CannotStart, embedded.EmbeddedError) as error:
        sys.exit(str(error))


def up(host: str, port: int, stop: Event, model: str | None = None) -> None:
    """Run everything until `stop` is set. Raises CannotStart or EmbeddedError.

    `model`: the base model of a model server to start, "" for BASE_MODEL; None for no server.
    """
    if (ROOT / ".env").is_file():
        environ.Env.read_env(ROOT / ".env")
    data_dir = Path(os.environ.get("DATA_DIR", ROOT / ".tacit")).resolve()
    embedded.make_data_dir(data_dir)
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    with only_one(data_dir, address):
        ours = our_programs(data_dir, host, port)
        # Without --model, too: an earlier supervisor that was killed may have left one.
        ours.append(Part("model", model_server(data_dir, model)))
        for part in reversed(ours):
            part.service.stop()  # left behind by a supervisor that was killed
        check_port_is_free(host, port)
        running: list[Part] = []
        try:
            if model is None:
                ours.pop()
            start_services(data_dir, running)
            set_environment(data_dir, address)
            prepare(stop)
            watch(running, ours, Site(host, port, address), stop)
        finally:
            say("Stopping …")
            forget_services(data_dir)
            for part in reversed(running):
                part.service.stop()
    say("Stopped.")


@contextmanager
def only_one(data_dir: Path, address: str) -> Iterator[None]:
    """Hold the data folder; the system lets go of it even when we are killed."""
    with (data_dir / "run" / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise CannotStart(
                f"Tacit already runs from this folder: {lock.read().strip()}"
            ) from None
        lock.truncate(0)
        lock.write(f"{address} (process {os.getpid()})\n")
        lock.flush()
        yield


def our_programs(data_dir: Path, host: str, port: int) -> list[Part]:
    """List our own programs in the order in which they start."""
    commands = {
        "web": [
            *("uvicorn", "config.asgi:application", "--host", host, "--port", str(port)),
            # Addresses hold what people search for, so they are not logged.
            *("--no-access-log", "--no-proxy-headers", "--timeout-graceful-shutdown", "2"),
        ],
        "worker": [
            *("celery", "-A", "workers.app", "worker", "--queues", "ingest,default"),
            # These talk to other workers; there is one.
            *("--loglevel", "INFO", "--without-gossip", "--without-mingle", "--without-heartbeat"),
        ],
        "sweeper": ["django", "sweep", "--skip-checks"],
    }
    if not missing_packages():
        commands["trainer"] = ["django", "trainer", "--skip-checks"]
    return [
        Part(name, Child(name, [sys.executable, "-m", *command], data_dir))
        for name, command in commands.items()
    ]


def model_server(data_dir: Path, model: str | None) -> Child:
    """Describe the model server, and point the generator at it; None describes no start.

    Raises CannotStart.
    """
    if model is None:
        return Child("model", (), data_dir)
    if os.environ.get("MODEL_SERVER_URL"):
        raise CannotStart(
            "MODEL_SERVER_URL names a model server already; leave out --model, or the variable."
        )
    base = model or os.environ.get("BASE_MODEL", "")
    check_can_serve(base)
    if Path(base).is_dir():
        base = str(Path(base).resolve())  # the server runs in another folder
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    os.environ["MODEL_SERVER_URL"] = f"http://127.0.0.1:{port}"
    os.environ["MODEL_SERVER_KEY"] = secret_key(data_dir / "model_server_key")
    command = [
        *(sys.executable, "-m", "workers.model_server", base, "--port", str(port)),
        *("--graceful-timeout-s", "2"),
    ]
    return Child("model", command, data_dir, {"API_KEY": os.environ["MODEL_SERVER_KEY"]})


def check_can_serve(base: str) -> None:
    """Raise CannotStart unless there is a base model, and what computes it."""
    if not base:
        raise CannotStart(
            "--model needs a base model: a folder after it, or in BASE_MODEL."
            " manage.py make_base_model makes a small one."
        )
    if base.startswith(("/", ".", "~")) and not Path(base).is_dir():
        raise CannotStart(f"There is no base model in “{base}”.")
    if missing := missing_packages():
        raise CannotStart(
            f"--model needs {', '.join(missing)}, which requirements/train.lock and torch bring;"
            " docs/model-server.md says how to install them."
        )


def missing_packages() -> list[str]:
    """Name what computes models and is not installed; training and serving need all of it."""
    return [name for name in MODEL_PACKAGES if importlib.util.find_spec(name) is None]


def check_port_is_free(host: str, port: int) -> None:
    try:
        socket.create_server((host, port), family=_family(host)).close()
    except PermissionError as error:
        raise CannotStart(f"Port {port} needs more rights; choose one above 1023.") from error
    except OSError as error:
        raise CannotStart(
            f"Cannot listen on {host}, port {port}: {error.strerror}. Another program may use it;"
            f" try: script/up --port {port + 1}"
        ) from error


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def start_services(data_dir: Path, running: list[Part]) -> None:
    """Start PostgreSQL and Redis where no other server is set, and set their URLs."""
    services = {
        "DATABASE_URL": Part("PostgreSQL", embedded.Postgres(data_dir)),
        "REDIS_URL": Part("Redis", embedded.Redis(data_dir)),
    }
    for variable, part in services.items():
        if not os.environ.get(variable):
            os.environ[variable] = str(part.start())
            running.append(part)


def set_environment(data_dir: Path, address: str) -> None:
    """Complete what the settings read, for our programs and for other manage.py commands."""
    os.environ["DATA_DIR"] = str(data_dir)
    os.environ.setdefault("BASE_URL", address)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    if not os.environ.get("SECRET_KEY"):
        os.environ["SECRET_KEY"] = secret_key(data_dir / "secret_key")
    names = ("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "MODEL_SERVER_URL", "MODEL_SERVER_KEY")
    set_names = [name for name in names if os.environ.get(name)]
    embedded.write_urls(data_dir, {name: os.environ[name] for name in set_names})


def forget_services(data_dir: Path) -> None:
    """Let other commands say that nothing runs, instead of failing to reach it."""
    known = embedded.read_urls(data_dir)
    embedded.write_urls(data_dir, {k: v for k, v in known.items() if k == "SECRET_KEY"})


def secret_key(path: Path) -> str:
    """Read this install's own key, made the first time."""
    if not path.exists():
        embedded.write_private(path, secrets.token_urlsafe(48))
    return path.read_text().strip()


def prepare(stop: Event) -> None:
    """Run `manage.py prepare`, which speaks for itself. Raises CannotStart when it fails."""
    process = subprocess.Popen(
        # The checks load every page, which takes as long as all the rest; the web server does so.
        [sys.executable, "manage.py", "prepare", "--skip-checks"],
        cwd=ROOT,
        start_new_session=True,
    )
    while process.poll() is None:
        if stop.wait(0.05):
            processes.end_group(process.pid, timeout_s=STOP_TIMEOUT_S)
    if process.returncode and not stop.is_set():
        raise CannotStart("The preparation failed; the reason stands above.")


@dataclass(frozen=True)
class Site:
    """Where the web server listens, and the address that people type."""

    host: str
    port: int
    address: str

    def answers(self) -> bool:
        """Ask for the health page. Any answer counts: a refused host name is one, too."""
        reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        connection = http.client.HTTPConnection(reachable, self.port, timeout=2)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status < 500
        except OSError:
            return False
        finally:
            connection.close()


def watch(running: list[Part], waiting: list[Part], site: Site, stop: Event) -> None:
    """Start the waiting parts and keep all running until `stop` is set.

    The web server comes first and has the machine to itself until its first page can be opened;
    starting together, the others would double that time on two cores.
    """
    web, *others = waiting
    start_part(web, running, stop)
    started_at = time.monotonic()
    while not stop.wait(TICK_S):
        for part in running:
            part.watch()
            part.look_at_log()
        if others and site.answers():
            say(f"Tacit is ready: {site.address}  (stop it with Ctrl-C)")
        elif others and time.monotonic() - started_at > FIRST_PAGE_TIMEOUT_S:
            say("The web server does not answer yet; its log may say why.")
        else:
            continue
        for part in others:
            start_part(part, running, stop)
        others = []


def start_part(part: Part, running: list[Part], stop: Event) -> None:
    if not stop.is_set():
        part.start()
        running.append(part)


def say(sentence: str) -> None:
    print(sentence, flush=True)
