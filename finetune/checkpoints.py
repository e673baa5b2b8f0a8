"""Folders that are whole or not there at all: written aside, hashed, forced to disk, renamed.

A checkpoint is such a folder, `step-00000042`, with `manifest.json`: the SHA-256 of each file.
No torch: what is inside is the caller's.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
_ASIDE = ".writing-"


class FolderTaken(Exception):
    """Another process trains in this folder."""


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashes_of(folder: Path, pattern: str = "*") -> dict[str, str]:
    """Hash a folder's own files, in order of their names; the manifest and folders are left out."""
    files = (path for path in sorted(folder.glob(pattern)) if path.is_file())
    return {path.name: sha256_of(path) for path in files if path.name != MANIFEST}


def publish(
    target: Path, write: Callable[[Path], None], *, about: dict[str, Any] | None = None
) -> None:
    """Make a folder appear at once: `write` fills it aside, then it is hashed, synced and renamed.

    `about` goes into its manifest beside the hashes. Something that has the name already is
    replaced; a process killed at any moment leaves the old, the new or nothing under the name.
    """
    aside = target.parent / f"{_ASIDE}{target.name}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        write(aside)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    manifest = {**(about or {}), "files": hashes_of(aside)}
    (aside / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    for path in aside.iterdir():
        _sync(path)
    _sync(aside)
    if target.exists():
        shutil.rmtree(target)
    aside.rename(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    """Force a file, or a folder's list of names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def manifest_of(folder: Path) -> dict[str, Any] | None:
    """Read the manifest of a folder whose files are all there and unchanged; else None."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        files = manifest["files"]
        whole = all(sha256_of(folder / name) == digest for name, digest in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest if whole else None


def path_of(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def newest(folder: Path) -> tuple[Path | None, list[Path]]:
    """Find the newest whole checkpoint; and the damaged ones after it, which are set aside.

    A damaged checkpoint is renamed to `damaged-step-…`, so that it is neither used nor counted.
    """
    damaged: list[Path] = []
    for checkpoint in _checkpoints(folder):
        if manifest_of(checkpoint) is not None:
            return checkpoint, damaged
        away = folder / f"damaged-{checkpoint.name}"
        shutil.rmtree(away, ignore_errors=True)
        checkpoint.rename(away)
        damaged.append(away)
    return None, damaged


def _checkpoints(folder: Path) -> list[Path]:
    """List what bears the name of a checkpoint, the newest first."""
    return sorted(folder.glob("step-*"), reverse=True)


def prune(folder: Path, *, keep: int) -> None:
    """Leave the newest `keep` checkpoints, and nothing half written."""
    for path in (*_checkpoints(folder)[keep:], *folder.glob(f"{_ASIDE}*")):
        shutil.rmtree(path)


def clear(folder: Path) -> None:
    """Remove every checkpoint, damaged and half written ones too; what else lies there stays."""
    for pattern in ("step-*", "damaged-step-*", f"{_ASIDE}*"):
        for path in folder.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def sole_user(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; it is free again when the process ends, however it ends.

    Raises FolderTaken.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderTaken(f"Another process trains in {folder} already.") from None
        yield
