"""Start everything; see workers/supervisor.py."""

import argparse
from typing import Any

from django.core.management.base import BaseCommand

from workers import supervisor


class Command(BaseCommand):
    """Reached only where the settings can be read, as in `call_command` and the list of commands.

    manage.py hands `up` to the supervisor before that.
    """

    help = "Start PostgreSQL, Redis, web server, worker and sweeper; Ctrl-C stops them."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        supervisor.add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        supervisor.run(options["host"], options["port"], options["model"])
