"""When a data set asks for a new run."""

from argparse import ArgumentParser, BooleanOptionalAction
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from finetune import retraining
from finetune.management import people
from finetune.models import Dataset, RetrainRule

SHARES, COUNTS = ("stale_share", "rating_drop"), ("new_pairs", "every_days")


class Command(BaseCommand):
    help = "Show when a data set asks for a new run, or change it; 0: not looked at."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--collection", required=True, help="the collection's name")
        parser.add_argument("--dataset", required=True, help="its name")
        parser.add_argument("--new-pairs", type=int, help="approved since the last run")
        parser.add_argument("--stale-share", type=float, help="of the last snapshot's pairs, 0-1")
        parser.add_argument("--rating-drop", type=float, help="of the share of good ratings, 0-1")
        parser.add_argument("--every-days", type=int, help="since the last run")
        parser.add_argument("--on", dest="is_on", action=BooleanOptionalAction, help="use the rule")
        parser.add_argument("--user", help="who asks; the first administrator unless named")

    def handle(self, *args: Any, **options: Any) -> None:
        user = people.person(options["user"])
        dataset = people.dataset(user, options["collection"], options["dataset"])
        if not Dataset.objects.owned_by(user).filter(pk=dataset.pk).exists():
            raise CommandError(f"{user.username} does not own the collection.")
        rule = RetrainRule.objects.filter(dataset=dataset).first() or RetrainRule(dataset=dataset)
        names = (*COUNTS, *SHARES, "is_on")
        told = {name: options[name] for name in names if options[name] is not None}
        if any(told.get(name, 0) < 0 for name in COUNTS):
            raise CommandError("Numbers are 0 or more.")
        if not all(0 <= told.get(name, 0) <= 1 for name in SHARES):
            raise CommandError("Shares are parts of 1.")
        for name, value in told.items():
            setattr(rule, name, value)
        if told:
            rule.save()
        for name in names:
            self.stdout.write(f"{name}: {getattr(rule, name)}")
        for reason in retraining.reasons(rule):
            self.stdout.write(f"met: {reason}")
