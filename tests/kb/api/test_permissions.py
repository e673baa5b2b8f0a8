"""Who may what, over every operation of the resolver.

A new operation fails here until BODIES and WRITES know it.
"""

from collections.abc import Sequence
from datetime import timedelta

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import resolve
from django.utils import timezone
from pytest_django import Settings

from finetune.models import InstructionPair, PairImport
from kb.api.base import AsyncApiView
from kb.models import ApiToken, Collection, Conversation, Document, Message, User
from tests.conftest import tried
from tests.kb.api.client import ApiClient, document
from tests.kb.api.conftest import client_of, secret_of

MISSING = 987_654_321
JSON = "application/json"
Operation = tuple[str, str]  # method and path
# A body that would be taken, by method and the end of the path.
BODIES = {
    ("patch", "collections/{id}/"): {"description": "changed"},
    ("post", "collections/{id}/members/"): {"username": "charlie", "role": "reader"},
    ("patch", "collections/{id}/members/{member_id}/"): {"role": "curator"},
    ("patch", "documents/{id}/"): {"title": "changed"},
    ("patch", "conversations/{id}/"): {"title": "changed"},
    ("post", "conversations/{id}/messages/"): {"text": "And then?"},
    ("post", "messages/{id}/edit/"): {"text": "When exactly?"},
    ("post", "messages/{id}/regenerate/"): {},
    ("put", "messages/{id}/rating/"): {"value": 1},
    ("patch", "imports/{id}/"): {"format": "alpaca"},
    ("patch", "datasets/{id}/"): {"description": "changed"},
    ("post", "datasets/{id}/pairs/"): {"instruction": "When?", "output": "In August."},
    ("patch", "pairs/{id}/"): {"output": "In July."},
    ("post", "pairs/{id}/approve/"): {},
    ("post", "pairs/{id}/reject/"): {"reason": "wrong"},
    ("post", "triage/{id}/sort/"): {"category": "dismiss"},
    ("patch", "gaps/{id}/"): {"note": "changed"},
    ("post", "gaps/{id}/merge/"): {"into": 1},
    ("post", "retrieval-questions/"): {"question": "When?", "passage": 1},
    ("post", "datasets/{id}/draftings/"): {},
    ("post", "datasets/{id}/snapshots/"): {},
    ("post", "duplicates/{id}/decision/"): {"decision": "kept_all"},
    ("post", "adapters/{id}/activations/"): {"reason": "Better."},
    ("post", "activations/{id}/roll-back/"): {},
    ("post", "adapters/{id}/unload/"): {"reason": "Memory."},
    ("put", "datasets/{id}/retrain-rule/"): {"new_pairs": 1},
    ("post", "arena-votes/{id}/"): {"verdict": "left"},
    ("post", "erasures/"): {"kind": "document", "name": "7"},
}
# What is sent as a form.
FILES = {
    ("post", "documents/{id}/versions/"): ("notes.md", b"New words."),
    ("post", "datasets/{id}/imports/"): ("pairs.jsonl", b'{"instruction": "a", "output": "b"}'),
}
OPERATIONS = [
    (method, path.removeprefix("/api/v1/"))
    for path, operations in document()["paths"].items()
    for method in operations
]
# Asynchronous views look from a thread of their own, which sees only what is committed; that costs
# each test half a second, so the others do without and share one world.
committed = pytest.mark.django_db(transaction=True)


def is_async(path: str) -> bool:
    view = resolve("/api/v1/" + path.format(id=1, member_id=1)).func
    return issubclass(view.cls, AsyncApiView)  # type: ignore[attr-defined]


def walk(operations: Sequence[Operation]) -> pytest.MarkDecorator:
    """Give a test the operations: all whose views are synchronous at once, the others one by one."""
    alone = [operation for operation in operations if is_async(operation[1])]
    return pytest.mark.parametrize(
        "operations",
        [
            pytest.param([o for o in operations if o not in alone], id="synchronous"),
            *(pytest.param([o], id=" ".join(o), marks=committed) for o in alone),
        ],
    )


WITH_ID = [(method, path) for method, path in OPERATIONS if "{id}" in path]
# These take another snapshot, or one that was really frozen (tests/finetune/api/test_cleaning.py).
NEEDS_MORE = [("get", "snapshots/{id}/difference/"), ("get", "snapshots/{id}/reproduction/")]
# What a reader sees but may not do.
OWNERS_ONLY = [
    (method, path)
    for method, path in WITH_ID
    if (path.startswith("collections/") and (method != "get" or "members" in path))
    or (path.startswith("documents/") and method != "get")
]


@pytest.fixture(autouse=True)
def nobody_is_slowed_down(settings: Settings) -> None:
    """Let one address ask more in a minute than it may: a whole walk over all operations."""
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "api": 1_000_000}


@pytest.fixture
def ids(
    collection: Collection,
    document: Document,
    conversation: Conversation,
    answer: Message,
    pair_import: PairImport,
    instruction_pair: InstructionPair,
    feedback_ids: dict[str, int],
    training_ids: dict[str, int],
) -> dict[str, int]:
    """The id of a row of alice's for each kind of path."""
    token, _ = ApiToken.objects.issue(
        collection.created_by,
        name="old",
        scopes=["read"],
        expires_at=timezone.now() + timedelta(days=1),
    )
    return {
        "collections": collection.pk,
        "documents": document.pk,
        "passages": document.chunks.first().pk,
        "jobs": document.newest_version.job_id,
        "conversations": conversation.pk,
        "messages": answer.pk,
        "datasets": pair_import.dataset_id,
        "imports": pair_import.pk,
        "pairs": instruction_pair.pk,
        **feedback_ids,
        **training_ids,
        "tokens": token.pk,
        "member": collection.memberships.get(user__username="bob").pk,
    }


def send(client: ApiClient, method: str, path: str, pk: int, member_id: int = 1):
    body = BODIES.get((method, path))
    address = "/api/v1/" + path.format(id=pk, member_id=member_id)
    if (method, path) in FILES:
        return client.post(address, {"file": SimpleUploadedFile(*FILES[method, path])})
    if body is None:
        return getattr(client, method)(address)
    return getattr(client, method)(address, body, content_type=JSON)


@walk(WITH_ID)
def test_a_foreign_id_answers_exactly_like_a_missing_one(
    operations: list[Operation],
    ids: dict[str, int],
    as_charlie: ApiClient,
    subtests: pytest.Subtests,
) -> None:
    for method, path in operations:
        with tried(subtests, f"{method} {path}"):
            foreign = send(as_charlie, method, path, ids[path.split("/")[0]], ids["member"])
            missing = send(as_charlie, method, path, MISSING, MISSING)

            assert foreign.status_code == 404
            assert foreign.content == missing.content
            assert {k: v for k, v in foreign.items() if k != "Date"} == dict(missing.items())


@walk([o for o in WITH_ID if o not in NEEDS_MORE])
def test_an_owner_is_not_refused(
    operations: list[Operation],
    ids: dict[str, int],
    alice: User,
    charlie: User,
    subtests: pytest.Subtests,
) -> None:
    for method, path in operations:
        with tried(subtests, f"{method} {path}"):
            response = send(client_of(alice), method, path, ids[path.split("/")[0]], ids["member"])

            assert response.status_code in (200, 201, 202, 204, 409)


@walk(OWNERS_ONLY)
def test_a_reader_is_told_that_this_is_not_theirs_to_do(
    operations: list[Operation], ids: dict[str, int], as_bob: ApiClient, subtests: pytest.Subtests
) -> None:
    for method, path in operations:
        with tried(subtests, f"{method} {path}"):
            response = send(as_bob, method, path, ids[path.split("/")[0]], ids["member"])

            assert response.status_code == 403
            assert response.json()["code"] == "permission_denied"


@walk(OPERATIONS)
def test_nobody_comes_in_without_a_token_or_session(
    operations: list[Operation], ids: dict[str, int], subtests: pytest.Subtests
) -> None:
    for method, path in operations:
        with tried(subtests, f"{method} {path}"):
            response = send(
                ApiClient(), method, path, ids.get(path.split("/")[0], 1), ids["member"]
            )

            assert response.status_code == 401
            assert response.json()["code"] == "not_authenticated"
            assert response["WWW-Authenticate"].startswith("Bearer")


def spoil_expiry(token: ApiToken) -> None:
    ApiToken.objects.filter(pk=token.pk).update(expires_at=timezone.now() - timedelta(seconds=1))


def spoil_by_revoking(token: ApiToken) -> None:
    ApiToken.objects.filter(pk=token.pk).update(revoked_at=timezone.now())


def spoil_the_person(token: ApiToken) -> None:
    User.objects.filter(pk=token.user_id).update(is_active=False)


@committed
@pytest.mark.parametrize("header", ["Authorization", "X-API-Key"])
@pytest.mark.parametrize("spoil", [spoil_expiry, spoil_by_revoking, spoil_the_person])
def test_a_token_that_no_longer_holds_opens_nothing(spoil, header: str, alice: User) -> None:
    secret = secret_of(alice)
    client = ApiClient(
        headers={header: f"Bearer {secret}" if header == "Authorization" else secret}
    )
    assert client.get("/api/v1/me/").status_code == 200

    spoil(ApiToken.objects.get())

    for method, path in OPERATIONS:
        response = send(client, method, path, 1)
        assert (response.status_code, response.json()["code"]) == (401, "invalid_token")


@walk([o for o in OPERATIONS if o[1] != "me/"])
def test_a_token_without_the_scope_is_refused_before_anything_is_looked_up(
    operations: list[Operation], ids: dict[str, int], alice: User, subtests: pytest.Subtests
) -> None:
    for method, path in operations:
        with tried(subtests, f"{method} {path}"):
            operation = document()["paths"]["/api/v1/" + path][method]
            named = operation["description"].rpartition("Token scope: ")[2]
            others = [s for s in ApiToken.Scope.values if f"`{s}`" not in named]
            pk = ids[path.split("/")[0]] if "{" in path else 1

            response = send(client_of(alice, *others), method, path, pk)

            assert (response.status_code, response.json()["code"]) == (403, "missing_scope")


@pytest.mark.parametrize("path", [path for m, path in OPERATIONS if m == "get" and "{" not in path])
def test_a_list_shows_a_stranger_nothing_of_others(
    path: str, ids: dict[str, int], as_charlie: ApiClient
) -> None:
    query = {"query": "glacier"} if path == "search/" else {}
    response = as_charlie.get("/api/v1/" + path, query)

    assert response.status_code == 200
    text = response.content.decode()
    assert "lacier" not in text
    assert "alice" not in text
    assert "Field notes" not in text
    assert response.json().get("count", 0) == (1 if path == "tokens/" else 0)


@committed
def test_ids_in_bodies_tell_nothing_either(
    ids: dict[str, int], as_charlie: ApiClient, charlie: User
) -> None:
    own = Conversation.objects.create(user=charlie)

    def answers(send_id) -> None:
        foreign, missing = send_id("foreign"), send_id("missing")
        assert 400 <= foreign.status_code < 500
        assert foreign.status_code == missing.status_code
        assert foreign.content == missing.content

    def pick(kind: str, which: str) -> int:
        return ids[kind] if which == "foreign" else MISSING

    answers(
        lambda which: as_charlie.post(
            "/api/v1/documents/",
            {"collection": pick("collections", which), "file": SimpleUploadedFile("a.txt", b"a")},
        )
    )
    answers(
        lambda which: as_charlie.post(
            f"/api/v1/conversations/{own.pk}/messages/",
            {"text": "So?", "parent": pick("messages", which)},
            content_type=JSON,
        )
    )
    answers(
        lambda which: as_charlie.post(
            "/api/v1/conversations/",
            {"collections": [pick("collections", which)]},
            content_type=JSON,
        )
    )
    answers(
        lambda which: as_charlie.get(
            f"/api/v1/conversations/{own.pk}/", {"leaf": pick("messages", which)}
        )
    )
