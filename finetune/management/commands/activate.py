"""Let an adapter answer."""

import time
from argparse import ArgumentParser
from typing import Any

from django.contrib.auth.models import Group
from django.core.management.base import BaseCommand, CommandError

from finetune import activation
from finetune.management import people
from finetune.models import Activation, Adapter
from workers import tasks

LOOK_EVERY_S = 0.5


class Command(BaseCommand):
    help = "Load an adapter, probe it, and let it answer; waits for a worker to do so."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("adapter", help="its name")
        parser.add_argument("--reason", required=True, help="why; kept in the log")
        parser.add_argument("--share", type=float, default=1.0, help="of conversations, 0–1")
        parser.add_argument(
            "--group", action="append", default=[], help="only for its people; may be repeated"
        )
        parser.add_argument("--override", default="", help="why although the gate says no")
        parser.add_argument("--user", help="who asks; the first administrator unless named")
        parser.add_argument("--no-wait", action="store_true", help="do not wait for the end")

    def handle(self, *args: Any, **options: Any) -> None:
        user = people.person(options["user"])
        adapter = Adapter.objects.managed_by(user).filter(name=options["adapter"]).first()
        if adapter is None:
            raise CommandError(f"{user.username} manages no adapter {options['adapter']}.")
        try:
            made = activation.request(
                adapter,
                user,
                reason=options["reason"],
                share=options["share"],
                groups=[_group(name) for name in options["group"]],
                override_reason=options["override"],
            )
        except activation.ActivationRefused as refusal:
            raise CommandError(str(refusal)) from refusal
        tasks.hint_workers()
        if made.state == Activation.State.WAITING:
            self.stdout.write(f"Activation {made.pk} waits for a second person.")
        elif not options["no_wait"]:
            self._follow(made)

    def _follow(self, made: Activation) -> None:
        said = ""
        while made.state in activation.UNDER_WAY:
            if said != made.state:
                self.stdout.write(f"{made.get_state_display()} …")
                said = made.state
            time.sleep(LOOK_EVERY_S)
            made.refresh_from_db()
        if made.state == Activation.State.FAILED:
            raise CommandError(made.error)
        self.stdout.write(f"{made.adapter.name} answers.")


def _group(name: str) -> Group:
    found = Group.objects.filter(name=name).first()
    if found is None:
        raise CommandError(f"There is no group {name}.")
    return found
