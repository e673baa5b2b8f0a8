import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from asgiref.sync import sync_to_async

from kb import answering, chat, prompts
from kb.backends import get_backend
from kb.generators import GenerationError, Part, TextPart, UsagePart
from kb.models import Citation, Collection, Conversation, Message, User
from kb.prompts import Source, Turn
from tests.conftest import AddDocument

pytestmark = pytest.mark.django_db(transaction=True)

GUIDE = """# Field guide

## Glaciers

The Morteratsch glacier melts fastest in late August. It feeds the river below.

## Birds

The wheatear nests under stones. It leaves for Africa in September.
"""


async def ask(user: User, text: str, *, parent: Message | None = None) -> Message:
    conversation = parent.conversation if parent else await Conversation.objects.acreate(user=user)
    return await sync_to_async(chat.ask)(conversation, text, parent=parent)


async def answered(answer: Message) -> Message:
    await answering.answer(answer.pk)
    return await Message.objects.select_related("conversation").aget(pk=answer.pk)


class Scripted:
    """A generator that plays its parts; each exception among them is raised in its turn."""

    base_model = label = "scripted"

    def __init__(self, *parts: str | Exception | float) -> None:
        self.parts = parts
        self.asked: list[Sequence[Turn]] = []
        self.closed = False

    async def stream(
        self, messages: Sequence[Turn], sources: Sequence[Source], **options: object
    ) -> AsyncIterator[Part]:
        self.asked.append(messages)
        try:
            for part in self.parts:
                if isinstance(part, Exception):
                    raise part
                if isinstance(part, float):
                    await asyncio.sleep(part)
                else:
                    yield TextPart(part)
            yield UsagePart(10, 5, "stop")
        finally:
            self.closed = True


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    def use(*parts: str | Exception | float) -> Scripted:
        scripted = Scripted(*parts)
        monkeypatch.setattr(answering, "_generator", lambda name: scripted)
        return scripted

    return use


@pytest.fixture
def guide(add_document: AddDocument) -> None:
    add_document("guide.md", GUIDE)


async def test_an_answer_quotes_the_passage_and_cites_it(guide: None, alice: User) -> None:
    answer = await answered(await ask(alice, "When does the Morteratsch glacier melt fastest?"))

    assert answer.state == Message.State.DONE
    assert "late August" in answer.text
    cited = [c async for c in answer.citations.filter(is_cited=True)]
    assert cited
    assert "late August" in cited[0].quote
    version = await sync_to_async(lambda: cited[0].version)()
    assert version.text[cited[0].start : cited[0].end] == cited[0].quote
    assert answer.generator == get_backend("GENERATOR").label


async def test_the_trace_tells_how_the_answer_came_about(guide: None, alice: User) -> None:
    answer = await answered(await ask(alice, "When does the Morteratsch glacier melt?"))

    assert answer.trace["queries"] == ["When does the Morteratsch glacier melt?"]
    assert answer.trace["hits"]
    assert answer.trace["prompt_version"] == prompts.PROMPT_VERSION
    assert answer.trace["generator"] == "extractive"
    assert {"search_ms", "generation_ms", "first_text_ms", "answerable"} <= answer.trace.keys()


async def test_what_the_documents_do_not_hold_is_not_guessed(guide: None, alice: User) -> None:
    answer = await answered(await ask(alice, "What is the boiling point of tungsten hexafluoride?"))

    assert answer.state == Message.State.DONE
    assert answer.found_nothing
    assert answer.text == prompts.NOT_IN_DOCUMENTS
    assert not await answer.citations.filter(is_cited=True).aexists()


async def test_someone_without_access_gets_nothing_from_the_documents(
    guide: None, charlie: User
) -> None:
    answer = await answered(await ask(charlie, "When does the Morteratsch glacier melt?"))

    assert answer.found_nothing
    assert not await Citation.objects.filter(message=answer).aexists()
    assert answer.trace["hits"] == []


async def test_a_conversation_can_be_narrowed_to_a_collection(guide: None, alice: User) -> None:
    empty = await Collection.objects.acreate(name="Empty", created_by=alice)
    await sync_to_async(empty.grant)(alice, "owner")
    answer = await ask(alice, "When does the Morteratsch glacier melt?")
    await answer.conversation.collections.aadd(empty)

    assert (await answered(answer)).found_nothing


async def test_a_follow_up_is_searched_with_the_history(guide: None, alice: User) -> None:
    first = await answered(await ask(alice, "Where does the wheatear nest?"))

    second = await answered(await ask(alice, "And when does it leave?", parent=first))

    assert "wheatear" in second.trace["queries"][0]
    assert "September" in second.text


async def test_an_answer_is_produced_once_however_often_it_is_started(
    guide: None, alice: User, generator
) -> None:  # type: ignore[no-untyped-def]
    scripted = generator("It melts in late August [1].")
    answer = await ask(alice, "When does the Morteratsch glacier melt?")

    await asyncio.gather(*(answering.answer(answer.pk) for _ in range(5)))

    assert len(scripted.asked) == 1


async def test_two_tabs_follow_the_same_answer_and_can_resume(
    guide: None, alice: User, generator
) -> None:  # type: ignore[no-untyped-def]
    generator("It melts ", 0.2, "in late ", 0.2, "August [1].")
    answer = await ask(alice, "When does the Morteratsch glacier melt?")
    chat.start(answer.pk)

    async def follow(last_id: str = "0") -> list[tuple[str, str, str]]:
        return [
            (event.id, event.kind, event.data.get("text", ""))
            async for event in chat.tail(answer.pk, last_id)
            if event.kind != "ping"
        ]

    one, two = await asyncio.gather(follow(), follow())

    assert one == two
    assert "".join(text for _, _, text in one) == "It melts in late August [1]."
    assert [kind for _, kind, _ in one][-1] == "end"
    half = [event for event in one if event[1] == "text"][0]
    rest = await follow(half[0])
    assert half[2] + "".join(text for _, _, text in rest) == "It melts in late August [1]."


async def test_a_stopped_answer_keeps_what_was_written_and_stops_the_server(
    guide: None, alice: User, generator
) -> None:  # type: ignore[no-untyped-def]
    scripted = generator("It melts ", 30.0, "never")
    answer = await ask(alice, "When does the Morteratsch glacier melt?")
    running = asyncio.create_task(answering.answer(answer.pk))
    await asyncio.sleep(1.0)

    await sync_to_async(answer.request_stop)()
    await asyncio.wait_for(running, 3)

    await answer.arefresh_from_db()
    assert (answer.state, answer.text) == (Message.State.STOPPED, "It melts ")
    assert scripted.closed


async def test_a_model_server_that_breaks_off_leaves_the_partial_answer_and_a_sentence(
    guide: None, alice: User, generator
) -> None:  # type: ignore[no-untyped-def]
    generator("It melts in", GenerationError("The connection broke.", retryable=True))

    answer = await answered(await ask(alice, "When does the Morteratsch glacier melt?"))

    assert answer.state == Message.State.FAILED
    assert (answer.text, answer.error) == ("It melts in", "The connection broke.")
    assert answer.error_code == "retryable"


async def test_after_a_failure_an_extractive_answer_can_be_had(
    guide: None, alice: User, generator, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    with monkeypatch.context() as patched:
        broken = Scripted(GenerationError("The model server is busy.", retryable=True))
        patched.setattr(answering, "_generator", lambda name: broken)
        failed = await answered(await ask(alice, "When does the Morteratsch glacier melt fastest?"))

    again = await sync_to_async(chat.regenerate)(failed, generator="extractive")
    answer = await answered(again)

    assert answer.state == Message.State.DONE
    assert "late August" in answer.text


async def test_a_fault_of_ours_ends_the_answer_with_a_sentence(
    guide: None, alice: User, generator
) -> None:  # type: ignore[no-untyped-def]
    generator(ZeroDivisionError())

    answer = await answered(await ask(alice, "When does the Morteratsch glacier melt?"))

    assert (answer.state, answer.error) == (Message.State.FAILED, answering.BROKEN)


async def test_an_unsupported_sentence_is_marked(guide: None, alice: User, generator) -> None:  # type: ignore[no-untyped-def]
    generator(
        "The Morteratsch glacier melts fastest in late August [1]. ",
        "Penguins invented the telephone in Paraguay [1].",
    )

    answer = await answered(await ask(alice, "When does the Morteratsch glacier melt?"))

    assert [sentence["supported"] for sentence in answer.support] == [True, False]


async def test_a_real_model_server_answers_through_its_protocol(
    guide: None, alice: User, model_server, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    from kb.generators.chat_completions import ChatCompletionsGenerator

    real = ChatCompletionsGenerator(url=model_server.url, base_model="tgi")
    monkeypatch.setattr(answering, "_generator", lambda name: real)

    answer = await answered(await ask(alice, "When does the Morteratsch glacier melt?"))

    assert answer.state == Message.State.DONE
    assert answer.completion_tokens
    assert await answer.citations.filter(is_cited=True).aexists()
