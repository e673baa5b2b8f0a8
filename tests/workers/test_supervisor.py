"""`manage.py up`, its parts first and then the whole as a second process."""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import pytest

from workers import embedded, processes, supervisor


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    embedded.make_data_dir(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def make_part(data_dir: Path) -> Iterator[Callable[[str], supervisor.Part]]:
    parts = []

    def make(program: str, name: str = "program") -> supervisor.Part:
        child = supervisor.Child(name, [sys.executable, "-c", program], data_dir)
        parts.append(supervisor.Part(name, child))
        return parts[-1]

    yield make
    for part in parts:
        part.service.stop()


def pid_of(data_dir: Path, name: str = "program") -> int:
    pid = processes.read_pid_file(data_dir / "run" / f"{name}.pid")
    assert pid is not None
    return pid


def wait_for(condition: Callable[[], object], timeout_s: float = 5) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_a_killed_program_starts_again(make_part, data_dir, capsys):
    part = make_part("import time; time.sleep(60)")
    part.pause_s = 0.05
    part.start()
    first = pid_of(data_dir)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: not part.service.is_running())
    wait_for(lambda: part.watch() or part.service.is_running())
    assert pid_of(data_dir) != first
    assert "program has ended: it was killed by signal 9" in capsys.readouterr().out


def test_a_program_that_always_dies_is_started_less_and_less_often(make_part, capsys):
    part = make_part("raise SystemExit('no such table')")
    part.pause_s = 0.01
    part.start()
    wait_for(lambda: part.watch() or part.pause_s > 0.1)
    assert "no such table" in capsys.readouterr().out
    part.pause_s = supervisor.LONGEST_PAUSE_S
    part.start_again_at = None
    wait_for(lambda: not part.service.is_running())
    part.watch()
    assert part.pause_s == supervisor.LONGEST_PAUSE_S


def test_what_a_killed_supervisor_left_is_ended_at_the_next_start(make_part, data_dir):
    make_part("import time; time.sleep(60)").start()
    orphan = pid_of(data_dir)
    successor = make_part("import time; time.sleep(60)")
    successor.start()
    assert processes.started_at(orphan) is None
    assert pid_of(data_dir) != orphan


def test_warnings_are_shown_with_the_name_of_their_program(make_part, capsys):
    part = make_part("print('all well'); print('12:00 WARNING kb: the disk is full')", name="web")
    part.start()
    wait_for(lambda: not part.service.is_running())
    part.look_at_log()
    assert capsys.readouterr().out == "web | 12:00 WARNING kb: the disk is full\n"


def test_a_flood_of_errors_is_shown_in_part(make_part, capsys):
    part = make_part("for number in range(100): print('ERROR', number)")
    part.start()
    wait_for(lambda: not part.service.is_running())
    part.look_at_log()
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["program | ERROR 0", "program | ERROR 1"]
    assert len(lines) == supervisor.LOUD_LINES_PER_MINUTE + 1
    assert str(part.service.log) in lines[-1]


def test_earlier_logs_are_not_shown_again(make_part, data_dir, capsys):
    (data_dir / "logs" / "program.log").write_text("ERROR of yesterday\n")
    part = make_part("pass")
    part.look_at_log()
    assert capsys.readouterr().out == ""


def test_a_full_log_is_kept_once_and_emptied_under_its_writer(make_part, monkeypatch):
    monkeypatch.setattr(supervisor, "LOG_BYTES", 1000)
    part = make_part("import time; print('x' * 2000, flush=True); time.sleep(1); print('after')")
    part.start()
    log = part.service.log
    wait_for(lambda: log.stat().st_size > 2000)
    part.look_at_log()
    wait_for(lambda: not part.service.is_running())
    assert log.read_text() == "after\n"
    assert log.with_suffix(".log.1").stat().st_size == 2001


def test_a_taken_port_is_named_with_a_way_out():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(supervisor.CannotStart, match=f"script/up --port {port + 1}"):
            supervisor.check_port_is_free("127.0.0.1", port)


def test_a_second_start_says_that_it_already_runs(data_dir):
    with (
        supervisor.only_one(data_dir, "http://127.0.0.1:8000"),
        pytest.raises(supervisor.CannotStart, match="already runs from this folder: http://127"),
        supervisor.only_one(data_dir, "http://127.0.0.1:8001"),
    ):
        pass


def test_the_secret_key_is_made_once_and_is_private(data_dir):
    key = supervisor.secret_key(data_dir / "secret_key")
    assert len(key) >= 50
    assert supervisor.secret_key(data_dir / "secret_key") == key
    assert (data_dir / "secret_key").stat().st_mode & 0o077 == 0


def test_servers_of_ones_own_are_used(data_dir):
    running: list[supervisor.Part] = []
    supervisor.start_services(data_dir, running)
    assert running == [], "DATABASE_URL and REDIS_URL are set in this very test run"


def test_the_site_does_not_answer_before_it_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert not supervisor.Site("127.0.0.1", port, "").answers()


def test_preparing_stops_at_once_when_told_to(monkeypatch, tmp_path):
    monkeypatch.setattr(supervisor, "ROOT", tmp_path)
    (tmp_path / "manage.py").write_text("import time; time.sleep(60)")
    stop = Event()
    stop.set()
    started = time.monotonic()
    supervisor.prepare(stop)
    assert time.monotonic() - started < 5


def test_a_failed_preparation_stops_the_start(monkeypatch, tmp_path):
    monkeypatch.setattr(supervisor, "ROOT", tmp_path)
    (tmp_path / "manage.py").write_text("raise SystemExit(3)")
    with pytest.raises(supervisor.CannotStart):
        supervisor.prepare(Event())


def test_without_what_computes_a_model_the_start_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(supervisor, "MODEL_PACKAGES", ("json", "no_such_package"))
    with pytest.raises(supervisor.CannotStart, match="--model needs no_such_package"):
        supervisor.check_can_serve(str(tmp_path))


def test_a_model_server_of_ones_own_and_one_of_ours_exclude_each_other(data_dir, monkeypatch):
    monkeypatch.setenv("MODEL_SERVER_URL", "http://tgi")
    with pytest.raises(supervisor.CannotStart, match="leave out --model"):
        supervisor.model_server(data_dir, "")


def test_the_model_servers_key_is_in_no_command_line(data_dir, monkeypatch, tmp_path):
    monkeypatch.setattr(supervisor, "MODEL_PACKAGES", ())
    for name in ("MODEL_SERVER_URL", "MODEL_SERVER_KEY"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("BASE_MODEL", str(tmp_path))
    child = supervisor.model_server(data_dir, "")
    assert str(tmp_path) in child.command
    assert os.environ["MODEL_SERVER_KEY"] not in " ".join(child.command)
    assert os.environ["MODEL_SERVER_URL"].rpartition(":")[2] in child.command
