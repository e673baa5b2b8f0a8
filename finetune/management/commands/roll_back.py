"""Let what answered before an adapter answer again."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from finetune import activation
from finetune.management import people
from finetune.models import Activation


class Command(BaseCommand):
    help = "Take an adapter back; what answered before answers again, at once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("adapter", help="its name")
        parser.add_argument("--reason", default="", help="why; kept in the log")
        parser.add_argument("--user", help="who does; the first administrator unless named")

    def handle(self, *args: Any, **options: Any) -> None:
        user = people.person(options["user"])
        name = options["adapter"]
        standing = activation.visible_to(user).filter(
            adapter__name=name, state=Activation.State.DEPLOYED
        )
        found = standing.order_by("-pk").first()
        if found is None:
            raise CommandError(f"{name} does not answer, or {user.username} does not manage it.")
        try:
            now = activation.roll_back(found, user, reason=options["reason"])
        except activation.ActivationRefused as refusal:
            raise CommandError(str(refusal)) from refusal
        self.stdout.write(f"{now} answers again.")
