"""Forget a document or a person."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from finetune import erasure
from finetune.management import people

FIND = {"document": erasure.find_documents, "person": erasure.find_people}


class Command(BaseCommand):
    help = "Say what learned from a document or a person; with --reason, keep it out from now on."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("kind", choices=sorted(FIND))
        parser.add_argument("name", help="a document's name or id, or a username")
        parser.add_argument("--reason", default="", help="erase it, and why; kept in the log")
        parser.add_argument("--user", help="who asks; the first administrator unless named")

    def handle(self, *args: Any, **options: Any) -> None:
        user = people.person(options["user"])
        found = FIND[options["kind"]](user, options["name"])
        if not found:
            raise CommandError(f"Nothing of {user.username} learned from it.")
        if len(found) > 1:
            ids = ", ".join(str(subject.key) for subject in found)
            raise CommandError(f"Several are called so. Give the id of one: {ids}.")
        traces = erasure.trace(found[0], user)
        self.stdout.write(f"pairs: {traces.pairs.count():,}")
        for snapshot in traces.snapshots:
            self.stdout.write(f"snapshot {snapshot.pk}: {snapshot}")
        for adapter in traces.adapters:
            speaks = ", may answer people now" if adapter.name in traces.speaking else ""
            self.stdout.write(f"adapter {adapter.name}{speaks}")
        for folder in traces.merged:
            self.stdout.write(
                f"merged into {folder}: take it off its server and delete it yourself"
            )
        if reason := options["reason"].strip():
            done = erasure.erase(found[0], user, reason=reason)
            self.stdout.write(f"{done.pairs:,} turned stale, {len(done.adapters):,} marked.")
