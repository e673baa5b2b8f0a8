"""The real ASGI application takes no more of a body than it needs, however it is sent."""

import asyncio
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.test import AsyncClient
from django.utils import timezone
from pytest_django.fixtures import Settings

from config.asgi import application
from kb.models import ApiToken, Document, User

pytestmark = pytest.mark.django_db(transaction=True)
MB = 2**20
FORM = b"multipart/form-data; boundary=cut"
# More than any test takes: without a limit all of it would lie on the disk.
ENDLESS = 40


class Sender:
    """Sends chunks of a megabyte, as a server hands them on, and hears the answer."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self.chunks = iter(chunks)
        self.sent = 0
        self.ended = False
        self.status = 0
        self.body = b""

    async def receive(self) -> dict[str, Any]:
        if self.ended:
            await asyncio.Event().wait()  # the connection stays open
        chunk = next(self.chunks, None)
        if chunk is None:
            self.ended = True
            return {"type": "http.request", "body": b"", "more_body": False}
        self.sent += 1
        return {"type": "http.request", "body": chunk, "more_body": True}

    async def hear(self, message: Any) -> None:
        self.status = message.get("status", self.status)
        self.body += message.get("body", b"")


async def send(
    path: str, *headers: tuple[bytes, bytes], chunks: Iterable[bytes] = (), kind: bytes = FORM
) -> Sender:
    sender = Sender(chunks)
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"content-type", kind), *headers],
        "client": ("127.0.0.1", 4000),
        "server": ("localhost", 8000),
    }
    await application(scope, sender.receive, sender.hear)  # type: ignore[arg-type]
    return sender


def megabytes(number: int) -> list[bytes]:
    return [b"x" * MB] * number


async def session_of(user: User, async_client: AsyncClient) -> tuple[bytes, bytes]:
    await async_client.aforce_login(user)
    return b"cookie", f"sessionid={async_client.cookies['sessionid'].value}".encode()


@sync_to_async
def token_of(user: User) -> tuple[bytes, bytes]:
    in_a_day = timezone.now() + timedelta(days=1)
    _, secret = ApiToken.objects.issue(user, name="t", scopes=["write"], expires_at=in_a_day)
    return b"authorization", f"Bearer {secret}".encode()


@pytest.mark.parametrize("path", ["/", "/sign-in/", "/documents/add/", "/api/v1/documents/"])
async def test_who_has_not_signed_in_cannot_fill_the_disk(path: str) -> None:
    answer = await send(path, chunks=megabytes(ENDLESS))

    assert answer.status == 413
    assert answer.sent == 6
    assert b"larger than 5 MB" in answer.body


@pytest.mark.parametrize(
    "header",
    [
        (b"cookie", b"sessionid=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
        (b"cookie", b'sessionid="\\000aaaaaaaaaaaa"'),
        (b"cookie", b"sessionid=\xff"),
        (b"authorization", b"Bearer tacit_nobody"),
    ],
)
async def test_a_forged_session_or_token_opens_nothing(header: tuple[bytes, bytes]) -> None:
    answer = await send("/documents/add/", header, chunks=megabytes(ENDLESS))

    assert (answer.status, answer.sent) == (413, 6)


async def test_a_length_that_is_too_much_is_refused_before_a_byte_is_read() -> None:
    answer = await send("/", (b"content-length", b"9" * 12), chunks=megabytes(ENDLESS))

    assert (answer.status, answer.sent) == (413, 0)


async def test_a_program_reads_the_refusal_as_a_problem(alice: User) -> None:
    answer = await send("/api/v1/search/", chunks=megabytes(ENDLESS), kind=b"application/json")

    assert answer.status == 413
    assert b'"code": "too_large"' in answer.body


async def test_an_upload_of_somebody_may_be_as_large_as_a_file(
    alice: User, async_client: AsyncClient, settings: Settings
) -> None:
    settings.MAX_UPLOAD_BYTES = 10 * MB
    for who in (await session_of(alice, async_client), await token_of(alice)):
        fits = await send("/api/v1/documents/", who, chunks=megabytes(14))
        assert (fits.status, fits.sent) == (403 if who[0] == b"cookie" else 400, 14)

        too_much = await send("/api/v1/documents/", who, chunks=megabytes(ENDLESS))
        assert (too_much.status, too_much.sent) == (413, 16)


async def test_what_is_no_form_with_files_stays_small_for_everybody(alice: User) -> None:
    token = await token_of(alice)

    answer = await send(
        "/api/v1/search/", token, chunks=megabytes(ENDLESS), kind=b"application/json"
    )

    assert (answer.status, answer.sent) == (413, 6)


async def test_a_file_of_seven_megabytes_arrives(
    alice: User, collection: Any, settings: Settings
) -> None:
    head = (
        f'--cut\r\nContent-Disposition: form-data; name="collection"\r\n\r\n{collection.pk}\r\n'
        '--cut\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
    )
    chunks = [head.encode(), *megabytes(7), b"\r\n--cut--\r\n"]

    length = (b"content-length", str(sum(map(len, chunks))).encode())

    answer = await send("/api/v1/documents/", await token_of(alice), length, chunks=chunks)

    assert answer.status == 201
    sizes = Document.objects.values_list("versions__size_bytes", flat=True)
    assert await sync_to_async(list)(sizes) == [7 * MB]
