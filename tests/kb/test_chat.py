import asyncio

import pytest
from asgiref.sync import sync_to_async

from kb import chat
from kb.models import Conversation, Message, User

pytestmark = pytest.mark.django_db


@pytest.fixture
def conversation(alice: User) -> Conversation:
    return Conversation.objects.create(user=alice)


def end(answer: Message, text: str) -> Message:
    Message.objects.filter(pk=answer.pk).update(state=Message.State.DONE, text=text)
    answer.refresh_from_db()
    return answer


def test_a_question_names_its_conversation_and_waits_for_an_answer(
    conversation: Conversation,
) -> None:
    answer = chat.ask(conversation, "  When does the glacier melt?  ")

    assert answer.state == Message.State.PENDING
    assert answer.parent is not None
    assert answer.parent.text == "When does the glacier melt?"
    assert conversation.title == "When does the glacier melt?"


@pytest.mark.parametrize("text", ["", "  \n ", "\x00"])
def test_an_empty_question_is_refused(conversation: Conversation, text: str) -> None:
    with pytest.raises(chat.QuestionRefused):
        chat.ask(conversation, text)

    assert not conversation.messages.exists()


def test_an_overlong_question_is_refused(conversation: Conversation) -> None:
    with pytest.raises(chat.QuestionRefused, match="8,000"):
        chat.ask(conversation, "x" * 8_001)


def test_editing_and_regenerating_keep_every_branch(conversation: Conversation) -> None:
    first = end(chat.ask(conversation, "Glaciers?"), "one")
    second = end(chat.regenerate(first), "two")
    edited = end(chat.edit(first.parent, "Birds?"), "three")  # type: ignore[arg-type]

    newest = chat.thread(conversation)
    assert [turn.text for turn in newest] == ["Birds?", "three"]
    assert newest[0].branch_ids == [first.parent_id, edited.parent_id]  # type: ignore[attr-defined]
    older = chat.thread(conversation, leaf=first.pk)
    assert [turn.text for turn in older] == ["Glaciers?", "one"]
    assert older[1].branch_ids == [first.pk, second.pk]  # type: ignore[attr-defined]


def test_a_leaf_inside_the_tree_is_followed_to_its_newest_turn(
    conversation: Conversation,
) -> None:
    first = end(chat.ask(conversation, "Glaciers?"), "one")
    follow_up = end(chat.ask(conversation, "And in winter?", parent=first), "two")
    end(chat.edit(first.parent, "Birds?"), "three")  # type: ignore[arg-type]

    turns = chat.thread(conversation, leaf=first.parent_id)

    assert [turn.pk for turn in turns][-1] == follow_up.pk


def test_a_thread_costs_the_same_queries_however_long_it_is(
    conversation: Conversation,
    django_assert_num_queries,  # type: ignore[no-untyped-def]
) -> None:
    parent = None
    for number in range(10):
        parent = end(chat.ask(conversation, f"Question {number}?", parent=parent), "yes")

    with django_assert_num_queries(3):
        for turn in chat.thread(conversation):
            list(turn.citations.all())
            list(turn.feedback.all())


def test_conversations_are_private_and_searched_by_their_words(
    conversation: Conversation, bob: User
) -> None:
    end(chat.ask(conversation, "Glaciers?"), "They melt in late summer.")

    mine = Conversation.objects.visible_to(conversation.user)
    assert list(mine.matching("late summer")) == [conversation]
    assert not mine.matching("winter").exists()
    assert not Conversation.objects.visible_to(bob).exists()


def test_rating_again_replaces_the_judgement(conversation: Conversation, alice: User) -> None:
    answer = end(chat.ask(conversation, "Glaciers?"), "one")

    answer.rate(alice, 1)
    answer.rate(alice, -1, reason="wrong season", corrected="In July.")

    feedback = answer.feedback.get()
    assert (feedback.value, feedback.corrected_answer) == (-1, "In July.")


@pytest.mark.django_db(transaction=True)
async def test_an_answer_that_ended_long_ago_is_followed_to_its_end_at_once(alice: User) -> None:
    conversation = await Conversation.objects.acreate(user=alice)
    answer = await sync_to_async(chat.ask)(conversation, "Glaciers?")
    await sync_to_async(end)(answer, "one")

    events = [event async for event in chat.tail(answer.pk)]

    assert [event.kind for event in events] == ["end"]
    assert events[0].data == {"state": "done"}


@pytest.mark.django_db(transaction=True)
async def test_without_redis_the_row_is_followed(alice: User, settings: object) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"  # type: ignore[attr-defined]
    conversation = await Conversation.objects.acreate(user=alice)
    answer = await sync_to_async(chat.ask)(conversation, "Glaciers?")

    async def write() -> None:
        rows = Message.objects.filter(pk=answer.pk)
        await rows.aupdate(state=Message.State.STREAMING, text="The glacier")
        await asyncio.sleep(1.5)
        await rows.aupdate(state=Message.State.DONE, text="The glacier melts.")

    writing = asyncio.create_task(write())
    events = [event async for event in chat.tail(answer.pk)]
    await writing

    text = "".join(event.data["text"] for event in events if event.kind == "text")
    assert "The glacier melts.".startswith(text)
    assert events[-1].kind == "end"
