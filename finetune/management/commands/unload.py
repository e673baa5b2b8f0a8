"""Take an adapter that answers nobody off the model server."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from finetune import activation
from finetune.management import people
from finetune.models import Adapter


class Command(BaseCommand):
    help = "Take an adapter that answers nobody off the model server; its files are kept."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("adapter", help="its name")
        parser.add_argument("--reason", default="", help="why; kept in the log")
        parser.add_argument("--user", help="who does; the first administrator unless named")

    def handle(self, *args: Any, **options: Any) -> None:
        user = people.person(options["user"])
        adapter = Adapter.objects.managed_by(user).filter(name=options["adapter"]).first()
        if adapter is None:
            raise CommandError(f"{user.username} manages no adapter {options['adapter']}.")
        try:
            activation.retire(adapter, user, reason=options["reason"])
        except activation.ActivationRefused as refusal:
            raise CommandError(str(refusal)) from refusal
        self.stdout.write(f"{adapter.name} is unloaded; its files are kept.")
