"""Whatever is sent, the answer is one that the OpenAPI document promises, and never a fault of ours.

Values and places come from the document itself, so that a new field is tried the day it is added.
"""

from typing import Any

import pytest
from pytest_django import Settings

from finetune.models import InstructionPair, PairImport
from kb.models import Collection, Conversation, Document, Message
from tests.conftest import tried
from tests.kb.api.client import ApiClient, document
from tests.kb.api.test_permissions import BODIES, OPERATIONS, Operation, walk

JSON = "application/json"
HUGE = 10**400
# None of them is right for any field but free text, and none of them has letters that are words.
BODY_VALUES: list[Any] = [
    None, True, -1, 0, 1.5, 2**31, 2**63, HUGE, "", " ", "\x00", "a\x00b", "\ud800", "x" * 70_000,
    "2026-13-45", "0001-01-01", "9999-12-31T23:59:59+14:00", [], [None], [[]], ["\x00"], [HUGE],
    ["x"] * 5_000, {}, {"": ""}, {"since": "9999-12-31", "tags": ["\x00"]},
]  # fmt: skip
QUERY_VALUES = [
    "", " ", "\x00", "-1", "0", "1.5", "1e5", "²", "٣", "9" * 25, "9" * 5_000, "null", "[]",
    "0001-01-01", "9999-12-31", "9999-12-31T23:59:59+14:00", "'; DROP TABLE kb_chunk; --", "%", "\\",
    "x" * 3_000, "\U0001f9ca",
]  # fmt: skip


@pytest.fixture(autouse=True)
def nobody_is_slowed_down(settings: Settings) -> None:
    settings.RATE_LIMITS = dict.fromkeys(settings.RATE_LIMITS, 1_000_000)


def fields_of(method: str, path: str) -> list[str]:
    operation = document()["paths"]["/api/v1/" + path][method]
    content = operation.get("requestBody", {}).get("content", {})
    names: list[str] = []
    for media in content.values():
        name = media["schema"].get("$ref", "").rpartition("/")[2]
        names += document()["components"]["schemas"].get(name, {}).get("properties", {})
    return names


def parameters_of(method: str, path: str) -> list[str]:
    operation = document()["paths"]["/api/v1/" + path][method]
    return [p["name"] for p in operation.get("parameters", []) if p["in"] == "query"]


@pytest.fixture
def ids(
    collection: Collection,
    document: Document,
    conversation: Conversation,
    answer: Message,
    pair_import: PairImport,
    instruction_pair: InstructionPair,
    feedback_ids: dict[str, int],
) -> dict[str, int]:
    return {
        "collections": collection.pk,
        "documents": document.pk,
        "passages": document.chunks.get().pk,
        "jobs": document.newest_version.job_id,
        "conversations": conversation.pk,
        "messages": answer.pk,
        "datasets": pair_import.dataset_id,
        "imports": pair_import.pk,
        "pairs": instruction_pair.pk,
        **feedback_ids,
        "tokens": 1,
        "member_id": collection.memberships.get(user__username="bob").pk,
    }


def address_of(path: str, ids: dict[str, int]) -> str:
    pk = ids.get(path.split("/")[0], 1)
    return "/api/v1/" + path.format(id=pk, member_id=ids["member_id"])


IN_JSON = [
    (method, path)
    for method, path in OPERATIONS
    if JSON
    in document()["paths"]["/api/v1/" + path][method].get("requestBody", {}).get("content", {})
]


@walk(IN_JSON)
def test_no_value_in_a_body_breaks_an_endpoint(
    operations: list[Operation],
    ids: dict[str, int],
    as_alice: ApiClient,
    subtests: pytest.Subtests,
) -> None:
    as_alice.raise_request_exception = as_alice.checks_bodies = False
    for method, path in operations:
        with tried(subtests, f"{method} {path}"):
            right = BODIES.get((method, path), {})
            broken = []
            for field in fields_of(method, path):
                for value in BODY_VALUES:
                    response = getattr(as_alice, method)(
                        address_of(path, ids), {**right, field: value}, content_type=JSON
                    )
                    if response.status_code >= 500:
                        broken.append((field, value))

            assert not broken


@walk([o for o in OPERATIONS if parameters_of(*o)])
def test_no_value_in_an_address_breaks_an_endpoint(
    operations: list[Operation],
    ids: dict[str, int],
    as_alice: ApiClient,
    subtests: pytest.Subtests,
) -> None:
    as_alice.raise_request_exception = False
    for method, path in operations:
        with tried(subtests, f"{method} {path}"):
            needed = {"query": "ice"} if path == "search/" else {}
            broken = []
            for name in parameters_of(method, path):
                for value in QUERY_VALUES:
                    response = getattr(as_alice, method)(
                        address_of(path, ids), {**needed, name: value}
                    )
                    if response.status_code >= 500:
                        broken.append((name, value))

            assert not broken


@pytest.mark.parametrize(
    "name", [".", "..", "/", "a\x00.txt", "\u202egnp.txt", "x" * 900, "CON", "ä" * 255]
)
def test_no_name_of_a_file_breaks_an_upload(
    name: str, as_alice: ApiClient, collection: Collection
) -> None:
    as_alice.raise_request_exception = False
    parts = [
        f'form-data; name="collection"\r\n\r\n{collection.pk}',
        f'form-data; name="file"; filename="{name}"\r\nContent-Type: text/plain\r\n\r\nMoss.',
    ]
    for body in (parts, [*parts, f'form-data; name="name"\r\n\r\n{name}']):
        sent = "".join(f"--cut\r\nContent-Disposition: {part}\r\n" for part in body) + "--cut--\r\n"
        response = as_alice.post(
            "/api/v1/documents/", sent, content_type="multipart/form-data; boundary=cut"
        )
        assert response.status_code in (200, 201, 400)


@walk([o for o in OPERATIONS if o[0] == "get"])
def test_what_can_be_read_can_be_asked_for_without_its_body(
    operations: list[Operation], ids: dict[str, int], as_alice: ApiClient, subtests: pytest.Subtests
) -> None:
    for method, path in operations:
        with tried(subtests, f"{method} {path}"):
            query = {"query": "ice"} if path == "search/" else {}
            expected = as_alice.get(address_of(path, ids), query).status_code

            response = as_alice.head(address_of(path, ids), query)

            assert response.status_code == expected
            assert response.streaming or not response.content
