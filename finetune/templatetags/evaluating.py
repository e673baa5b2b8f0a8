"""The section about evaluations on the page of an adapter."""

from typing import Any

from django import template

from finetune import arena, evaluation
from finetune.models import Adapter

register = template.Library()


@register.inclusion_tag("finetune/_evaluations.html", takes_context=True)
def adapter_evaluations(context: template.Context, adapter: Adapter) -> dict[str, Any]:
    """List the evaluations that the person may see, with what they may do next."""
    user = context["request"].user
    return {
        "request": context["request"],
        "csrf_token": context.get("csrf_token"),
        "adapter": adapter,
        "is_managed": Adapter.objects.managed_by(user).filter(pk=adapter.pk).exists(),
        "rows": evaluation.visible_to(user).filter(adapter=adapter).order_by("-pk"),
        "tally": arena.tally(adapter),
    }
