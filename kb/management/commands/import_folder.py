"""Add every file of a folder to a collection, with progress."""

import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.files import File
from django.core.management.base import BaseCommand, CommandError

from kb.extraction import SUPPORTED
from kb.models import Collection, Document, User
from kb.models.documents import Added, UploadRefused
from workers import tasks

POLL_S = 1.0


class Command(BaseCommand):
    help = "Add every supported file below a folder to a collection; files already there stay."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("folder", type=Path)
        parser.add_argument("--collection", required=True, help="its name; made when missing")
        parser.add_argument("--public", action="store_true", help="a new collection is public")
        parser.add_argument("--owner", help="username; owns a new collection, adds the files")
        parser.add_argument("--no-wait", action="store_true", help="return once all are queued")

    def handle(self, *args: Any, **options: Any) -> None:
        folder: Path = options["folder"]
        self.verbosity: int = options["verbosity"]
        if not folder.is_dir():
            raise CommandError(f"{folder} is not a folder.")
        owner = self._owner(options["owner"])
        collection = self._collection(options["collection"], options["public"], owner)
        documents = self._add_all(folder, collection, owner)
        if not options["no_wait"]:
            self._wait(documents)

    def _owner(self, username: str | None) -> User | None:
        if username is None:
            return None
        owner = User.objects.filter(username=username).first()
        if owner is None:
            raise CommandError(f"Nobody is called {username}.")
        return owner

    def _collection(self, name: str, is_public: bool, owner: User | None) -> Collection:
        collection, created = Collection.objects.get_or_create(
            name=name, defaults={"is_public": is_public, "created_by": owner}
        )
        if created and owner:
            collection.grant(owner, "owner")
        return collection

    def _add_all(self, folder: Path, collection: Collection, owner: User | None) -> list[int]:
        files = sorted(path for path in folder.rglob("*") if _is_wanted(path, folder))
        counts, added = dict.fromkeys(Added, 0), []
        for number, path in enumerate(files, start=1):
            try:
                with path.open("rb") as handle:
                    name = path.relative_to(folder).as_posix()
                    document, outcome = collection.add_document(
                        File(handle), name=name, added_by=owner
                    )
            except UploadRefused as refusal:
                self.stderr.write(f"{path}: {refusal}")
                continue
            counts[outcome] += 1
            added.append(document.pk)
            if number % 50 == 0 or number == len(files):
                tasks.hint_workers()
                self._say(f"{number} of {len(files)} files added")
        summary = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
        self._say(f"{collection.name}: {summary or 'no supported file found'}")
        return added

    def _say(self, progress: str) -> None:
        if self.verbosity:
            self.stdout.write(progress)

    def _wait(self, documents: list[int]) -> None:
        shown = -1
        while True:
            mine = Document.objects.filter(pk__in=documents)
            ended = mine.filter(state__in=[Document.State.READY, Document.State.FAILED]).count()
            if ended != shown:
                self.stdout.write(f"{ended} of {len(documents)} read")
                shown = ended
            if ended == len(documents):
                break
            time.sleep(POLL_S)
        for document in mine.filter(state=Document.State.FAILED):
            self.stdout.write(f"failed: {document.name}: {document.newest_version.job.error}")


def _is_wanted(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return path.is_file() and not hidden and path.suffix.lower() in SUPPORTED
