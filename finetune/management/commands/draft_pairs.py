"""Draft pairs from the passages of a collection into a data set, with progress."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from finetune import drafting
from finetune.drafting import Choice
from finetune.drafts import Style
from finetune.management import people, waiting
from finetune.models import Drafting
from kb.models import Document
from workers import tasks


class Command(BaseCommand):
    help = "Draft pairs from passages; each waits for its review."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--collection", required=True, help="the collection's name")
        parser.add_argument("--dataset", required=True, help="its name; made when missing")
        parser.add_argument("--user", help="who drafts; the first administrator unless named")
        parser.add_argument("--count", type=int, default=20, help="how many pairs (default 20)")
        parser.add_argument(
            "--style",
            action="append",
            choices=[style.value for style in Style],
            help="a way to ask; repeat it for several; all unless named",
        )
        parser.add_argument("--document", help="only documents with this in their name")
        parser.add_argument("--any-order", action="store_true", help="also documents with pairs")
        parser.add_argument("--distractors", type=int, default=30, help="in percent (default 30)")
        parser.add_argument("--abstentions", type=int, default=10, help="in percent (default 10)")
        parser.add_argument("--no-wait", action="store_true", help="return once it is queued")

    def handle(self, *args: Any, **options: Any) -> None:
        user = people.person(options["user"])
        dataset = people.dataset(user, options["collection"], options["dataset"], make=True)
        if not 1 <= options["count"] <= drafting.MOST_WANTED:
            raise CommandError(f"--count goes from 1 to {drafting.MOST_WANTED:,}.")
        shares = options["distractors"], options["abstentions"]
        if min(shares) < 0 or sum(shares) > 100:
            raise CommandError("--distractors and --abstentions are at most 100 percent together.")
        documents = Document.objects.visible_to(user).filter(
            collection=dataset.collection_id, name__icontains=options["document"] or ""
        )
        chosen = list(documents.values_list("pk", flat=True)) if options["document"] else []
        if options["document"] and not chosen:
            raise CommandError("No document of the collection has this in its name.")
        offered = drafting.offered_styles()
        styles = [Style(style) for style in options["style"] or [s.value for s in offered]]
        if unknown := [style.value for style in styles if style not in offered]:
            raise CommandError(f"Without a model server nothing is asked as {unknown[0]}.")
        run = drafting.start(
            dataset,
            user,
            wanted=options["count"],
            choice=Choice(styles, (), chosen, not options["any_order"], *shares),
        )
        tasks.hint_workers()
        if not options["no_wait"]:
            self._wait(run)

    def _wait(self, run: Drafting) -> None:
        def written(_: object) -> str:
            run.refresh_from_db()
            return f"{run.written:,} of {run.wanted:,} pairs"

        waiting.wait(run.job, self.stdout.write, written)
        for problem, count in sorted(run.problems.items()):
            self.stdout.write(f"{count:,} left out: {problem}")
        waiting.insist(run.job)
