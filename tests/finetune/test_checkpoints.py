import os
import subprocess
import sys
from pathlib import Path

import pytest

from finetune import checkpoints


def write(folder: Path, step: int, text: str = "weights") -> Path:
    path = checkpoints.path_of(folder, step)
    checkpoints.publish(path, lambda aside: None if (aside / "a").write_text(text) else None)
    return path


def test_a_published_folder_carries_its_hashes_and_what_was_said_about_it(tmp_path: Path) -> None:
    checkpoints.publish(
        tmp_path / "x",
        lambda aside: None if (aside / "a").write_text("b") else None,
        about={"seed": 3},
    )

    manifest = checkpoints.manifest_of(tmp_path / "x")
    assert manifest == {"seed": 3, "files": {"a": checkpoints.sha256_of(tmp_path / "x" / "a")}}


def test_a_folder_whose_writing_fails_does_not_appear(tmp_path: Path) -> None:
    def fail(aside: Path) -> None:
        (aside / "a").write_text("half")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        checkpoints.publish(tmp_path / "step-00000001", fail)

    assert checkpoints.newest(tmp_path) == (None, [])
    checkpoints.prune(tmp_path, keep=2)
    assert list(tmp_path.iterdir()) == []


def test_the_newest_checkpoint_is_found_by_its_step(tmp_path: Path) -> None:
    write(tmp_path, 9)
    newest = write(tmp_path, 10)

    assert checkpoints.newest(tmp_path) == (newest, [])


@pytest.mark.parametrize("damage", ["changed", "shortened", "gone", "manifest", "no manifest"])
def test_a_damaged_newest_checkpoint_is_set_aside_and_the_one_before_used(
    tmp_path: Path, damage: str
) -> None:
    before, newest = write(tmp_path, 1), write(tmp_path, 2)
    if damage == "changed":
        (newest / "a").write_text("weighty")
    elif damage == "shortened":
        os.truncate(newest / "a", 3)
    elif damage == "gone":
        (newest / "a").unlink()
    elif damage == "manifest":
        (newest / "manifest.json").write_text('{"files": ')
    else:
        (newest / "manifest.json").unlink()

    found, damaged = checkpoints.newest(tmp_path)

    assert found == before
    assert [path.name for path in damaged] == ["damaged-step-00000002"]
    write(tmp_path, 2)
    assert checkpoints.newest(tmp_path)[0] == newest


def test_old_checkpoints_are_removed_and_the_newest_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        write(tmp_path, step)

    checkpoints.prune(tmp_path, keep=2)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]


def test_writing_a_step_again_replaces_it(tmp_path: Path) -> None:
    write(tmp_path, 1, "old")
    path = write(tmp_path, 1, "new")

    assert (path / "a").read_text() == "new"
    assert checkpoints.manifest_of(path) is not None


def test_a_manifest_of_another_kind_is_no_manifest(tmp_path: Path) -> None:
    path = write(tmp_path, 1)
    for content in ("[]", "{}", '{"files": 3}', '{"files": {"a": 1}}'):
        (path / "manifest.json").write_text(content)
        assert checkpoints.manifest_of(path) is None


def test_a_folder_has_one_process_at_a_time_and_is_free_when_that_is_killed(
    tmp_path: Path,
) -> None:
    program = (
        "import sys, pathlib; from finetune import checkpoints\n"
        "with checkpoints.sole_user(pathlib.Path(sys.argv[1])): print('mine', flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"mine\n"
        with pytest.raises(checkpoints.FolderTaken), checkpoints.sole_user(tmp_path):
            pass
    finally:
        other.kill()
        other.communicate()

    with checkpoints.sole_user(tmp_path):
        pass


def test_a_run_that_is_over_keeps_its_files_but_no_checkpoint(tmp_path: Path) -> None:
    for name in (
        "step-00000001",
        "damaged-step-00000002",
        ".writing-step-00000003",
        "a-v1-0123abcd",
    ):
        (tmp_path / name).mkdir()
    (tmp_path / "metrics.jsonl").write_text("{}")
    checkpoints.clear(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-v1-0123abcd", "metrics.jsonl"]
