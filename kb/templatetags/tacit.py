"""Small pieces of pages: icons, times, sizes, and the query string of a link."""

from datetime import datetime

from django import template
from django.contrib.humanize.templatetags.humanize import naturaltime
from django.http import QueryDict
from django.template.defaultfilters import date as format_date
from django.templatetags.static import static
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext, ngettext

register = template.Library()


@register.simple_tag
def icon(name: str, size: str = "") -> SafeString:
    """Draw an icon of kb/icons.svg; the words beside it carry the meaning. `size`: "small"."""
    return format_html(
        '<svg class="icon {}" aria-hidden="true" focusable="false"><use href="{}#{}"/></svg>',
        size,
        static("kb/icons.svg"),
        name,
    )


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
    """Say a size in MB, or in KB below a tenth of one."""
    if size_bytes < 100_000:
        return gettext("%(size)s KB") % {"size": max(1, round(size_bytes / 1000))}
    return gettext("%(size)s MB") % {"size": f"{size_bytes / 1_000_000:,.1f}"}


@register.filter
def pages(first: int, last: int) -> str:
    """Say "page 3" or "pages 3–4"."""
    if first == last:
        return gettext("page %(page)s") % {"page": first}
    return ngettext("pages %(first)s–%(last)s", "pages %(first)s–%(last)s", 2) % {
        "first": first,
        "last": last,
    }


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
