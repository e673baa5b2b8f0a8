"""The child process holds whatever a parser does in it."""

import logging
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from kb.extraction import sandbox
from kb.extraction.limits import MEBIBYTE, Limits
from kb.extraction.unreadable import DocumentUnreadable

ATTACKS = "tests.kb.extraction.attacks"
QUICK = Limits(cpu_s=2, wall_s=3)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"the content")
    return path


def run(attack: str, path: Path, limits: Limits = QUICK) -> bytes:
    return sandbox.run(f"{ATTACKS}:{attack}", path, kind="PDF", limits=limits)


def code_of(attack: str, path: Path, limits: Limits = QUICK) -> str:
    with pytest.raises(DocumentUnreadable) as caught:
        run(attack, path, limits)
    return caught.value.code


def test_a_function_gets_the_file_and_gives_bytes(file: Path) -> None:
    assert run("echo", file) == b"the content"


def test_no_way_leads_out(file: Path) -> None:
    assert run("reach_out", file) == b""


def test_a_user_without_rights_gets_the_same_walls(file: Path, tmp_path: Path) -> None:
    """Where the tests run as root the sandbox becomes another user; here it starts as one."""
    if os.geteuid() != 0:
        pytest.skip("the test before this one ran as an ordinary user already")
    interpreter = Path("/usr/bin/python3")
    if not interpreter.exists():
        pytest.skip("no interpreter that another user can start")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        shutil.copytree(sandbox.ROOT / "kb", Path(folder, "kb"))
        shutil.copytree(sandbox.ROOT / "tests" / "kb", Path(folder, "tests", "kb"))
        Path(folder, "file").write_bytes(b"x")
        program = (
            f"import sys; sys.path.insert(0, {folder!r})\n"
            "from pathlib import Path\n"
            "from kb.extraction import sandbox\n"
            "from kb.extraction.limits import Limits\n"
            f"print(sandbox.run('{ATTACKS}:reach_out', Path({folder!r}, 'file'), kind='PDF', "
            "limits=Limits()))"
        )
        done = subprocess.run(
            [str(interpreter), "-c", program],
            user=65534,
            group=65534,
            extra_groups=[],
            env={},
            capture_output=True,
            text=True,
            cwd=folder,
        )
    assert done.stdout.strip() == "b''", done.stderr


def test_it_works_without_namespaces_and_without_being_another_user(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As in a container that forbids them; what is missing is said once in the log."""
    sandbox._report_missing.cache_clear()
    program = (
        "import sys\n"
        f"sys.path[:0] = {sandbox.IMPORT_FROM!r}\n"
        "from kb.extraction import confinement\n"
        "confinement._namespaces = confinement._leave_root = lambda *_: False\n"
        f"exec(compile(open({str(sandbox.CHILD)!r}).read(), 'child', 'exec'))\n"
    )
    child = file.with_name("child.py")
    child.write_text(program)
    monkeypatch.setattr(sandbox, "CHILD", child)
    with caplog.at_level(logging.WARNING):
        ways_out = run("reach_out", file).decode().splitlines()
        run("echo", file)
    assert set(ways_out) <= {"become root", "fork"}  # without the files of root, and harmless
    assert sum("less protection" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize("attack", ["loop_for_ever", "sleep_for_ever", "ignore_signals"])
def test_what_never_ends_is_stopped(attack: str, file: Path) -> None:
    started = time.monotonic()
    assert code_of(attack, file) == "timeout"
    assert time.monotonic() - started < 6


def test_four_gigabytes_are_not_given(file: Path) -> None:
    assert code_of("take_four_gigabytes", file) == "memory"


def test_an_answer_without_end_is_cut_and_not_kept(file: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    limits = Limits(wall_s=10, cpu_s=10, output_bytes=8 * MEBIBYTE)
    assert code_of("talk_for_ever", file, limits) in ("too_large", "timeout")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 64 * MEBIBYTE


def test_noise_does_not_reach_the_answer(file: Path) -> None:
    assert run("chatter_on_standard_error", file) == b"done"


def test_a_crash_says_that_the_file_is_damaged(file: Path) -> None:
    assert code_of("crash", file) == "damaged"


def test_details_from_the_child_are_cut_and_cleaned(file: Path) -> None:
    with pytest.raises(DocumentUnreadable) as caught:
        run("fail_with_a_long_detail", file)
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


def test_nothing_is_left_running(file: Path) -> None:
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = children.read_text()
    code_of("ignore_signals", file)
    assert children.read_text() == before


def test_the_child_dies_with_its_parent(file: Path) -> None:
    program = (
        f"import sys; sys.path[:0] = {sandbox.IMPORT_FROM!r}\n"
        "from pathlib import Path\n"
        "from kb.extraction import sandbox\n"
        "from kb.extraction.limits import Limits\n"
        f"sandbox.run('{ATTACKS}:sleep_for_ever', Path({str(file)!r}), kind='PDF', limits=Limits())"
    )
    parent = subprocess.Popen([sys.executable, "-c", program])
    children = _wait_for_children(parent.pid)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{pid}").exists() for pid in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_is_running(pid) for pid in children)


def test_starting_costs_less_than_a_third_of_a_second_of_work(file: Path) -> None:
    run("echo", file)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    run("echo", file)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime < 0.33


def _wait_for_children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    for _ in range(200):
        time.sleep(0.05)
        children = [int(child) for child in path.read_text().split()]
        if children:
            time.sleep(0.3)
            return children
    raise AssertionError("no child was started")


def _is_running(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]
    except FileNotFoundError:
        return False
