"""Words and differences on the pages of curation."""

from django import template
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

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


_SUBJECTS = {
    "activation": _("Activation"),
    "adapter": _("Adapter"),
    "dataset": _("Data set"),
    "datasetsnapshot": _("Snapshot"),
    "drafting": _("Drafting run"),
    "duplicatecluster": _("Duplicates"),
    "evaluation": _("Evaluation"),
    "instructionpair": _("Pair"),
    "knowledgegap": _("Knowledge gap"),
    "pairimport": _("Import"),
    "trainingrun": _("Run"),
    "triageitem": _("Rated answer"),
}


@register.filter
def subject_label(kind: str) -> str:
    """Name for people what a decision is about."""
    return str(_SUBJECTS.get(kind, kind.capitalize()))


@register.filter
def percent(share: float | None) -> str:
    """Say a share as a percentage, rounded; nothing for None."""
    return "" if share is None else f"{share:.0%}"
