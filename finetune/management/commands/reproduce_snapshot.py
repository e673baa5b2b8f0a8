"""Make the file of a snapshot again from its manifest, and compare."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from finetune import snapshots
from finetune.models import DatasetSnapshot


class Command(BaseCommand):
    help = "Make the file of a snapshot again from its manifest; fails when its hash differs."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("snapshot", type=int, help="its id, as freeze_snapshot says it")

    def handle(self, *args: Any, **options: Any) -> None:
        snapshot = DatasetSnapshot.objects.filter(
            pk=options["snapshot"], state=DatasetSnapshot.State.READY
        ).first()
        if snapshot is None:
            raise CommandError(f"There is no frozen snapshot {options['snapshot']}.")
        made = snapshots.reproduce(snapshot)
        self.stdout.write(f"rendered anew: {made.rendered:,}")
        if made.kept:
            self.stdout.write(f"as kept, because they changed since: {len(made.kept):,}")
        self.stdout.write(f"sha256 {made.sha256}")
        if not made.is_same:
            raise CommandError(f"It should be {snapshot.sha256}.")
        self.stdout.write("The same.")
