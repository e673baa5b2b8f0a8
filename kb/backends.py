"""The engines that settings choose, named as Django names storages: BACKEND and OPTIONS."""

from functools import cache
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string


@cache
def get_backend(setting_name: str) -> Any:
    """Build the backend a setting names; one object per process."""
    entry = getattr(settings, setting_name)
    return import_string(entry["BACKEND"])(**entry.get("OPTIONS", {}))
