"""Every page that takes an id answers a foreign one exactly like one that does not exist.

The routes are read from kb.urls, so that a new page is tested the day it is added.
"""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.contrib.auth.models import Group
from django.http import HttpResponse
from django.test import Client
from django.urls import URLPattern, reverse
from django.utils import timezone

from kb.models import ApiToken, Chunk, Citation, Collection, Conversation, Document, Message, User
from kb.urls import urlpatterns
from tests.conftest import AddDocument, tried

MISSING = 987_654_321
# Their ids are no secret: a signed link is checked by its own token.
NOT_BY_ID = {"password_reset_confirm"}
ROUTES = [
    route for route in urlpatterns if route.pattern.converters and route.name not in NOT_BY_ID
]
TEXT = "# Glaciers\n\nThe glacier melts in late summer, and the river below it rises.\n"


@pytest.fixture
def ids(
    alice: User, bob: User, collection: Collection, add_document: AddDocument
) -> dict[str, dict[str, int]]:
    """Give the arguments of each route for what is alice's."""
    document = add_document("glaciers.md", TEXT)
    version = document.current_version
    assert version is not None
    chunk = Chunk.objects.get(version=version, position=0)
    conversation = Conversation.objects.create(user=alice, title="Glaciers")
    question = Message.objects.create(conversation=conversation, role="user", text="When?")
    answer = Message.objects.create(
        conversation=conversation, role="assistant", parent=question, text="In summer [1]."
    )
    citation = Citation.objects.create(
        message=answer, marker=1, document=document, version=version, chunk=chunk, start=0, end=9
    )
    token, _secret = ApiToken.objects.issue(
        alice, name="t", scopes=["read"], expires_at=timezone.now() + timedelta(days=1)
    )
    group = Group.objects.create(name="Hikers")
    membership = collection.memberships.get(user=bob).pk
    by_prefix: dict[str, dict[str, int]] = {
        "account": {"pk": token.pk},
        "c": {"pk": conversation.pk},
        "collections": {"pk": collection.pk, "membership_pk": membership},
        "documents": {"pk": document.pk},
        "documents/version": {"pk": version.pk, "number": 1},
        "groups": {"pk": group.pk, "person_pk": bob.pk},
        "messages": {"pk": answer.pk},
        "people": {"pk": alice.pk},
        "source/chunk": {"pk": chunk.pk},
        "source/citation": {"pk": citation.pk},
    }
    found = {}
    for route in ROUTES:
        prefix = str(route.pattern).partition("/<")[0]
        known = by_prefix.get(prefix) or by_prefix[prefix.partition("/")[0]]
        found[str(route.name)] = {name: known[name] for name in route.pattern.converters}
    return found


def ask(client: Client, method: str, route: URLPattern, arguments: dict[str, int]) -> HttpResponse:
    send: Callable[..., HttpResponse] = getattr(client, method)
    return send(reverse(str(route.name), kwargs=arguments))


def without_tokens(response: HttpResponse) -> tuple[int, bytes, dict[str, str]]:
    headers = {k: v for k, v in response.headers.items() if k not in ("Set-Cookie",)}
    return response.status_code, response.content, headers


@pytest.mark.parametrize("method", ["get", "post"])
def test_a_foreign_id_answers_exactly_like_a_missing_one(
    method: str,
    ids: dict[str, dict[str, int]],
    charlie: User,
    client: Client,
    subtests: pytest.Subtests,
) -> None:
    client.force_login(charlie)
    for route in ROUTES:
        with tried(subtests, str(route.name)):
            foreign = ids[str(route.name)]
            missing = dict.fromkeys(foreign, MISSING)

            answer = ask(client, method, route, foreign)

            assert answer.status_code in (404, 405)
            assert without_tokens(answer) == without_tokens(ask(client, method, route, missing))


def test_nobody_sees_anything_without_signing_in(
    ids: dict[str, dict[str, int]], client: Client, subtests: pytest.Subtests
) -> None:
    for route in ROUTES:
        with tried(subtests, str(route.name)):
            answer = ask(client, "get", route, ids[str(route.name)])

            assert answer.status_code == 302
            assert answer["Location"].startswith(reverse("login"))


CHANGES = [
    route
    for route in ROUTES
    if str(route.name).startswith(("document", "collections", "account", "group", "person"))
    and route.name != "collections_leave"
]


def test_a_reader_changes_nothing_and_sees_no_page_to_change_it(
    ids: dict[str, dict[str, int]],
    bob: User,
    collection: Collection,
    client: Client,
    subtests: pytest.Subtests,
) -> None:
    client.force_login(bob)
    for route in CHANGES:
        with tried(subtests, str(route.name)):
            arguments = ids[str(route.name)]

            answer = ask(client, "post", route, arguments)

            assert answer.status_code in (404, 405)
            if answer.status_code == 404:
                missing = dict.fromkeys(arguments, MISSING)
                assert without_tokens(answer) == without_tokens(ask(client, "post", route, missing))
            assert Document.objects.count() == 1
            assert collection.memberships.count() == 2


WRITING = ["document_edit", "document_replace", "document_delete", "collections_edit"]


@pytest.mark.parametrize("name", [*WRITING, "collections_delete"])
def test_a_reader_does_not_see_a_page_that_changes_things(
    name: str, ids: dict[str, dict[str, int]], bob: User, client: Client
) -> None:
    client.force_login(bob)

    assert client.get(reverse(name, kwargs=ids[name])).status_code == 404


def test_an_administrator_does_not_read_the_conversations_of_others(
    ids: dict[str, dict[str, int]], charlie: User, client: Client
) -> None:
    charlie.is_superuser = True
    charlie.save()
    client.force_login(charlie)

    for name in ("conversation", "message", "message_why"):
        assert client.get(reverse(name, kwargs=ids[name])).status_code == 404


@pytest.mark.parametrize("name", ["documents_delete", "documents_retry", "documents_tag"])
def test_a_selection_with_one_foreign_document_is_refused_as_a_whole(
    name: str, ids: dict[str, dict[str, int]], bob: User, add_document: AddDocument, client: Client
) -> None:
    own = Collection.objects.create(name="Bob's own")
    own.grant(bob, "owner")
    mine = add_document("mine.md", TEXT, to=own)
    client.force_login(bob)

    answer = client.post(
        reverse(name), {"document": [mine.pk, ids["document"]["pk"]], "tags": "seen"}
    )

    assert answer.status_code == 404
    assert Document.objects.count() == 2


def test_progress_shows_no_foreign_rows(
    ids: dict[str, dict[str, int]], charlie: User, client: Client
) -> None:
    client.force_login(charlie)

    answer = client.get(reverse("documents_progress"), {"row": ids["document"]["pk"]})

    assert b"glaciers" not in answer.content


def test_files_go_into_no_foreign_collection(
    collection: Collection, bob: User, client: Client
) -> None:
    client.force_login(bob)

    foreign = client.post(reverse("documents_add"), {"collection": collection.pk})
    missing = client.post(reverse("documents_add"), {"collection": MISSING})

    assert foreign.status_code == 404
    assert without_tokens(foreign) == without_tokens(missing)


def test_ids_beyond_all_numbers_are_just_missing(page: Client, collection: Collection) -> None:
    huge = 10**30

    assert page.get(f"/documents/{huge}/").status_code == 404
    assert page.get(f"/collections/{huge}/").status_code == 404
    assert page.get(reverse("documents_delete"), {"document": huge}).status_code == 404
    assert (
        page.get(reverse("documents_progress"), {"row": huge, "collection": huge}).status_code
        == 200
    )


@pytest.mark.parametrize("number", ["9" * 5_000, "9" * 19, "9" * 18, "²", "-1", "x"])
def test_a_number_that_is_none_of_ours_breaks_no_page(
    number: str, ids: dict[str, dict[str, int]], alice: User, client: Client
) -> None:
    client.force_login(alice)
    conversation = reverse("conversation", kwargs=ids["conversation"])
    document = reverse("document", kwargs=ids["document"])
    read = reverse("document_read", kwargs=ids["document_read"])
    addresses = {
        f"{conversation}?leaf={number}": 200,
        f"{document}?at={number}": 200,
        f"{document}?version={number}": 404,
        f"{read}?at={number}": 200,
        f"{read}?start={number}&end={number}": 200,
        f"{reverse('documents')}?after=~{number}": 200,
        f"{reverse('documents_progress')}?collection={number}&row={number}": 200,
        f"{reverse('search')}?q=ice&page={number}&collection={number}&document={number}": 200,
        f"{reverse('source_chunk', kwargs=ids['source_chunk'])}?around={number}": 200,
    }

    assert {address: client.get(address).status_code for address in addresses} == addresses
