import json
from typing import Any

import pytest
from django.test import AsyncClient, Client
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries

from kb import chat
from kb.models import Citation, Conversation, Feedback, Message, User
from tests.conftest import AddDocument, work_off

LEAVE = (
    "# Leave\n\n## Days\n\nEverybody has thirty days of annual leave a year.\n\n"
    "## Illness\n\nCall the office before ten when you are ill.\n"
)
QUESTION = "How many days of annual leave are there?"


def talk(user: User, *, turns: int = 1, title: str = "Leave") -> Conversation:
    """Make a conversation with finished answers."""
    conversation = Conversation.objects.create(user=user, title=title)
    parent = None
    for number in range(turns):
        answer = chat.ask(conversation, f"Question {number}", parent=parent)
        Message.objects.filter(pk=answer.pk).update(
            state="done", text=f"Answer {number}. [1]", generator="Extractive", lease_until=None
        )
        parent = answer
    return conversation


def cite(answer: Message, add_document: AddDocument) -> Citation:
    document = add_document("leave.md", LEAVE)
    chunk = document.chunks.first()
    assert chunk is not None
    return Citation.objects.create(
        message=answer,
        marker=1,
        chunk=chunk,
        version=document.current_version,
        document=document,
        collection=document.collection,
        title=document.title,
        start=chunk.start,
        end=chunk.end,
        quote=chunk.text,
        is_cited=True,
    )


async def read_stream(response: Any) -> list[tuple[str, Any]]:
    text = b"".join([part async for part in response.streaming_content]).decode()
    events = [
        dict(line.split(": ", 1) for line in block.splitlines())
        for block in text.split("\n\n")
        if block and not block.startswith(":")
    ]
    return [(event["event"], json.loads(event["data"])) for event in events]


# --- The first page ---------------------------------------------------------------------------


def test_the_first_page_offers_questions_about_what_is_there(
    page: Client, add_document: AddDocument
) -> None:
    add_document("leave.md", LEAVE)

    assert "What does “Leave” say about Days?" in page.get("/").content.decode()


def test_somebody_without_a_collection_is_told_so(charlie: User, client: Client) -> None:
    client.force_login(charlie)

    assert "you can read no collection" in client.get("/").content.decode()


def test_who_is_not_signed_in_is_sent_to_sign_in(client: Client, db: None) -> None:
    response = client.get("/")

    assert response.status_code == 302
    assert response.url.startswith("/sign-in/")  # type: ignore[attr-defined]


def test_hits_of_a_search_narrow_a_new_conversation(
    page: Client, add_document: AddDocument, charlie: User
) -> None:
    document = add_document("leave.md", LEAVE)

    html = page.get(f"/?document={document.pk}&q=Leave?").content.decode()
    assert f'name="document" value="{document.pk}"' in html
    assert "Leave?</textarea>" in html
    page.force_login(charlie)
    assert 'name="document"' not in page.get(f"/?document={document.pk}").content.decode()


# --- Asking and following ---------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
async def test_a_question_begins_a_conversation_and_its_answer_streams(
    alice: User, async_client: AsyncClient, add_document: AddDocument
) -> None:
    from asgiref.sync import sync_to_async

    await sync_to_async(add_document)("leave.md", LEAVE)
    await async_client.aforce_login(alice)

    response = await async_client.post("/c/", {"text": QUESTION})
    conversation = await Conversation.objects.aget()
    assert response.status_code == 302
    assert response.url == f"/c/{conversation.pk}/"  # type: ignore[attr-defined]
    assert conversation.title == QUESTION
    answer = await conversation.messages.aget(role="assistant")
    stream = await async_client.get(f"/messages/{answer.pk}/stream/")
    assert stream["Content-Type"] == "text/event-stream"
    assert stream["X-Accel-Buffering"] == "no"
    events = await read_stream(stream)
    text = "".join(data["text"] for kind, data in events if kind == "text")
    assert "thirty days" in text
    assert events[-1] == ("end", {"state": "done"})
    fragment = (await async_client.get(f"/messages/{answer.pk}/")).content.decode()
    assert "thirty days" in fragment
    assert "data-marker" in fragment
    assert "Extractive" in fragment


@pytest.mark.django_db(transaction=True)
async def test_a_follow_up_is_answered_below_the_turn_shown(
    alice: User, async_client: AsyncClient
) -> None:
    from asgiref.sync import sync_to_async

    conversation = await sync_to_async(talk)(alice)
    leaf = await conversation.messages.aget(role="assistant")
    await async_client.aforce_login(alice)

    response = await async_client.post(
        f"/c/{conversation.pk}/ask/",
        {"text": "And then?", "leaf": leaf.pk},
        headers={"HX-Request": "true"},
    )
    html = response.content.decode()
    question = await conversation.messages.aget(text="And then?")
    assert question.parent_id == leaf.pk
    assert "And then?" in html
    assert 'data-stream="/messages/' in html
    assert 'id="leaf"' in html


@pytest.mark.django_db(transaction=True)
async def test_an_empty_question_stays_in_its_box_with_a_sentence(
    alice: User, async_client: AsyncClient
) -> None:
    await async_client.aforce_login(alice)

    response = await async_client.post("/c/", {"text": "  "}, headers={"HX-Request": "true"})
    assert response.status_code == 422
    assert "Write a question first" in response["HX-Trigger"]
    assert not await Conversation.objects.aexists()


@pytest.mark.django_db(transaction=True)
async def test_too_many_questions_in_a_minute_are_refused(
    alice: User, async_client: AsyncClient, settings: Any
) -> None:
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "ask": 1}
    await async_client.aforce_login(alice)

    answers = [
        await async_client.post("/c/", {"text": "Why?"}, headers={"HX-Request": "true"})
        for _ in "ab"
    ]
    assert "HX-Redirect" in answers[0]
    assert answers[1].status_code == 422
    assert "Too many questions" in answers[1]["HX-Trigger"]


@pytest.mark.django_db(transaction=True)
async def test_editing_and_answering_again_keep_what_was_there(
    alice: User, async_client: AsyncClient
) -> None:
    from asgiref.sync import sync_to_async

    conversation = await sync_to_async(talk)(alice)
    question, answer = [m async for m in conversation.messages.order_by("pk")]
    await async_client.aforce_login(alice)

    await async_client.post(f"/messages/{question.pk}/edit/", {"text": "In other words"})
    await async_client.post(f"/messages/{answer.pk}/regenerate/", {"generator": "extractive"})
    assert await conversation.messages.filter(parent=None).acount() == 2
    again = await question.children.alatest("pk")
    assert again.trace["asked_generator"] == "extractive"
    older = (await async_client.get(f"/c/{conversation.pk}/?leaf={answer.pk}")).content.decode()
    assert "1 / 2" in older
    assert "Answer 0" in older


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("method", "address"),
    [
        ("get", "/c/{conversation}/"),
        ("post", "/c/{conversation}/ask/"),
        ("get", "/c/{conversation}/rename/"),
        ("post", "/c/{conversation}/delete/"),
        ("get", "/messages/{answer}/"),
        ("get", "/messages/{answer}/stream/"),
        ("get", "/messages/{answer}/why/"),
        ("post", "/messages/{answer}/stop/"),
        ("post", "/messages/{answer}/rate/"),
        ("post", "/messages/{answer}/regenerate/"),
        ("post", "/messages/{question}/edit/"),
    ],
)
async def test_a_foreign_conversation_answers_like_one_that_is_not_there(
    alice: User, bob: User, async_client: AsyncClient, method: str, address: str
) -> None:
    from asgiref.sync import sync_to_async

    conversation = await sync_to_async(talk)(alice)
    question, answer = [m async for m in conversation.messages.order_by("pk")]
    await async_client.aforce_login(bob)
    send = getattr(async_client, method)

    foreign = await send(
        address.format(conversation=conversation.pk, question=question.pk, answer=answer.pk),
        {"text": "x"},
    )
    missing = await send(
        address.format(conversation=99999, question=99999, answer=99999), {"text": "x"}
    )
    assert foreign.status_code == missing.status_code == 404
    assert foreign.content == missing.content
    assert await conversation.messages.acount() == 2


def test_a_stop_is_written_on_the_row(page: Client, alice: User) -> None:
    answer = chat.ask(Conversation.objects.create(user=alice), "Why?")

    assert (
        page.post(f"/messages/{answer.pk}/stop/", headers={"HX-Request": "true"}).status_code == 204
    )
    answer.refresh_from_db()
    assert answer.stop_requested


# --- How answers are shown --------------------------------------------------------------------


def test_a_citation_links_to_its_passage_and_carries_its_quote(
    page: Client, alice: User, add_document: AddDocument
) -> None:
    conversation = talk(alice)
    citation = cite(conversation.messages.get(role="assistant"), add_document)

    html = page.get(f"/c/{conversation.pk}/").content.decode()
    assert html.count(f'href="/source/citation/{citation.pk}/"') == 2  # in the text, in the list
    assert "<template>" in html
    assert "thirty days" in html


def test_a_quote_goes_when_the_right_to_read_it_goes(
    page: Client, alice: User, add_document: AddDocument
) -> None:
    conversation = talk(alice)
    citation = cite(conversation.messages.get(role="assistant"), add_document)
    alice.memberships.all().delete()

    html = page.get(f"/c/{conversation.pk}/").content.decode()
    assert "thirty days" not in html
    assert f"/source/citation/{citation.pk}/" not in html
    assert "A document you may not read any more" in html


def test_a_question_and_an_answer_cannot_write_html(page: Client, alice: User) -> None:
    conversation = Conversation.objects.create(user=alice, title="<img src=x onerror=alert(1)>")
    answer = chat.ask(conversation, "<script>alert(1)</script>")
    Message.objects.filter(pk=answer.pk).update(state="done", text="<img src=x onerror=alert(2)>")

    html = page.get(f"/c/{conversation.pk}/").content.decode()
    assert "<script>alert" not in html
    assert "<img" not in html


def test_a_doubtful_sentence_is_marked_and_counted(page: Client, alice: User) -> None:
    conversation = talk(alice)
    conversation.messages.filter(role="assistant").update(
        text="The moon is cheese.",
        support=[{"start": 0, "end": 19, "markers": [], "score": 0.0, "supported": False}],
    )

    html = page.get(f"/c/{conversation.pk}/").content.decode()
    assert '<span class="doubted">The moon is cheese.</span>' in html
    assert "1 sentence not supported" in html


def test_a_failed_answer_keeps_its_part_and_offers_two_ways_on(
    page: Client, alice: User, settings: Any
) -> None:
    settings.GENERATOR_NAME = "chat_completions"
    conversation = talk(alice)
    conversation.messages.filter(role="assistant").update(
        state="failed", text="The glacier", error="The model server is away."
    )

    html = page.get(f"/c/{conversation.pk}/").content.decode()
    assert "The model server is away." in html
    assert "The glacier" in html
    assert "Try again" in html
    assert "Answer from the passages instead" in html


def test_not_in_the_documents_says_what_was_searched(
    page: Client, alice: User, add_document: AddDocument
) -> None:
    conversation = talk(alice)
    answer = conversation.messages.get(role="assistant")
    Citation.objects.filter(pk=cite(answer, add_document).pk).update(is_cited=False)
    conversation.messages.filter(pk=answer.pk).update(
        found_nothing=True, trace={"queries": ["moon cheese"]}
    )

    html = page.get(f"/c/{conversation.pk}/").content.decode()
    assert "Not in the documents" in html
    assert "moon cheese" in html
    assert "The nearest passages" in html
    assert "Tell the curators" in html


def test_why_an_answer_came_about_is_told(
    page: Client, alice: User, add_document: AddDocument
) -> None:
    conversation = talk(alice)
    answer = conversation.messages.get(role="assistant")
    cite(answer, add_document)
    conversation.messages.filter(pk=answer.pk).update(
        trace={
            "queries": ["leave"],
            "hits": [{"similarity": 0.71, "text_score": 4.2}],
            "prompt_version": "p7",
            "search_ms": 12.0,
            "answerable": {"answerable": True, "score": 0.8, "coverage": 0.9, "similarity": 0.7},
        },
        prompt_tokens=1234,
        completion_tokens=56,
    )

    html = page.get(f"/messages/{answer.pk}/why/").content.decode()
    for words in ("leave", "0.710", "4.2", "p7", "12 ms to search", "1,234 read", "Extractive"):
        assert words in html


def test_a_conversation_costs_the_same_queries_however_long(
    page: Client, alice: User, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    talk(alice, turns=1)
    for _ in range(5):
        talk(alice, turns=8)
    long = Conversation.objects.latest("pk")

    with django_assert_max_num_queries(14):
        assert page.get(f"/c/{long.pk}/").status_code == 200


def test_the_first_page_costs_few_queries(
    page: Client,
    alice: User,
    add_document: AddDocument,
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    for number in range(4):
        add_document(f"{number}.md", LEAVE.replace("Leave", f"Leave {number}"), wait=False)
    work_off()
    for _ in range(6):
        talk(alice)

    with django_assert_max_num_queries(10):
        assert page.get("/").status_code == 200


# --- Rating and keeping order -----------------------------------------------------------------


def test_an_answer_is_rated_with_a_reason_and_a_better_answer(page: Client, alice: User) -> None:
    answer = talk(alice).messages.get(role="assistant")

    page.post(
        f"/messages/{answer.pk}/rate/",
        {
            "value": "-1",
            "reason": ["It is wrong", "It is hard to read"],
            "detail": "no such day",
            "corrected": "Forty days.",
        },
    )
    rated = Feedback.objects.get(message=answer, user=alice)
    assert rated.value == -1
    assert rated.reason == "It is wrong. It is hard to read. no such day"
    assert rated.corrected_answer == "Forty days."
    page.post(f"/messages/{answer.pk}/rate/", {"value": "1"})
    rated.refresh_from_db()
    assert rated.value == 1


def test_a_rating_redraws_the_buttons(page: Client, alice: User) -> None:
    answer = talk(alice).messages.get(role="assistant")

    response = page.post(
        f"/messages/{answer.pk}/rate/", {"value": "1"}, headers={"HX-Request": "true"}
    )
    assert 'aria-pressed="true"' in response.content.decode()
    assert "toast" in response["HX-Trigger"]


def test_a_rating_is_taken_back(page: Client, alice: User) -> None:
    answer = talk(alice).messages.get(role="assistant")
    address = f"/messages/{answer.pk}/rate/"
    for value in ("1", "-1"):
        page.post(address, {"value": value})
        pressed = page.get(f"/c/{answer.conversation_id}/").content.decode()
        assert pressed.count('name="value" value="0"') == 1

        page.post(address, {"value": "0"})
        assert not Feedback.objects.exists()


def test_the_form_asks_for_what_fits_the_rating_and_remembers_what_was_said(
    page: Client, alice: User
) -> None:
    answer = talk(alice).messages.get(role="assistant")
    address = f"/messages/{answer.pk}/rate/"
    page.post(
        address,
        {"value": "1", "reason": ["It is short and clear"], "detail": "so", "corrected": "Forty."},
    )

    right = page.get(address, {"value": "1"}).content.decode()
    assert "What is right about this answer?" in right
    assert 'value="It is short and clear" checked' in right
    assert 'value="so"' in right
    assert ">Forty.</textarea>" in right
    wrong = page.get(address).content.decode()
    assert "What is wrong with this answer?" in wrong
    assert 'name="reason" value="It is wrong" >' in wrong
    assert "Forty." not in wrong


@pytest.fixture
def two_answers(alice: User) -> tuple[Message, Message]:
    first = talk(alice).messages.get(role="assistant")
    second = Message.objects.create(
        conversation=first.conversation, parent=first.parent, role="assistant", text="Forty days."
    )
    return first, second


def test_choosing_between_two_answers_rates_both(
    page: Client, alice: User, two_answers: tuple[Message, Message]
) -> None:
    first, second = two_answers
    shown = page.get(f"/messages/{second.pk}/compare/").content.decode()
    assert shown.count("This one is better") == 2
    assert "Forty days." in shown
    second.rate(alice, -1, reason="It is wrong")

    chosen = page.post(f"/messages/{first.pk}/compare/", {"over": second.pk})

    assert chosen["Location"] == f"/c/{first.conversation_id}/?leaf={first.pk}#m{first.pk}"
    ratings = dict(Feedback.objects.values_list("message", "value"))
    assert ratings == {first.pk: 1, second.pk: -1}
    assert second.feedback.get().reason == "It is wrong"

    page.post(f"/messages/{second.pk}/compare/", {"over": first.pk})
    ratings = dict(Feedback.objects.values_list("message", "value"))
    assert ratings == {first.pk: -1, second.pk: 1}


def test_an_answer_is_compared_with_another_to_its_question_only(
    page: Client, alice: User, bob: User, two_answers: tuple[Message, Message]
) -> None:
    first, _second = two_answers
    alone, foreign = talk(alice), talk(bob)
    for other in (alone, foreign):
        answer = other.messages.get(role="assistant")
        address = f"/messages/{answer.pk}/compare/"
        assert page.get(address).status_code == 404
        assert page.post(address, {"over": first.pk}).status_code == 404
        refused = page.post(f"/messages/{first.pk}/compare/", {"over": answer.pk})
        assert refused.status_code == 404
    assert not Feedback.objects.exists()


def test_a_conversation_is_renamed_and_deleted(page: Client, alice: User) -> None:
    conversation = talk(alice)

    page.post(f"/c/{conversation.pk}/rename/", {"title": "  Annual   leave "})
    conversation.refresh_from_db()
    assert conversation.title == "Annual leave"
    response = page.post(f"/c/{conversation.pk}/delete/")
    assert response.status_code == 302
    assert not Conversation.objects.exists()


@pytest.mark.parametrize("words", ["glacier", "Question 0", "GLACIER"])
def test_conversations_are_found_by_their_words(
    page: Client, alice: User, bob: User, words: str
) -> None:
    talk(alice, title="The glacier")
    Conversation.objects.create(user=alice, title="Nothing else")
    talk(bob, title="The glacier of bob")

    html = page.get(reverse("conversations"), {"find": words}).content.decode()
    assert "The glacier" in html
    assert "Nothing else" not in html
    assert "of bob" not in html
