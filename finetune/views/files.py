"""Send a file that is made while it is sent."""

from collections.abc import AsyncIterator, Iterator

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, StreamingHttpResponse
from django.utils.http import content_disposition_header

from kb.database import in_database
from kb.downloads import HEADERS


def send(
    request: HttpRequest, pieces: Iterator[bytes], name: str, media_type: str
) -> StreamingHttpResponse:
    """Answer with a file to be saved as `name`; each piece is made when the one before is away."""
    # Django reads a plain iterator to its end, into memory, before an async server sends it.
    is_async = isinstance(request, ASGIRequest)
    response = StreamingHttpResponse(_one_by_one(pieces) if is_async else pieces)
    for header, value in HEADERS.items():
        response[header] = value
    response["Content-Type"] = media_type
    response["Content-Disposition"] = content_disposition_header(True, name) or "attachment"
    return response


async def _one_by_one(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    while (piece := await in_database(next, pieces, None)) is not None:
        yield piece
