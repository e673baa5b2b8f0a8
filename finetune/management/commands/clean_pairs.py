"""Look for the duplicates of a data set; measure its pairs anew where asked to."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from finetune import curation, duplicates, quality
from finetune.management import people, waiting
from finetune.models import Dataset, DuplicateCluster, InstructionPair
from workers import tasks

BATCH = 500


class Command(BaseCommand):
    help = "Look for exact, near and meaning duplicates in a data set and those beside it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--collection", required=True, help="the collection's name")
        parser.add_argument("--dataset", required=True, help="its name")
        parser.add_argument("--user", help="who asks; the first administrator unless named")
        parser.add_argument(
            "--measure",
            action="store_true",
            help="compute the quality columns of every pair anew first, after an upgrade",
        )
        parser.add_argument(
            "--keep-first",
            action="append",
            default=[],
            choices=DuplicateCluster.Kind.values,
            help="decide every open cluster of this kind: keep its first pair",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        user = people.person(options["user"])
        dataset = people.dataset(user, options["collection"], options["dataset"])
        if options["measure"]:
            self.stdout.write(f"measured anew: {measure_again(dataset):,}")
        cleaning = duplicates.start(dataset, user)
        tasks.hint_workers()
        waiting.follow(cleaning.job, self.stdout.write)
        cleaning.refresh_from_db()
        for name, count in cleaning.counts.items():
            self.stdout.write(f"{name.replace('_', ' ')}: {count:,}")
        clusters = DuplicateCluster.objects.visible_to(user).filter(
            dataset=dataset, decision=DuplicateCluster.Decision.OPEN
        )
        for kind in options["keep_first"]:
            rejected = sum(
                duplicates.keep_one(cluster, user) for cluster in clusters.filter(kind=kind)
            )
            self.stdout.write(f"set aside, {kind}: {rejected:,}")


def measure_again(dataset: Dataset) -> int:
    """Compute the quality columns of all pairs of a data set; gives their number."""
    pairs = InstructionPair.objects.filter(dataset=dataset).prefetch_related("sources")
    last, count = 0, 0
    while batch := list(pairs.filter(pk__gt=last).order_by("pk")[:BATCH]):
        for pair in batch:
            curation.measure(pair, pair.sources.all())
        InstructionPair.objects.bulk_update(batch, list(quality.Quality.__slots__))
        last, count = batch[-1].pk, count + len(batch)
    return count
