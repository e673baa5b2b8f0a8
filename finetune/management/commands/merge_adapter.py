"""Merge an adapter into its base, for servers that cannot load it, once everybody may be answered."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from finetune import activation, training
from finetune.management import people
from finetune.models import Adapter, AuditEvent
from finetune.probe import ProbeError
from kb.models import User

NOT_EVERYBODY = (
    "Whoever is answered by a merged model is answered by what it learned from: {which}, which not"
    " everybody may read. Open them to everybody, or say with --everybody-may-read that only people"
    " who may read all of it will be answered by this model."
)


class Command(BaseCommand):
    help = "Write an adapter and its base as one model, test it again, and say where it lies."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="the adapter's")
        parser.add_argument("folder", type=Path, help="is written whole; must not exist")
        parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
        parser.add_argument("--user", help="who merges; the first administrator unless named")
        parser.add_argument("--override", default="", help="why although the gate says no; kept")
        parser.add_argument(
            "--everybody-may-read",
            action="store_true",
            help="whoever will be answered by it may read all that it learned from",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        user = people.person(options["user"])
        adapter = Adapter.objects.managed_by(user).filter(name=options["name"]).first()
        if adapter is None:
            raise CommandError(f"{user.username} manages no adapter {options['name']}.")
        override = options["override"].strip()
        _check_gate(adapter, override)
        if not options["everybody_may_read"]:
            _check_readers(adapter)
        try:
            from finetune import merging
        except ModuleNotFoundError as error:
            raise CommandError(f"{error.name} is missing; see docs/fine-tune.md.") from error
        base, placed = training.base_folder(adapter.run), training.adapters_folder() / adapter.name
        told = _about(adapter, user, override, asserted=options["everybody_may_read"])
        try:
            merged = merging.merge(
                base, placed, options["folder"], dtype=options["dtype"], about=told
            )
        except (merging.CannotMerge, ProbeError, OSError) as error:
            raise CommandError(str(error)) from error
        AuditEvent.objects.record(
            user, AuditEvent.Action.EXPORTED, adapter, adapter.run.snapshot.dataset.collection,
            merged=str(merged.folder), **told,
        )  # fmt: skip
        self.stdout.write(
            f"{merged.folder} answers {merged.asked} questions as the adapter did"
            f" ({merged.distance:.3f} nats apart at most)."
        )


def _check_gate(adapter: Adapter, override: str) -> None:
    if adapter.erasure_note:
        raise CommandError(adapter.erasure_note)
    if not override and (against := activation.gate(adapter)):
        raise CommandError(" ".join(against))


def _check_readers(adapter: Adapter) -> None:
    """Raise CommandError unless every collection that it learned from is open to everybody."""
    closed = list(adapter.audience.filter(is_public=False).order_by("name"))
    lost = adapter.audience_size - adapter.audience.count()
    which = [f"“{collection.name}”" for collection in closed]
    which += ["a collection that was deleted"] if lost else []
    if which:
        raise CommandError(NOT_EVERYBODY.format(which=", ".join(which)))


def _about(adapter: Adapter, user: User, override: str, *, asserted: bool) -> dict[str, Any]:
    """Say what the folder's manifest and the log keep: for whom it is, and by whose word."""
    newest, against = activation.newest_evaluation(adapter), activation.gate(adapter)
    collections = adapter.audience.order_by("pk")
    return {
        "audience": [{"id": each.pk, "name": each.name} for each in collections],
        "audience_size": adapter.audience_size,
        "everybody_may_read": asserted,
        "evaluation": newest.pk if newest else None,
        "gate": {"passed": not against, "against": against},
        "override_reason": override,
        "merged_by": user.username,
    }
