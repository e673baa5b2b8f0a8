"""Against a real second process: tests/stub_model_server.py."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from kb.generators import GenerationError, Part, TextPart, UsagePart
from kb.generators.chat_completions import ChatCompletionsGenerator
from kb.prompts import Source, Turn, build_messages
from tests.model_server import ModelServer

QUESTION = "How much sick leave do I earn?"
SOURCES = [
    Source(
        1,
        "Leave",
        ("Sick leave",),
        1,
        "You earn 4 hours of sick leave a pay period. It never expires.",
        1.0,
    )
]
MESSAGES = build_messages(QUESTION, SOURCES)
ANSWER = "You earn 4 hours of sick leave a pay period. [1]"


def ask(
    generator: ChatCompletionsGenerator, adapter: str = "", max_tokens: int = 512
) -> AsyncIterator[Part]:
    return generator.stream(
        MESSAGES, SOURCES, question=QUESTION, adapter=adapter, max_tokens=max_tokens
    )


async def answer(
    generator: ChatCompletionsGenerator, adapter: str = "", max_tokens: int = 512
) -> tuple[str, UsagePart]:
    parts = [part async for part in ask(generator, adapter, max_tokens)]
    assert isinstance(parts[-1], UsagePart)
    return "".join(part.text for part in parts if isinstance(part, TextPart)), parts[-1]


@pytest.fixture
def generator(model_server: ModelServer) -> ChatCompletionsGenerator:
    return ChatCompletionsGenerator(model_server.url, timeout_s=5, first_token_timeout_s=10)


async def test_an_answer_arrives_in_pieces_and_then_its_usage(
    generator: ChatCompletionsGenerator, model_server: ModelServer
) -> None:
    text, usage = await answer(generator)

    assert text == ANSWER
    assert usage.finish_reason == "stop"
    assert usage.completion_tokens == 11
    assert usage.prompt_tokens > 50
    asked = model_server.stats()["last_request"]
    assert asked["model"] == "tgi"
    assert [message["role"] for message in asked["messages"]] == ["system", "user"]


async def test_the_adapter_is_asked_for_by_its_name(
    generator: ChatCompletionsGenerator, model_server: ModelServer
) -> None:
    await answer(generator, adapter="handbook-7f3a")

    assert model_server.stats()["last_request"]["model"] == "handbook-7f3a"


async def test_an_adapter_that_the_server_does_not_have_is_not_asked_for(
    model_server: ModelServer,
) -> None:
    def why_unserved(adapter: str) -> str:
        return "" if adapter == "handbook-7f3a" else f"“{adapter}” is not there."

    careful = ChatCompletionsGenerator(model_server.url, why_unserved=why_unserved)
    await answer(careful, adapter="handbook-7f3a")
    with pytest.raises(GenerationError, match="“manual-0000” is not there") as failure:
        await answer(careful, adapter="manual-0000")
    assert failure.value.retryable
    assert model_server.stats()["last_request"]["model"] == "handbook-7f3a"
    await answer(careful)  # the base model needs nothing


@pytest.mark.parametrize("dialect", ["no-done", "crlf", "comments", "eos-token"])
async def test_the_dialects_of_other_servers_read_the_same(
    generator: ChatCompletionsGenerator, dialect: str
) -> None:
    text, usage = await answer(generator, f"stub-{dialect}")

    assert (text, usage.finish_reason) == (ANSWER, "stop")


async def test_letters_split_over_network_packets_stay_whole(
    generator: ChatCompletionsGenerator,
) -> None:
    text, _ = await answer(generator, "stub-split-bytes")

    assert text.startswith("Größe: 10 € – 日本語 🙂 You earn")


async def test_what_no_row_can_hold_is_replaced(generator: ChatCompletionsGenerator) -> None:
    text, _ = await answer(generator, "stub-unstorable")

    assert text.startswith("\ufffdYou earn")
    assert text.endswith(" \ufffd.")


async def test_an_answer_cut_by_the_token_limit_says_so(
    generator: ChatCompletionsGenerator,
) -> None:
    text, usage = await answer(generator, "stub-fast-long", max_tokens=12)

    assert usage.finish_reason == "length"
    assert len(text.split()) == 12


async def test_an_empty_answer_is_not_a_failure(generator: ChatCompletionsGenerator) -> None:
    text, usage = await answer(generator, "stub-empty")

    assert (text, usage.finish_reason) == ("", "stop")


@pytest.mark.parametrize(
    ("behaviour", "retryable", "words"),
    [
        ("401", False, "MODEL_SERVER_KEY"),
        ("404", False, "does not know the model “stub-404”"),
        ("422", False, "too long"),
        ("422-text", False, "did not accept"),
        ("429", True, "busy"),
        ("424", True, "failed"),
        ("500", True, "failed"),
        ("503", True, "not ready"),
        ("html-page", False, "MODEL_SERVER_URL"),
        ("error-in-stream", True, "failed"),
        ("error-text-in-stream", True, "failed"),
        ("cut", True, "broke"),
    ],
)
async def test_every_failure_is_a_sentence_and_says_whether_to_try_again(
    generator: ChatCompletionsGenerator, behaviour: str, retryable: bool, words: str
) -> None:
    with pytest.raises(GenerationError, match=words) as failure:
        await answer(generator, f"stub-{behaviour}")

    assert failure.value.retryable is retryable
    assert str(failure.value).endswith(".")


async def test_a_busy_server_says_when_to_come_back(generator: ChatCompletionsGenerator) -> None:
    with pytest.raises(GenerationError) as failure:
        await answer(generator, "stub-429")

    assert failure.value.retry_after_s == 7


async def test_what_came_before_the_cut_was_delivered(generator: ChatCompletionsGenerator) -> None:
    parts = ask(generator, "stub-cut")
    delivered = [await anext(parts) for _ in range(3)]
    with pytest.raises(GenerationError):
        await anext(parts)

    assert delivered == [TextPart("You"), TextPart(" earn"), TextPart(" 4")]


async def test_nobody_listening_is_said_quickly() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        generator = ChatCompletionsGenerator(f"http://127.0.0.1:{unused.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(GenerationError, match="cannot be reached") as failure:
            await answer(generator)

    assert failure.value.retryable
    assert time.monotonic() - began < 2


async def test_a_name_that_does_not_resolve_is_unreachable() -> None:
    with pytest.raises(GenerationError, match="cannot be reached"):
        await answer(ChatCompletionsGenerator("http://model-server.invalid"))


async def test_a_slow_first_word_is_waited_for(generator: ChatCompletionsGenerator) -> None:
    text, _ = await answer(generator, "stub-slow")

    assert text == ANSWER


async def test_no_first_word_in_time_is_a_failure(model_server: ModelServer) -> None:
    impatient = ChatCompletionsGenerator(model_server.url, first_token_timeout_s=0.3)

    with pytest.raises(GenerationError, match="took too long"):
        await answer(impatient, "stub-slow")


async def test_silence_in_the_middle_is_a_failure(model_server: ModelServer) -> None:
    impatient = ChatCompletionsGenerator(model_server.url, timeout_s=0.3)

    with pytest.raises(GenerationError, match="stopped in the middle"):
        await answer(impatient, "stub-stall")


async def test_keep_alive_comments_are_not_taken_for_life(model_server: ModelServer) -> None:
    impatient = ChatCompletionsGenerator(model_server.url, timeout_s=0.6)

    with pytest.raises(GenerationError, match="stopped in the middle"):
        await answer(impatient, "stub-stall-alive")


async def wait_for_cancel(model_server: ModelServer) -> float:
    """Return the Unix time at which the stub saw its client hang up."""
    for _ in range(100):
        if (stats := model_server.stats())["cancelled"]:
            assert stats["running"] == 0
            return float(stats["last_cancel_at"])
        await asyncio.sleep(0.02)
    raise AssertionError("the stub still generates")


async def test_closing_the_iterator_cancels_the_request_upstream(
    generator: ChatCompletionsGenerator, model_server: ModelServer
) -> None:
    async with aclosing(ask(generator, "stub-long", max_tokens=4000)) as parts:
        async for _ in parts:
            break
    closed_at = time.time()

    assert await wait_for_cancel(model_server) - closed_at < 2


async def test_cancelling_the_task_cancels_the_request_upstream(
    generator: ChatCompletionsGenerator, model_server: ModelServer
) -> None:
    task = asyncio.create_task(answer(generator, "stub-stall"))
    while not model_server.stats()["running"]:
        await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await wait_for_cancel(model_server)


async def test_more_answers_at_once_than_allowed_are_refused(model_server: ModelServer) -> None:
    narrow = ChatCompletionsGenerator(model_server.url, max_concurrent=1)
    async with aclosing(ask(narrow, "stub-long")) as parts:
        await anext(parts)
        with pytest.raises(GenerationError, match="busy") as failure:
            await answer(narrow)

    assert failure.value.retryable
    assert (await answer(narrow))[0] == ANSWER


async def test_forty_answers_stream_side_by_side(generator: ChatCompletionsGenerator) -> None:
    answers = await asyncio.gather(*(answer(generator) for _ in range(40)))

    assert {text for text, _ in answers} == {ANSWER}


async def test_a_server_that_ignores_the_token_limit_is_stopped(
    generator: ChatCompletionsGenerator, model_server: ModelServer
) -> None:
    text, usage = await answer(generator, "stub-endless", max_tokens=10)

    assert usage.finish_reason == "length"
    assert len(text.split()) < 40
    assert await wait_for_cancel(model_server)


async def test_the_key_travels_and_no_key_sends_none(
    generator: ChatCompletionsGenerator, model_server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret_of_this_machine")
    await answer(ChatCompletionsGenerator(model_server.url, api_key="k-1"))
    assert model_server.stats()["last_headers"]["authorization"] == "Bearer k-1"

    await answer(generator)
    assert "authorization" not in model_server.stats()["last_headers"]


async def test_a_proxy_in_the_environment_is_not_used(
    model_server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")

    assert (await answer(ChatCompletionsGenerator(model_server.url)))[0] == ANSWER


async def test_the_address_may_end_with_v1(model_server: ModelServer) -> None:
    assert (await answer(ChatCompletionsGenerator(f"{model_server.url}/v1/")))[0] == ANSWER


async def test_the_probe_is_silent_when_all_is_well(generator: ChatCompletionsGenerator) -> None:
    await generator.probe()


@pytest.mark.parametrize("behaviour", ["404", "503", "error-in-stream", "cut"])
async def test_the_probe_raises_what_the_server_answers(
    generator: ChatCompletionsGenerator, behaviour: str
) -> None:
    with pytest.raises(GenerationError):
        await generator.probe(f"stub-{behaviour}")


async def test_the_history_reaches_the_server_in_order(
    generator: ChatCompletionsGenerator, model_server: ModelServer
) -> None:
    history = [Turn("user", "Hi"), Turn("assistant", "Hello.")]
    messages = build_messages(QUESTION, SOURCES, history)
    async for _ in generator.stream(messages, SOURCES, question=QUESTION):
        pass

    sent = model_server.stats()["last_request"]["messages"]
    assert [message["role"] for message in sent] == ["system", "user", "assistant", "user"]
