"""Write the pairs of a data set to a file."""

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from finetune import exporting
from finetune.management import people
from finetune.models import InstructionPair


class Command(BaseCommand):
    help = "Write the pairs of a data set that a person may see to a file."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", help="the file to write; - is the standard output")
        parser.add_argument("--collection", required=True, help="the collection's name")
        parser.add_argument("--dataset", required=True, help="the data set's name")
        parser.add_argument("--kind", choices=list(exporting.KINDS), default="alpaca_jsonl")
        parser.add_argument("--user", help="whose pairs; the first administrator unless named")
        parser.add_argument(
            "--state",
            action="append",
            default=[],
            choices=InstructionPair.State.values,
            help="may be repeated; approved pairs unless told",
        )
        parser.add_argument("--all", action="store_true", help="pairs in every state")
        parser.add_argument("--tag", action="append", default=[], help="may be repeated")
        parser.add_argument("--without-provenance", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        user = people.person(options["user"])
        dataset = people.dataset(user, options["collection"], options["dataset"])
        states = [] if options["all"] else options["state"] or [InstructionPair.State.APPROVED]
        pieces = exporting.export(
            user,
            dataset,
            options["kind"],
            states=states,
            tags=options["tag"],
            with_provenance=not options["without_provenance"],
        )
        if options["file"] == "-":
            sys.stdout.buffer.writelines(pieces)
            return
        try:
            with Path(options["file"]).open("wb") as target:
                target.writelines(pieces)
        except OSError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{options['file']} is written.")
