"""How pages of training write numbers and texts."""

import json
from typing import Any

from django import template
from django.utils.safestring import SafeString

from kb.rendering import render_answer

register = template.Library()


@register.filter
def duration(seconds: float) -> str:
    """Say a stretch of time in its two largest units: 3 h 5 min, 42 s."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


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
