"""Merge an adapter into its base, for servers that cannot load it."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from finetune import training
from finetune.models import Adapter
from finetune.probe import ProbeError


class Command(BaseCommand):
    help = "Write an adapter and its base as one model, test it again, and say where it lies."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="the adapter's")
        parser.add_argument("folder", type=Path, help="is written whole; must not exist")
        parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")

    def handle(self, *args: Any, **options: Any) -> None:
        adapter = Adapter.objects.filter(name=options["name"]).select_related("run").first()
        if adapter is None:
            raise CommandError(f"There is no adapter {options['name']}.")
        try:
            from finetune import merging
        except ModuleNotFoundError as error:
            raise CommandError(f"{error.name} is missing; see docs/fine-tune.md.") from error
        base, placed = training.base_folder(adapter.run), training.adapters_folder() / adapter.name
        try:
            merged = merging.merge(base, placed, options["folder"], dtype=options["dtype"])
        except (merging.CannotMerge, ProbeError, OSError) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(
            f"{merged.folder} answers {merged.asked} questions as the adapter did"
            f" ({merged.distance:.3f} nats apart at most)."
        )
