"""Run text-generation-inference with the adapters that should be loaded, and change them live.

    python -m workers.tgi_supervisor FOLDER --port 8080 -- --model-id /models/base

TGI takes adapters only at its start. So a change starts instances with the new set: started →
ready → probed → switched → the old ones drained. Clients keep one address, which forwards each
connection to an instance that serves. FOLDER is shared with finetune/loading.py: wanted.json tells
which adapters should be loaded, state.json what became of it. What follows `--` goes to the
launcher, and the base's chat template as it was in training. docs/model-server.md
"""

import argparse
import asyncio
import hashlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import httpx2

from finetune import chat_templates, loading, probe
from workers import processes

logger = logging.getLogger("tgi_supervisor")

TICK_S = 0.2
ON_THE_WAY_S = 0.5  # from the look at state.json to the request that follows from it
LONGEST_PAUSE_S = 60.0
BUFFER_BYTES = 64 * 1024
BUSY = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class InstanceFailed(Exception):
    """An instance did not become ready, or does not use an adapter; the message says why.

    `adapter`: the one at fault, "" where that is not known.
    """

    def __init__(self, sentence: str, adapter: str = "") -> None:
        super().__init__(sentence)
        self.adapter = adapter


@dataclass(frozen=True, slots=True)
class Options:
    """`devices`: one serving instance each, as CUDA_VISIBLE_DEVICES; "" leaves it as it is.

    `change`: "second" starts the new instance beside the old one, which takes memory for both;
    "rolling" replaces one after the other, which needs two.
    """

    folder: Path
    host: str = "127.0.0.1"
    port: int = 8080
    devices: tuple[str, ...] = ("",)
    change: Literal["second", "rolling"] = "second"
    launcher: str = "text-generation-launcher"
    arguments: tuple[str, ...] = ()
    key: str = ""
    ready_timeout_s: float = 900.0
    drain_timeout_s: float = 90.0
    tolerance: float = probe.TOLERANCE


@dataclass(eq=False)
class Instance:
    """A running launcher, in a process group of its own."""

    device: str
    adapters: Mapping[str, str]
    port: int
    process: "subprocess.Popen[bytes]"
    connections: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def end(self, timeout_s: float) -> None:
        """Let the launcher finish its answers, then end what is left of its group."""
        processes.end_group(self.process.pid, timeout_s=timeout_s)
        self.process.wait()


def start(options: Options, device: str, adapters: Mapping[str, str]) -> Instance:
    port = free_port()
    process = subprocess.Popen(
        command(options, port, adapters),
        env=environment(options, device, port),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    return Instance(device, dict(adapters), port, process)


def environment(options: Options, device: str, port: int) -> dict[str, str]:
    """Give an instance sockets of its own: TGI takes away those that another one left or uses.

    An empty API_KEY would count as a key.
    """
    kept = {name: value for name, value in os.environ.items() if name != "API_KEY"}
    own = {
        "SHARD_UDS_PATH": f"/tmp/tgi-{port}",
        "MASTER_PORT": str(free_port()),
        "PROMETHEUS_PORT": str(free_port()),
    }
    if device:
        own["CUDA_VISIBLE_DEVICES"] = device
    if options.key:
        own["API_KEY"] = options.key
    return kept | own


def command(options: Options, port: int, adapters: Mapping[str, str]) -> list[str]:
    """Word the launcher's start.

    bfloat16, because TGI's default float16 overflows where training did not. Names with paths,
    because a bare path counts as a model of the hub.
    """
    listed = ",".join(f"{name}={folder}" for name, folder in adapters.items())
    return [
        *(options.launcher, "--hostname", "127.0.0.1", "--port", str(port)),
        *("--dtype", "bfloat16", "--usage-stats", "off"),
        *(("--lora-adapters", listed) if listed else ()),
        *options.arguments,
    ]


def with_template(options: Options) -> Options:
    """Let the launcher render chats as the training did; as it is where the base is not known.

    TGI reads the template from one file only, and writes the day of the request where a template
    asks for it. What was written for the base before serves when the hub is away.
    """
    given = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    given.add_argument("--model-id", default=os.environ.get("MODEL_ID", ""))
    given.add_argument("--revision", default=os.environ.get("REVISION", ""))
    given.add_argument("--tokenizer-config-path", default=os.environ.get("TOKENIZER_CONFIG_PATH"))
    base = given.parse_known_args(options.arguments)[0]
    if base.tokenizer_config_path or not base.model_id:
        return options
    digest = hashlib.sha256(f"{base.model_id}@{base.revision}".encode()).hexdigest()[:8]
    path = options.folder / f"tokenizer_config-{digest}.json"
    try:
        config = chat_templates.config_with_template(_files_of(base.model_id, base.revision))
    except (httpx2.HTTPError, OSError, ValueError) as error:
        logger.warning("the chat template of %s cannot be read: %s", base.model_id, error)
    else:
        if config is not None:
            loading.write_json(path, config)
    if not path.is_file():
        return options
    return replace(options, arguments=("--tokenizer-config-path", str(path), *options.arguments))


def _files_of(base: str, revision: str) -> chat_templates.ReadFile:
    """Read the files of a folder, or of a model of the hub. The latter raises HTTPError."""
    if Path(base).is_dir():
        return chat_templates.files_in(Path(base))
    hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    token = os.environ.get("HF_TOKEN", "")

    def read(name: str) -> str | None:
        response = httpx2.get(
            f"{hub}/{base}/resolve/{revision or 'main'}/{name}",
            headers={"Authorization": f"Bearer {token}"} if token else {},
            follow_redirects=True,
            timeout=30.0,
        )
        if response.status_code == 404:
            return None
        return response.raise_for_status().text

    return read


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def wait_until_ready(instance: Instance, timeout_s: float) -> None:
    """Raise InstanceFailed when it ends or is still not healthy after the timeout."""
    deadline = time.monotonic() + timeout_s
    with httpx2.Client(trust_env=False, timeout=5.0) as client:
        while time.monotonic() < deadline:
            if not instance.is_running:
                code = instance.process.returncode
                raise InstanceFailed(f"The model server ended at its start with code {code}.")
            with suppress(httpx2.HTTPError):
                if client.get(f"{instance.url}/health").status_code == 200:
                    return
            time.sleep(TICK_S)
    raise InstanceFailed(f"The model server was not ready after {timeout_s:.0f} s.")


def prove(instance: Instance, options: Options) -> None:
    """Raise InstanceFailed unless the instance really uses each of its adapters."""
    target = probe.Target(instance.url, "tgi", options.key)
    for name, folder in instance.adapters.items():
        try:
            reference = probe.Reference.read(Path(folder))
        except probe.ProbeError as error:
            raise InstanceFailed(str(error), name) from error
        try:
            report = probe.probe(target, name, reference, tolerance=options.tolerance)
        except probe.ProbeError as error:
            raise InstanceFailed(str(error)) from error
        if not report.passed:
            raise InstanceFailed(report.reason, name)


@dataclass
class Supervisor:
    """Belongs to one event loop. `serving`: the instances that get connections.

    `_proved`: names that passed the probe once, also under an earlier supervisor; a start that
    fails is not their fault. `_suspected`: refused because a start with them failed, no more.
    """

    options: Options
    serving: list[Instance] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    _proved: set[str] = field(default_factory=set)
    _suspected: set[str] = field(default_factory=set)
    _all: list[Instance] = field(default_factory=list)
    _revision: int = 0
    _pause_s: float = 1.0
    _draining: set["asyncio.Task[None]"] = field(default_factory=set)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then end all instances, running answers first."""
        end_leftovers(self.options.folder)
        self._proved = set(loading.read_state(self.options.folder).proved)
        self._tell()
        server = await asyncio.start_server(
            self._forward, self.options.host, self.options.port, limit=BUFFER_BYTES
        )
        keeping = asyncio.create_task(self._keep())
        waiting = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({keeping, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if keeping.done():
                keeping.result()  # a fault of ours must not look like an end
        finally:
            keeping.cancel()
            waiting.cancel()
            with suppress(asyncio.CancelledError):
                await keeping
            server.close()
            self.serving = []
            await self._end(list(self._all))

    async def _keep(self) -> None:
        """Hold the instances to the wanted set for ever."""
        while True:
            adapters, revision = loading.read_wanted(self.options.folder)
            self.refused = {n: why for n, why in self.refused.items() if n in adapters}
            possible = {n: f for n, f in adapters.items() if n not in self.refused}
            await self._drop_ended()
            if self._needs_change(possible) and not await self._changed(possible):
                continue
            self._pause_s = 1.0
            self._revision = revision
            self._tell()
            await asyncio.sleep(TICK_S)

    def _needs_change(self, adapters: Mapping[str, str]) -> bool:
        devices = sorted(instance.device for instance in self.serving)
        is_complete = devices == sorted(self.options.devices)
        return not is_complete or any(i.adapters != adapters for i in self.serving)

    async def _changed(self, adapters: Mapping[str, str]) -> bool:
        """Bring all instances to the set; False when it has to be tried again otherwise."""
        try:
            right = {i.device for i in self.serving if i.adapters == adapters}
            devices = [device for device in self.options.devices if device not in right]
            if self.options.change == "second":
                old = [instance for instance in self.serving if instance.adapters != adapters]
                await self._replace(old, devices, adapters)
            else:
                for device in devices:
                    await self._roll(device, adapters)
        except InstanceFailed as error:
            await self._refuse(error, adapters)
            return False
        return True

    async def _roll(self, device: str, adapters: Mapping[str, str]) -> None:
        """Replace the instance of one device, which the others stand in for meanwhile."""
        old = [instance for instance in self.serving if instance.device == device]
        before = old[0].adapters if old else None
        self.serving = [instance for instance in self.serving if instance not in old]
        await self._end(old)
        try:
            await self._replace([], (device,), adapters)
        except InstanceFailed:
            if before is not None and adapters != before:
                await self._replace([], (device,), before)
            raise

    async def _replace(
        self, old: Sequence[Instance], devices: Iterable[str], adapters: Mapping[str, str]
    ) -> None:
        """Start, wait, probe, switch, drain. Raises InstanceFailed with all as it was."""
        new = [start(self.options, device, adapters) for device in devices]
        self._all += new
        self._tell()
        try:
            for instance in new:
                await asyncio.to_thread(wait_until_ready, instance, self.options.ready_timeout_s)
                await asyncio.to_thread(prove, instance, self.options)
        except BaseException:
            await asyncio.shield(self._end(new))
            raise
        self._proved |= adapters.keys()
        self._suspected.clear()
        # Told first: TGI would answer for what the new ones lack with the base model.
        self._tell(new)
        if any(instance.adapters.keys() - adapters.keys() for instance in self.serving):
            await asyncio.sleep(ON_THE_WAY_S)
        self.serving = [instance for instance in self.serving if instance not in old] + new
        self._tell()
        logger.info("serving with: %s", ", ".join(adapters) or "no adapters")
        drain = asyncio.create_task(self._end(list(old)))
        self._draining.add(drain)
        drain.add_done_callback(self._draining.discard)

    async def _refuse(self, error: InstanceFailed, adapters: Mapping[str, str]) -> None:
        """Leave out what is at fault: the named one, else all that were never proved.

        Where neither is left it is the launcher's fault: wait, and try again with what was only
        suspected.
        """
        logger.error("%s %s", error.adapter, error)
        guilty = {error.adapter} if error.adapter else adapters.keys() - self._proved
        self.refused |= dict.fromkeys(guilty, str(error))
        if not error.adapter:
            self._suspected |= guilty
        if not guilty:
            self.refused = {n: why for n, why in self.refused.items() if n not in self._suspected}
            self._suspected.clear()
        self._tell()
        if not guilty:
            await asyncio.sleep(self._pause_s)
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    async def _drop_ended(self) -> None:
        """Forget instances that ended by themselves, so that they are started again."""
        ended = [instance for instance in self.serving if not instance.is_running]
        if ended:
            for instance in ended:
                logger.error("an instance ended with code %s", instance.process.returncode)
            self.serving = [instance for instance in self.serving if instance not in ended]
            await self._end(ended)
            self._tell()

    async def _end(self, instances: Sequence[Instance]) -> None:
        timeout_s = self.options.drain_timeout_s
        await asyncio.gather(*(asyncio.to_thread(i.end, timeout_s) for i in instances))
        self._all = [instance for instance in self._all if instance not in instances]
        self._tell()

    def _tell(self, soon: Sequence[Instance] = ()) -> None:
        """Write the state: an adapter serves when every instance has it, also those `soon` to serve."""
        sets = [set(instance.adapters) for instance in (*self.serving, *soon)]
        names = sorted(set.intersection(*sets)) if self.serving else []
        running = {str(i.process.pid): processes.started_at(i.process.pid) or "" for i in self._all}
        state = loading.SupervisorState(
            tuple(names),
            self.refused,
            self._revision,
            tuple(sorted(self._proved)),
            len(self.serving),
        )
        loading.write_state(self.options.folder, state, running)

    # --- Forwarding ---------------------------------------------------------------------------
    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Join a client's connection to the instance with the fewest."""
        running = [instance for instance in self.serving if instance.is_running]
        if not running:
            writer.write(BUSY)
            await _close(writer)
            return
        instance = min(running, key=lambda i: i.connections)
        instance.connections += 1
        try:
            theirs, ours = await asyncio.open_connection("127.0.0.1", instance.port)
        except OSError:
            writer.write(BUSY)
            await _close(writer)
        else:
            await asyncio.gather(_copy(reader, ours), _copy(theirs, writer))
        finally:
            instance.connections -= 1


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass bytes on until one side ends; a client that goes ends its request there, too."""
    with suppress(OSError):
        while data := await reader.read(BUFFER_BYTES):
            writer.write(data)
            await writer.drain()
    await _close(writer)


async def _close(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        await writer.drain()
        writer.close()
        await writer.wait_closed()


def end_leftovers(folder: Path) -> None:
    """End instances that a supervisor left behind when it was killed."""
    for pid, started_at in loading.read_processes(folder).items():
        if started_at and processes.started_at(int(pid)) == started_at:
            processes.end_group(int(pid), timeout_s=10)


def parse(arguments: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(
        prog="python -m workers.tgi_supervisor",
        description="Run TGI with the wanted adapters.",
        epilog="What follows -- goes to the launcher.",
    )
    parser.add_argument("folder", type=Path, help="holds wanted.json and state.json")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", default=8080, type=int)
    parser.add_argument(
        "--devices", nargs="+", default=[""], help="one instance each: 0 1, or 0,1 2,3 for shards"
    )
    parser.add_argument("--change", choices=("second", "rolling"), default="second")
    parser.add_argument("--launcher", default="text-generation-launcher")
    parser.add_argument("--ready-timeout-s", type=float, default=900.0)
    parser.add_argument("--drain-timeout-s", type=float, default=90.0)
    parser.add_argument("--tolerance", type=float, default=probe.TOLERANCE)
    cut = list(arguments).index("--") if "--" in arguments else len(arguments)
    read = vars(parser.parse_args(arguments[:cut]))
    read["devices"] = tuple(read["devices"])
    key = os.environ.get("API_KEY", "")
    return Options(**read, arguments=tuple(arguments[cut + 1 :]), key=key)


async def supervise(options: Options) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await Supervisor(options).run(stop)


def main() -> None:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level="INFO")
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    options = parse(sys.argv[1:])
    options.folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(supervise(with_template(options)))


if __name__ == "__main__":
    main()
