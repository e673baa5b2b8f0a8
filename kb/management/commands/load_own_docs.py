"""Make the project's own documentation the first collection, so that there is something to ask."""

from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand

from kb.models import User


class Command(BaseCommand):
    help = "Queue docs/ as the collection “Tacit handbook”; unchanged files stay as they are."

    def handle(self, *args: Any, **options: Any) -> None:
        owner = User.objects.filter(is_superuser=True).order_by("pk").first()
        call_command(
            "import_folder",
            settings.ROOT / "docs",
            collection="Tacit handbook",
            public=True,
            owner=owner.username if owner else None,
            no_wait=True,
            verbosity=0,
        )
