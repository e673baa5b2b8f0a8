"""Print the chat template that adapters learn, for servers that are given one."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from finetune import chat_templates


class Command(BaseCommand):
    help = "Print a base model's chat template with the day of the training, for vLLM."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("folder", type=Path, help="of the base model")

    def handle(self, *args: Any, **options: Any) -> None:
        template = chat_templates.template_of(chat_templates.files_in(options["folder"]))
        if template is None:
            raise CommandError(f"There is no chat template in {options['folder']}.")
        self.stdout.write(template, ending="")
