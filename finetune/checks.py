"""System checks: settings of training and evaluation that cannot work, said at the start."""

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register

from finetune import suites
from finetune.gate import InvalidRules, Rules


@register
def evaluation_can_be_read(**kwargs: Any) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    try:
        Rules.of(settings.EVALUATION)
    except InvalidRules as error:
        found.append(Error(str(error), hint="See docs/fine-tune.md.", id="finetune.E001"))
    try:
        if settings.SAFETY_SUITES:
            suites.read(Path(settings.SAFETY_SUITES))
    except suites.InvalidSuites as error:
        found.append(Error(f"SAFETY_SUITES: {error}", id="finetune.E002"))
    return found
