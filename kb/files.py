"""Where uploaded files lie: one file per content, named by its SHA-256, never by what people sent."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from django.core.files import File
from django.core.files.storage import FileSystemStorage, storages
from whitenoise.storage import CompressedManifestStaticFilesStorage

COPY_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that is safely on disk. `name` is its name in the storage, `size` is in bytes."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class IncomingFile:
    """A file that is safely on disk, but not yet under its name."""

    path: Path
    stored: StoredFile


class FileTooLarge(Exception):
    """The file is larger than this install accepts."""


class ContentStorage(FileSystemStorage):
    """Keep each content once; a file is complete and synced before its name exists."""

    def put(self, chunks: Iterator[bytes], *, max_bytes: int) -> StoredFile:
        """Write a stream of bytes and return its address. Raises FileTooLarge, leaving nothing."""
        return self.settle(self.receive(chunks, max_bytes=max_bytes))

    def receive(self, chunks: Iterator[bytes], *, max_bytes: int) -> IncomingFile:
        """Write a stream of bytes under no name yet. Raises FileTooLarge, leaving nothing."""
        incoming = Path(self.location) / "incoming"
        incoming.mkdir(parents=True, exist_ok=True)
        digest, size = hashlib.sha256(), 0
        with tempfile.NamedTemporaryFile(dir=incoming, delete=False) as target:
            try:
                for chunk in chunks:
                    size += len(chunk)
                    if size > max_bytes:
                        raise FileTooLarge
                    digest.update(chunk)
                    target.write(chunk)
                target.flush()
                os.fsync(target.fileno())
            except BaseException:
                Path(target.name).unlink(missing_ok=True)
                raise
        sha256 = digest.hexdigest()
        stored = StoredFile(f"{sha256[:2]}/{sha256}", sha256, size)
        return IncomingFile(Path(target.name), stored)

    def settle(self, incoming: IncomingFile) -> StoredFile:
        """Give a received file its name; the same content under it is replaced by itself."""
        final = Path(self.path(incoming.stored.name))
        final.parent.mkdir(parents=True, exist_ok=True)
        incoming.path.chmod(0o600)
        os.replace(incoming.path, final)
        directory = os.open(final.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        return incoming.stored

    def names(self) -> Iterator[tuple[str, float]]:
        """Give every stored file's name and its time of writing, in seconds since the epoch."""
        for path in Path(self.location).glob("*/*"):
            yield path.relative_to(self.location).as_posix(), path.stat().st_mtime


class StaticFiles(CompressedManifestStaticFilesStorage):
    """The collected static files, each under a name with its hash."""

    # Our scripts import each other by relative names. Left alone, a browser would run a module
    # twice, under its plain name and under the one with the hash. Django's own switch for this
    # reads every script and stumbles over the bundles of others.
    patterns = (
        *CompressedManifestStaticFilesStorage.patterns,
        (
            "kb/*.js",
            (
                (
                    r"""(?P<matched>import\s+(?P<names>[^"';]*?)["'](?P<url>\./[^"']+)["'])""",
                    'import %(names)s"%(url)s"',
                ),
            ),
        ),
    )


def content_storage() -> ContentStorage:
    """Give the storage of settings.STORAGES that holds what people uploaded."""
    storage = storages["default"]
    assert isinstance(storage, ContentStorage)
    return storage


def chunks_of(file: File) -> Iterator[bytes]:
    """Read an open file from its start, a megabyte at a time."""
    yield from file.chunks(COPY_BYTES)
