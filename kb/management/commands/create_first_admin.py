"""Create the first administrator, once, and print the password."""

import secrets
from typing import Any

from django.core.management.base import BaseCommand
from django.db import transaction

from kb.models import User


class Command(BaseCommand):
    help = "Create the first administrator and print the password once; does nothing later."

    def handle(self, *args: Any, **options: Any) -> None:
        with transaction.atomic():
            if User.objects.select_for_update().filter(is_superuser=True).exists():
                return
            password = secrets.token_urlsafe(12)
            User.objects.create_superuser("admin", password=password)
        self.stdout.write("The first administrator can sign in now:")
        self.stdout.write("    name      admin")
        self.stdout.write(f"    password  {password}")
        self.stdout.write("This password is shown once. Change it under your name, Account.")
