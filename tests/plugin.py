"""Give the tests a PostgreSQL and a Redis of their own, before the settings are read.

Loaded by `-p tests.plugin`. Each run has its own folder and sockets, so several can run at once.
DATABASE_URL or REDIS_URL in the environment use a running server instead.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path

import pytest

from workers import embedded

# Ends what a killed test run left; told "done", it has nothing to do.
WATCHER = """
read -r word && exit
folder=$1; shift
kill -QUIT "$@"; sleep 1; kill -KILL "$@"
rm -rf "$folder"
"""
# Names the variables that we set; each process of a parallel run sets them anew, for itself.
OURS = "TACIT_TEST_SERVERS"
_at_end = ExitStack()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests() -> Generator[None]:
    # pytest-django reads the settings in this same hook; a wrapper runs before it.
    try:
        _start()
        yield
    except BaseException:
        _at_end.close()
        raise


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files with the longest tests first, so that none of them is alone at the end."""
    long = {i.path for i in items if i.get_closest_marker("train") or i.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in long, "journeys" not in item.path.parts))


def pytest_unconfigure() -> None:
    _at_end.close()


def _start() -> None:
    data_dir = Path(tempfile.mkdtemp(prefix="tacit-test-"))
    data_dir.chmod(0o711)  # as root, PostgreSQL runs as a user who has to pass through
    _at_end.callback(shutil.rmtree, data_dir, ignore_errors=True)
    (data_dir / "static").mkdir()  # WhiteNoise warns when there is none
    watched = [str(data_dir)]
    for variable in os.environ.pop(OURS, "").split():
        os.environ.pop(variable, None)
    for variable, service in (
        ("DATABASE_URL", embedded.Postgres(data_dir, durable=False)),
        ("REDIS_URL", embedded.Redis(data_dir, durable=False)),
    ):
        if variable not in os.environ:
            os.environ[variable] = service.start()
            _at_end.callback(service.stop)
            watched.append(str(service.pid()))
            os.environ[OURS] = f"{os.environ.get(OURS, '')} {variable}"
    watcher = subprocess.Popen(
        ["sh", "-c", WATCHER, "watcher", *watched],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    _at_end.callback(watcher.communicate, b"done\n")
    os.environ.update(
        DATA_DIR=str(data_dir),
        SECRET_KEY="only for tests",
        EMBEDDER="hashing",
        DEBUG="false",
        DATABASE_POOL="0",
        # Tiny models gain nothing from more threads, which wait for each other where tests run
        # side by side; and sums come out the same bit for bit.
        OMP_NUM_THREADS="1",
        HF_HUB_OFFLINE="1",
    )
    for variable in ("GENERATOR", "MODEL_SERVER_URL", "BASE_URL", "ALLOWED_HOSTS", "EMAIL_URL"):
        os.environ.pop(variable, None)
