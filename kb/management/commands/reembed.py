"""Embed every passage with the configured model, beside the vectors there are, then switch."""

from typing import Any

from django.core.management.base import BaseCommand

from kb.backends import get_backend
from kb.models import EmbeddingSpace, Job
from workers import tasks


class Command(BaseCommand):
    help = "Fill the vectors of the configured embedding model and switch to them when done."

    def handle(self, *args: Any, **options: Any) -> None:
        space = EmbeddingSpace.objects.ensure(get_backend("EMBEDDER"))
        if space.state == EmbeddingSpace.State.ACTIVE:
            self.stdout.write(f"{space.model_name} is what searches use already.")
            return
        Job.objects.create(kind=Job.Kind.REEMBED)
        tasks.hint_workers()
        self.stdout.write(
            f"Every passage is embedded with {space.model_name} now; the jobs in the back office"
            " show how far it is. Searches go on meanwhile."
        )
