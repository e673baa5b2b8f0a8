"""Freeze the approved pairs of a data set."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from finetune import snapshots
from finetune.management import people, waiting
from finetune.splitting import PARTS
from workers import tasks


class Command(BaseCommand):
    help = "Freeze the approved pairs of a data set: rendered, split without leaks, hashed."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--collection", required=True, help="the collection's name")
        parser.add_argument("--dataset", required=True, help="its name")
        parser.add_argument("--user", help="who freezes; the first administrator unless named")
        parser.add_argument("--train", type=float, default=0.8, help="share for training, 0-1")
        parser.add_argument("--validation", type=float, default=0.1, help="share, 0-1")
        parser.add_argument("--seed", type=int, default=0)

    def handle(self, *args: Any, **options: Any) -> None:
        train, validation, seed = options["train"], options["validation"], options["seed"]
        if not (0 < train <= 1 and 0 <= validation <= 1 and train + validation <= 1 + 1e-9):
            raise CommandError("The shares are parts of 1: more than 0 for training, 1 together.")
        if not 0 <= seed < 2**31:
            raise CommandError("A seed is a whole number from 0 to 2147483647.")
        user = people.person(options["user"])
        dataset = people.dataset(user, options["collection"], options["dataset"])
        snapshot = snapshots.start(
            dataset, user, seed=seed, train_share=train, validation_share=validation
        )
        tasks.hint_workers()
        waiting.follow(snapshot.job, self.stdout.write)
        snapshot.refresh_from_db()
        self.stdout.write(f"snapshot {snapshot.pk} (number {snapshot.number})")
        for part in PARTS:
            self.stdout.write(f"{part}: {snapshot.counts[part]:,}")
        for reason, count in snapshot.statistics["excluded"].items():
            self.stdout.write(f"left out, {reason.replace('_', ' ')}: {count:,}")
        for other in snapshot.leakage["evaluation"]:
            self.stdout.write(
                f"leaks into data set {other['dataset']}: {other['exact']} exact,"
                f" {other['near']} near, {other['meaning']} in meaning"
            )
        self.stdout.write(f"sha256 {snapshot.sha256}")
