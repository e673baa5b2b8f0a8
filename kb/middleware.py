"""Headers that every page carries, and what no page takes."""

from collections.abc import Awaitable, Callable

from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.core.exceptions import BadRequest
from django.http import HttpRequest, HttpResponse, QueryDict
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


@sync_and_async_middleware
def refuse_nul(get_response):  # type: ignore[no-untyped-def]
    """Answer 400 to a page's query or form with a NUL character, which no row can hold.

    The API names the field itself. A cookie with one is none of ours and is not looked at.
    """
    if iscoroutinefunction(get_response):

        async def middleware(request: HttpRequest) -> HttpResponse:
            _refuse_in_address(request)
            return await get_response(request)

        middleware.process_view = _refuse_in_form  # type: ignore[attr-defined]
        return middleware

    def sync_middleware(request: HttpRequest) -> HttpResponse:
        _refuse_in_address(request)
        return get_response(request)

    sync_middleware.process_view = _refuse_in_form  # type: ignore[attr-defined]
    return sync_middleware


def _refuse_in_address(request: HttpRequest) -> None:
    for name in [name for name, value in request.COOKIES.items() if "\0" in value]:
        del request.COOKIES[name]
    _refuse(request, request.GET)


def _refuse_in_form(request: HttpRequest, *_view: object) -> None:
    """Read the form where its view is known, so that what leads nowhere is not read at all."""
    if request.method == "POST" and not _is_api(request):
        _refuse(request, request.POST)


def _refuse(request: HttpRequest, fields: QueryDict) -> None:
    if not _is_api(request) and any("\0" in name + "".join(v) for name, v in fields.lists()):
        raise BadRequest("a field holds a NUL character")


def _is_api(request: HttpRequest) -> bool:
    return request.path_info.startswith("/api/")
