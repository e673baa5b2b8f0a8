"""Small pieces of pages: icons, times, sizes, and the query string of a link."""

from collections.abc import Sequence
from datetime import datetime
from functools import cache

from django import template
from django.contrib.humanize.templatetags.humanize import naturaltime
from django.http import QueryDict
from django.template.defaultfilters import date as format_date
from django.templatetags.static import static
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext, gettext_lazy

register = template.Library()


@register.simple_tag
def icon(name: str, size: str = "") -> SafeString:
    """Draw an icon of kb/icons.svg; the words beside it carry the meaning. `size`: "small"."""
    return format_html(
        '<svg class="icon {}" aria-hidden="true" focusable="false"><use href="{}#{}"/></svg>',
        size,
        _sprite(),
        name,
    )


@cache
def _sprite() -> str:
    """Where the icons lie; pages show dozens, and static() takes longer than the rest of one."""
    return static("kb/icons.svg")


@register.filter
def ago(moment: datetime | None) -> str:
    """Say how long ago, with the exact time on hover."""
    if moment is None:
        return ""
    local = timezone.localtime(moment)
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        local.isoformat(),
        format_date(local, "j F Y, H:i"),
        naturaltime(moment),
    )


@register.filter
def file_size(size_bytes: int) -> str:
    """Say a size in MB, in KB below a tenth of one, and in GB from a thousand."""
    if size_bytes < 100_000:
        return gettext("%(size)s KB") % {"size": max(1, round(size_bytes / 1000))}
    size = size_bytes / 1_000_000
    if size >= 1000:
        return gettext("%(size)s GB") % {"size": f"{size / 1000:,.1f}"}
    return gettext("%(size)s MB") % {"size": f"{size:,.1f}" if size < 100 else f"{size:,.0f}"}


# What a page is called in the formats that have some; the others are one long page.
_PAGE_WORDS = {
    "application/pdf": gettext_lazy("page"),
    "application/epub+zip": gettext_lazy("chapter"),
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": gettext_lazy(
        "slide"
    ),
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": gettext_lazy("sheet"),
}


def page_range(first: int, last: int, media_type: str) -> str:
    """Say "page 3", "slides 3–4", or nothing for a format that has no pages."""
    word = _PAGE_WORDS.get(media_type) or (gettext("page") if last > 1 else "")
    if not word:
        return ""
    return f"{word} {first}" if first == last else f"{word} {first}–{last}"


@register.simple_tag
def place(
    title: str, heading_path: Sequence[str], first: int, last: int, media_type: str = ""
) -> SafeString:
    """Say where in a document a passage stands; a first heading that repeats the title is left out."""
    path = list(heading_path)
    if path and path[0].strip().casefold() == title.strip().casefold():
        path = path[1:]
    words = page_range(first, last, media_type)
    return format_html_join(
        mark_safe(' <span class="dot" aria-hidden="true">·</span> '),
        "{}",
        ((part,) for part in (" › ".join(path), words) if part),
    )


@register.simple_tag(takes_context=True)
def query(context: template.Context, **changes: object) -> str:
    """Give the page's query string with some values changed; None or "" takes one out."""
    values: QueryDict = context["request"].GET.copy()
    for name, value in changes.items():
        if value is None or value == "":
            values.pop(name, None)
        else:
            values[name] = str(value)
    return f"?{values.urlencode()}"


@register.filter
def unlocalized(number: float) -> str:
    """Write a length for SVG: a point, whatever the language, and no more than two digits."""
    return f"{number:.2f}"


@register.filter
def minus(number: float, other: float) -> str:
    return unlocalized(number - other)
