from typing import Any

import pytest

from kb import chat
from kb.answering import filters_of
from kb.models import Collection, Conversation, Message, User
from tests.kb.api.client import ApiClient

JSON = "application/json"
CONVERSATIONS = "/api/v1/conversations/"


def test_a_conversation_is_begun_narrowed_renamed_and_deleted(
    as_alice: ApiClient, collection: Collection
) -> None:
    body = {"collections": [collection.pk], "filters": {"tags": ["ice"], "since": "2026-01-31"}}
    made = as_alice.post(CONVERSATIONS, body, content_type=JSON)
    assert made.status_code == 201
    address = f"{CONVERSATIONS}{made.json()['id']}/"
    kept = filters_of(Conversation.objects.get())
    assert (kept.collection_ids, kept.tags) == ((collection.pk,), ("ice",))
    assert str(kept.since) == "2026-01-31"

    renamed = as_alice.patch(address, {"title": "Ice"}, content_type=JSON).json()
    assert renamed["title"] == "Ice"
    assert (renamed["collections"], renamed["filters"]) == (body["collections"], body["filters"])

    assert as_alice.delete(address).status_code == 204
    assert as_alice.get(address).status_code == 404


def test_a_conversation_without_a_title_takes_the_first_question(
    as_alice: ApiClient, alice: User
) -> None:
    made = as_alice.post(CONVERSATIONS, {}, content_type=JSON).json()
    chat.ask(Conversation.objects.get(pk=made["id"]), "When does it melt?")

    assert as_alice.get(f"{CONVERSATIONS}{made['id']}/").json()["title"] == "When does it melt?"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"title": "x" * 201}, "title"),
        ({"user": 1}, "user"),
        ({"collections": [987_654_321]}, "collections"),
        ({"collections": "all"}, "collections"),
        ({"filters": {"since": "soon"}}, "filters.since"),
        ({"filters": {"colour": "red"}}, "filters.colour"),
        ({"filters": []}, "filters"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(
    body: dict[str, Any], field: str, as_alice: ApiClient
) -> None:
    response = as_alice.post(CONVERSATIONS, body, content_type=JSON)

    assert response.status_code == 400
    assert response.json()["errors"][0]["field"].startswith(field)
    assert not Conversation.objects.exists()


def test_a_conversation_shows_one_branch_the_newest_unless_told(
    as_alice: ApiClient, conversation: Conversation, answer: Message
) -> None:
    assert answer.parent is not None
    Message.objects.filter(pk=chat.edit(answer.parent, "And in winter?").pk).update(state="done")
    address = f"{CONVERSATIONS}{conversation.pk}/"

    newest = as_alice.get(address).json()["thread"]
    older = as_alice.get(address, {"leaf": answer.pk}).json()["thread"]

    assert [turn["text"] for turn in newest] == ["And in winter?", ""]
    assert [turn["id"] for turn in older] == [answer.parent_id, answer.pk]
    assert older[0]["branches"] == [answer.parent_id, newest[0]["id"]]
    assert as_alice.get(address, {"leaf": 987_654_321}).status_code == 404


def test_titles_and_turns_are_searched(
    as_alice: ApiClient, alice: User, conversation: Conversation, answer: Message
) -> None:
    other = Conversation.objects.create(user=alice, title="Moss")

    def found(words: str) -> list[int]:
        body = as_alice.get(CONVERSATIONS, {"search": words}).json()
        return [row["id"] for row in body["results"]]

    assert found("moss") == [other.pk]
    assert found("late summer") == [conversation.pk]
    assert found("nothing of it") == []
    assert found("%") == []


def test_the_latest_conversation_comes_first(
    as_alice: ApiClient, alice: User, conversation: Conversation
) -> None:
    other = Conversation.objects.create(user=alice, title="Moss")
    assert as_alice.get(CONVERSATIONS).json()["results"][0]["id"] == other.pk

    chat.ask(conversation, "When does it melt?")

    assert as_alice.get(CONVERSATIONS).json()["results"][0]["id"] == conversation.pk


def test_a_list_costs_the_same_however_long(
    as_alice: ApiClient, alice: User, collection: Collection, django_assert_num_queries: Any
) -> None:
    Conversation.objects.create(user=alice).collections.add(collection)
    as_alice.get(CONVERSATIONS)
    with django_assert_num_queries(4):
        as_alice.get(CONVERSATIONS)
    for _ in range(5):
        Conversation.objects.create(user=alice).collections.add(collection)
    with django_assert_num_queries(4):
        assert as_alice.get(CONVERSATIONS).json()["count"] == 6
