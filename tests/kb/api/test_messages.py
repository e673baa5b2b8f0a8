"""Ask, follow, stop, ask again, rate: over the API, on the real generator and a real Redis."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from kb import answering, chat
from kb.api.views import messages
from kb.generators import Part, TextPart, UsagePart
from kb.models import ApiToken, Conversation, Document, Membership, Message, User
from kb.prompts import Source, Turn
from tests.conftest import AddDocument
from tests.kb.api.client import ApiClient, AsyncApiClient
from tests.kb.api.conftest import answers_finished, async_client_of, client_of

# Asynchronous views look from a thread of their own, which sees only what is committed.
pytestmark = pytest.mark.django_db(transaction=True)

JSON = "application/json"
GUIDE = (
    "# Glaciers\n\nThe Morteratsch glacier melts fastest in late August.\n\n"
    "# Birds\n\nThe wheatear nests under stones and leaves for Africa in September.\n"
)
QUESTION = "When does the Morteratsch glacier melt fastest?"


class Slow:
    """A generator that says one sentence and then waits until the test lets it go on."""

    base_model = label = "slow"

    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    async def stream(
        self, messages: Sequence[Turn], sources: Sequence[Source], **options: object
    ) -> AsyncIterator[Part]:
        yield TextPart("It melts in late August [1].")
        await self.go_on.wait()
        yield TextPart(" That is all.")
        yield UsagePart(10, 5, "stop")


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    generator = Slow()
    monkeypatch.setattr(answering, "_generator", lambda name: generator)
    return generator


@pytest.fixture
def guide(add_document: AddDocument) -> Document:
    return add_document("guide.md", GUIDE)


@pytest.fixture
def client(alice: User) -> AsyncApiClient:
    return async_client_of(alice)


def address_of(conversation: Conversation) -> str:
    return f"/api/v1/conversations/{conversation.pk}/messages/"


async def ask(client: AsyncApiClient, conversation: Conversation, text: str, **body: Any) -> Any:
    return await client.post(address_of(conversation), {"text": text, **body}, content_type=JSON)


async def events_of(response: Any) -> list[tuple[str, str, Any]]:
    """Read a stream to its end as (id, event, data)."""
    text = b"".join([part async for part in response.streaming_content]).decode()
    blocks = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    events = [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks]
    return [(event["id"], event["event"], json.loads(event["data"])) for event in events]


# --- Asking -----------------------------------------------------------------------------------


async def test_a_question_that_waits_is_answered_with_its_sources(
    client: AsyncApiClient, conversation: Conversation, guide: Document
) -> None:
    response = await ask(client, conversation, QUESTION, wait=True)

    assert response.status_code == 201
    question, answer = response.json()["question"], response.json()["answer"]
    assert (question["role"], question["text"], question["stream"]) == ("user", QUESTION, None)
    assert (answer["parent"], answer["state"]) == (question["id"], "done")
    assert "late August" in answer["text"]
    cited = next(citation for citation in answer["citations"] if citation["is_cited"])
    assert (cited["document"], cited["version"]) == (guide.pk, 1)
    version = await guide.versions.aget()
    assert version.text[cited["start"] : cited["end"]] == cited["quote"]
    assert any(sentence["supported"] for sentence in answer["support"])
    assert answer["trace"]["queries"] == [QUESTION]


async def test_an_answer_is_followed_as_it_comes_and_again_from_any_event(
    client: AsyncApiClient, conversation: Conversation, guide: Document
) -> None:
    asked = (await ask(client, conversation, QUESTION)).json()
    assert asked["answer"]["state"] in ("pending", "streaming")
    assert asked["stream"] == asked["answer"]["stream"]

    stream = await client.get(asked["stream"])
    assert stream["Cache-Control"] == "no-store"
    events = await events_of(stream)

    kinds = [kind for _, kind, _ in events]
    assert kinds[:3] == ["status", "sources", "status"]
    assert kinds[-1] == "end"
    assert events[1][2]["sources"][0]["marker"] == 1
    said = "".join(data["text"] for _, kind, data in events if kind == "text")
    message = (await client.get(f"/api/v1/messages/{asked['answer']['id']}/")).json()
    assert said == message["text"]

    resumed = await client.get(asked["stream"], headers={"Last-Event-ID": events[1][0]})
    assert await events_of(resumed) == events[2:]
    odd = await client.get(asked["stream"], headers={"Last-Event-ID": "$"})
    assert await events_of(odd) == events


async def test_who_waits_too_long_gets_what_there_is_and_the_answer_goes_on(
    client: AsyncApiClient,
    conversation: Conversation,
    guide: Document,
    slow: Slow,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(messages, "LONGEST_WAIT_S", 1.5)

    answer = (await ask(client, conversation, QUESTION, wait=True)).json()["answer"]
    assert answer["state"] == "streaming"
    slow.go_on.set()
    await answers_finished()

    shown = (await client.get(f"/api/v1/messages/{answer['id']}/")).json()
    assert (shown["state"], shown["text"]) == ("done", "It melts in late August [1]. That is all.")
    assert (shown["generator"], shown["completion_tokens"]) == ("slow", 5)


async def test_a_question_goes_on_from_the_newest_answer_or_the_one_it_names(
    client: AsyncApiClient, conversation: Conversation, guide: Document
) -> None:
    first = (await ask(client, conversation, QUESTION, wait=True)).json()["answer"]
    second = (await ask(client, conversation, "And the wheatear?", wait=True)).json()
    fresh = (await ask(client, conversation, "Where do wheatears nest?", parent=None)).json()
    await answers_finished()
    named = (await ask(client, conversation, "Why?", parent=first["id"], wait=True)).json()

    assert second["question"]["parent"] == named["question"]["parent"] == first["id"]
    assert fresh["question"]["parent"] is None
    assert named["question"]["branches"] == [second["question"]["id"], named["question"]["id"]]


@pytest.mark.parametrize("text", ["", "  ", "x" * 8_001])
async def test_an_empty_or_overlong_question_is_refused(
    text: str, client: AsyncApiClient, conversation: Conversation
) -> None:
    response = await ask(client, conversation, text)

    assert response.status_code == 400
    assert response.json()["code"] in ("question_refused", "invalid")
    assert not await conversation.messages.aexists()


async def test_nothing_is_asked_below_an_answer_that_is_still_written(
    client: AsyncApiClient, conversation: Conversation, guide: Document, slow: Slow
) -> None:
    running = (await ask(client, conversation, QUESTION)).json()["answer"]["id"]

    refused = [
        await ask(client, conversation, "And then?"),
        await ask(client, conversation, "And then?", parent=running),
        await client.post(f"/api/v1/messages/{running}/regenerate/", {}, content_type=JSON),
    ]
    slow.go_on.set()
    await answers_finished()

    assert [r.json()["code"] for r in refused] == ["answer_unfinished"] * 3


async def test_questions_are_counted(
    client: AsyncApiClient, conversation: Conversation, guide: Document, settings: Any
) -> None:
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "ask": 1}
    assert (await ask(client, conversation, QUESTION, wait=True)).status_code == 201

    refused = await ask(client, conversation, QUESTION)

    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert int(refused["Retry-After"]) > 0


# --- Stopping, branches -----------------------------------------------------------------------


async def test_a_stopped_answer_keeps_what_was_written(
    client: AsyncApiClient, conversation: Conversation, guide: Document, slow: Slow
) -> None:
    asked = (await ask(client, conversation, QUESTION)).json()
    following = asyncio.create_task(events_of(await client.get(asked["stream"])))
    await asyncio.sleep(1.5)

    stopped = await client.post(f"/api/v1/messages/{asked['answer']['id']}/stop/")
    assert stopped.status_code == 202
    events = await asyncio.wait_for(following, 20)
    await answers_finished()

    assert events[-1][1:] == ("end", {"state": "stopped"})
    shown = (await client.get(f"/api/v1/messages/{asked['answer']['id']}/")).json()
    assert (shown["state"], shown["text"]) == ("stopped", "It melts in late August [1].")


async def test_editing_and_regenerating_make_branches(
    client: AsyncApiClient, conversation: Conversation, guide: Document
) -> None:
    first = (await ask(client, conversation, QUESTION, wait=True)).json()
    question, answer = first["question"]["id"], first["answer"]["id"]

    again = await client.post(
        f"/api/v1/messages/{answer}/regenerate/",
        {"generator": "extractive", "wait": True},
        content_type=JSON,
    )
    edited = await client.post(
        f"/api/v1/messages/{question}/edit/",
        {"text": "Where does the wheatear nest?", "wait": True},
        content_type=JSON,
    )

    assert again.json()["answer"]["branches"] == [answer, again.json()["answer"]["id"]]
    assert edited.json()["question"]["branches"] == [question, edited.json()["question"]["id"]]
    assert "stones" in edited.json()["answer"]["text"]


async def test_each_turn_takes_only_what_makes_sense_for_it(
    client: AsyncApiClient, conversation: Conversation, answer: Message
) -> None:
    question = f"/api/v1/messages/{answer.parent_id}/"
    own = f"/api/v1/messages/{answer.pk}/"

    codes = [
        (await client.get(f"{question}stream/")).json()["code"],
        (await client.post(f"{question}stop/")).json()["code"],
        (await client.post(f"{question}regenerate/", {}, content_type=JSON)).json()["code"],
        (await client.put(f"{question}rating/", {"value": 1}, content_type=JSON)).json()["code"],
        (await ask(client, conversation, "Why?", parent=answer.parent_id)).json()["code"],
    ]
    edited = await client.post(f"{own}edit/", {"text": "x"}, content_type=JSON)
    unknown = await client.post(f"{own}regenerate/", {"generator": "magic"}, content_type=JSON)

    assert codes == ["not_an_answer"] * 5
    assert edited.json()["code"] == "not_a_question"
    assert unknown.json()["errors"][0]["field"] == "generator"


# --- Streams that end early -------------------------------------------------------------------


async def test_a_revoked_token_ends_its_streams(
    client: AsyncApiClient, conversation: Conversation, guide: Document, slow: Slow
) -> None:
    asked = (await ask(client, conversation, QUESTION)).json()
    following = asyncio.create_task(events_of(await client.get(asked["stream"])))
    await asyncio.sleep(0.5)

    await ApiToken.objects.aupdate(revoked_at="2026-01-01T00:00:00Z")
    events = await asyncio.wait_for(following, 20)
    slow.go_on.set()
    await answers_finished()

    assert "end" not in [kind for _, kind, _ in events]


async def test_a_deleted_conversation_ends_the_streams_of_its_answers(
    client: AsyncApiClient, conversation: Conversation, guide: Document, slow: Slow
) -> None:
    asked = (await ask(client, conversation, QUESTION)).json()
    following = asyncio.create_task(events_of(await client.get(asked["stream"])))
    await asyncio.sleep(0.5)

    await client.delete(f"/api/v1/conversations/{conversation.pk}/")
    slow.go_on.set()
    await asyncio.wait_for(following, 20)
    await answers_finished()

    assert (await client.get(asked["stream"])).status_code == 404


# --- Reading and rating -----------------------------------------------------------------------


def test_a_rating_is_kept_replaced_and_taken_back(as_alice: ApiClient, answer: Message) -> None:
    address = f"/api/v1/messages/{answer.pk}/"
    body = {"value": -1, "reason": "Too early.", "corrected_answer": "In September."}

    assert as_alice.put(f"{address}rating/", body, content_type=JSON).status_code == 200
    rated = as_alice.get(address).json()["rating"]
    assert rated | {"created_at": ""} == {**body, "created_at": ""}

    as_alice.put(f"{address}rating/", {"value": 1}, content_type=JSON)
    assert as_alice.get(address).json()["rating"]["value"] == 1
    assert answer.feedback.count() == 1

    assert as_alice.delete(f"{address}rating/").status_code == 204
    assert as_alice.get(address).json()["rating"] is None


@pytest.mark.parametrize("value", [0, 2, "good", None])
def test_a_rating_is_right_or_wrong(value: object, as_alice: ApiClient, answer: Message) -> None:
    address = f"/api/v1/messages/{answer.pk}/rating/"

    response = as_alice.put(address, {"value": value}, content_type=JSON)

    assert response.json()["errors"][0]["field"] == "value"


def test_what_may_no_longer_be_read_is_no_longer_quoted(
    as_alice: ApiClient, answer: Message, bob: User
) -> None:
    address = f"/api/v1/messages/{answer.pk}/"
    before = as_alice.get(address).json()
    assert [citation["marker"] for citation in before["citations"]] == [1]
    assert before["trace"]["hits"]

    Membership.objects.filter(user=answer.conversation.user).delete()

    after = as_alice.get(address).json()
    assert after["citations"] == after["trace"]["hits"] == []
    assert after["text"] == before["text"]

    Document.objects.get().remove()  # what is hidden does not come back when it is deleted
    assert as_alice.get(address).json() == after


def test_the_quote_of_a_deleted_document_stays_for_those_who_could_read_it(
    as_alice: ApiClient, answer: Message, document: Document
) -> None:
    document.remove()

    citation = as_alice.get(f"/api/v1/messages/{answer.pk}/").json()["citations"][0]

    assert (citation["document"], citation["version"], citation["passage"]) == (None, None, None)
    assert "late summer" in citation["quote"]


def test_turns_cost_the_same_however_many(
    as_alice: ApiClient, conversation: Conversation, answer: Message, alice: User
) -> None:
    def queries_of_the_branch() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert as_alice.get(f"/api/v1/conversations/{conversation.pk}/").status_code == 200
        return len(captured)

    def queries_of_the_list(limit: int) -> int:
        """The list runs in a thread of its own, so what it does is done here, where it is seen."""
        with CaptureQueriesContext(connection) as captured:
            turns = messages.with_parts(conversation.messages.order_by("pk")[:limit], alice)
            shown = messages.MessageSerializer(messages.describe(list(turns), alice), many=True)
            assert len(shown.data) == limit
        return len(captured)

    queries_of_the_branch()
    branch, listed = queries_of_the_branch(), queries_of_the_list(2)
    for number in range(4):
        below = chat.ask(conversation, f"Question {number}", parent=answer)
        Message.objects.filter(pk=below.pk).update(state="done")
        below.citations.create(marker=1, title="Gone", start=0, end=1, quote="x")
        below.rate(alice, 1)
        answer = below

    assert queries_of_the_branch() == branch
    assert queries_of_the_list(10) == listed


async def test_all_turns_are_listed_oldest_first(
    client: AsyncApiClient, conversation: Conversation, answer: Message
) -> None:
    first = (await client.get(address_of(conversation), {"limit": 1})).json()
    rest = (await client.get(first["next"])).json()

    assert first["count"] == 2
    shown = [turn["id"] for turn in first["results"] + rest["results"]]
    assert shown == [answer.parent_id, answer.pk]


def test_a_token_that_may_only_ask_reads_what_it_asked_and_nothing_else(
    alice: User, answer: Message
) -> None:
    asker = client_of(alice, "ask")

    assert asker.get(f"/api/v1/messages/{answer.pk}/").status_code == 200
    assert asker.get("/api/v1/documents/").json()["code"] == "missing_scope"
