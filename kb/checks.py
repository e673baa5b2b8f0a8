"""System checks: doubtful settings, said at the start with a hint."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Tags, Warning, register


@register(Tags.security, deploy=True)
def hosts_are_named(**kwargs: Any) -> list[CheckMessage]:
    if "*" not in settings.ALLOWED_HOSTS:
        return []
    hint = "Name the hosts people type; “*” lets a forged Host header into links."
    return [Warning("ALLOWED_HOSTS accepts every host.", hint=hint, id="kb.W001")]
