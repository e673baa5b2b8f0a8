"""Intervals, and the section about activations on the page of an adapter."""

from typing import Any

from django import template
from django.conf import settings
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from finetune import activation
from finetune.intervals import Share
from finetune.models import Activation, Adapter

register = template.Library()


@register.simple_tag
def interval(share: Share) -> SafeString:
    """Draw a share as a mark within its interval, from 0 to 1, with the numbers in words."""
    if not share.total:
        return format_html('<span class="muted">{}</span>', _("none yet"))
    words = _("%(share)s of %(total)s, %(low)s–%(high)s") % {
        "share": f"{share.value:.0%}", "total": f"{share.total:,}",
        "low": f"{share.low:.0%}", "high": f"{share.high:.0%}",
    }  # fmt: skip
    return format_html(
        '<span class="interval"><svg viewBox="0 0 100 12" preserveAspectRatio="none"'
        ' aria-hidden="true"><rect class="scale" x="0" y="5" width="100" height="2"/>'
        '<rect class="range" x="{}" y="4" width="{}" height="4"/>'
        '<rect class="mark" x="{}" y="1" width="1.5" height="10"/></svg>'
        '<span class="number">{}</span></span>',
        f"{100 * share.low:.1f}",
        f"{max(1.0, 100 * share.spread):.1f}",
        f"{min(98.5, 100 * share.value):.1f}",
        words,
    )


@register.inclusion_tag("finetune/_adapter_activations.html", takes_context=True)
def adapter_activations(context: template.Context, adapter: Adapter) -> dict[str, Any]:
    """Show where the adapter is on its way to the readers, to the people who manage it."""
    user = context["request"].user
    is_managed = Adapter.objects.managed_by(user).filter(pk=adapter.pk).exists()
    rows = activation.visible_to(user).filter(adapter=adapter).order_by("-pk")
    return {
        "request": context["request"],
        "csrf_token": context.get("csrf_token"),
        "adapter": adapter,
        "is_managed": is_managed,
        "rows": rows,
        "under_way": rows.filter(state__in=activation.UNDER_WAY).first(),
        "standing": rows.filter(state=Activation.State.DEPLOYED).first(),
        "against": activation.gate(adapter),
        "unfit": activation.unfit(adapter),
        "speaks": adapter.name in activation.speaking_names(),
        "server": activation.SERVER_NAMES[settings.MODEL_SERVER_KIND],
    }
