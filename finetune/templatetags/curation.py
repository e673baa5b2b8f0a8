"""Words and differences on the pages of curation."""

from django import template
from django.utils.safestring import SafeString

from finetune import rendering
from finetune.models import AuditEvent, InstructionPair

register = template.Library()


@register.simple_tag
def difference(old: str, new: str) -> SafeString:
    """Draw what differs between two texts."""
    return rendering.difference(str(old), str(new))


@register.filter
def flag_label(flag: str) -> str:
    """Name a flag for people."""
    return dict(InstructionPair.Flag.choices).get(flag, flag)


@register.filter
def action_label(action: str) -> str:
    """Name a decision for people."""
    return dict(AuditEvent.Action.choices).get(action, action)


@register.filter
def percent(share: float | None) -> str:
    """Say a share as a percentage, rounded; nothing for None."""
    return "" if share is None else f"{share:.0%}"
