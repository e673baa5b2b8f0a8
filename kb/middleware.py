"""Headers that every page carries."""

from collections.abc import Awaitable, Callable

from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils.decorators import sync_and_async_middleware

GetResponse = Callable[[HttpRequest], HttpResponse | Awaitable[HttpResponse]]


def _protect(response: HttpResponse) -> HttpResponse:
    response.headers.setdefault("Content-Security-Policy", settings.CONTENT_SECURITY_POLICY)
    response.headers.setdefault(
        "Permissions-Policy", "camera=(), microphone=(), geolocation=(), browsing-topics=()"
    )
    return response


@sync_and_async_middleware
def content_security_policy(get_response):  # type: ignore[no-untyped-def]
    """Add the Content-Security-Policy unless the view chose a stricter one of its own."""
    if iscoroutinefunction(get_response):

        async def middleware(request: HttpRequest) -> HttpResponse:
            return _protect(await get_response(request))

        return middleware

    def sync_middleware(request: HttpRequest) -> HttpResponse:
        return _protect(get_response(request))

    return sync_middleware
