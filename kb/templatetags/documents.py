"""Words for what a worker does with a document."""

from django import template
from django.utils.translation import gettext_lazy as _

register = template.Library()

STAGES = {
    "reading": _("Reading"),
    "embedding": _("Embedding"),
    "publishing": _("Publishing"),
}


@register.filter
def stage(name: str) -> str:
    """Name the stage of a job for people; a job without one has just been claimed."""
    return str(STAGES.get(name, STAGES["reading"]))
