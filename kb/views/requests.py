"""The request a view sees once LoginRequiredMiddleware has let it through."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, resolve_url
from django_htmx.http import HttpResponseClientRedirect
from django_htmx.middleware import HtmxDetails

from kb.models import User


class PersonRequest(HttpRequest):
    """Somebody is signed in; `htmx` is true when a piece of a page is asked for."""

    user: User
    htmx: HtmxDetails


def number_in(text: str) -> int | None:
    """Read a whole number that fits into the database; None for any other text."""
    return int(text) if text.isdecimal() and len(text) < 19 else None


def go_to(request: PersonRequest, to: str, *args: object) -> HttpResponse:
    """Send the whole page somewhere, also when the form was posted from a dialog by htmx."""
    address = resolve_url(to, *args)
    return HttpResponseClientRedirect(address) if request.htmx else redirect(address)
