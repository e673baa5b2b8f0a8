"""Handing out files, stored or made on the way, so that no browser ever runs them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from django.core.handlers.asgi import ASGIRequest
from django.http import Http404, HttpRequest, StreamingHttpResponse
from django.utils.http import content_disposition_header

from kb.database import in_database
from kb.files import COPY_BYTES
from kb.models import DocumentVersion

# Uploaded files are strangers' files on our own origin: never shown, never sniffed, no rights.
HEADERS = {
    "Content-Type": "application/octet-stream",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cache-Control": "private, no-store",
}


def download(request: HttpRequest, version: DocumentVersion, name: str) -> StreamingHttpResponse:
    """Answer with a version's file, to be saved as `name`. The caller has checked who asks."""
    path = Path(version.file.path)
    if not path.is_file():
        raise Http404
    # Django reads a plain iterator to its end, into memory, before an async server sends it.
    is_async = isinstance(request, ASGIRequest)
    response = StreamingHttpResponse(_chunks_async(path) if is_async else _chunks(path))
    for header, value in HEADERS.items():
        response[header] = value
    response["Content-Length"] = str(version.size_bytes)
    response["Content-Disposition"] = content_disposition_header(True, name) or "attachment"
    return response


def send(
    request: HttpRequest, pieces: Iterator[bytes], name: str, media_type: str
) -> StreamingHttpResponse:
    """Answer with a file to be saved as `name`; each piece is made when the one before is away."""
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


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(COPY_BYTES):
            yield chunk


async def _chunks_async(path: Path) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(path.open, "rb") as file:
        while chunk := await asyncio.to_thread(file.read, COPY_BYTES):
            yield chunk
