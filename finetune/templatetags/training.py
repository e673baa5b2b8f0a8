"""How pages of training write numbers and texts."""

import json
from typing import Any

from django import template
from django.utils.safestring import SafeString

from kb.rendering import render_answer

register = template.Library()


@register.filter
def duration(seconds: float) -> str:
    """Say a stretch of time in its two largest units: 3 h 5 min, 40 min, 42 s."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        minutes, seconds = divmod(whole, 60)
        return f"{minutes} min" + (f" {seconds} s" if seconds else "")
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours:,} h" + (f" {minutes} min" if minutes else "")


@register.filter
def energy(watt_hours: float) -> str:
    """Say an amount of energy: 12.5 Wh, 6.1 kWh."""
    if watt_hours < 1000:
        return f"{watt_hours:.1f} Wh"
    return f"{watt_hours / 1000:,.1f} kWh"


@register.filter
def as_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


@register.filter
def setting(value: Any) -> str:
    """Write a setting as a file of settings does."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


@register.filter
def markdown(text: str) -> SafeString:
    return render_answer(text)
