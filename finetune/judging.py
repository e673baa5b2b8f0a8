"""Ask a model, JUDGE_URL's or that of the chats, which answer is better. Position decides nothing."""

from collections.abc import Sequence
from contextlib import aclosing

from django.conf import settings

from kb.backends import get_backend
from kb.generators import Generator, TextPart
from kb.prompts import Turn, build_judging_messages

MOST_TOKENS = 16


def has_model() -> bool:
    return bool(settings.JUDGE or settings.GENERATOR_NAME != "extractive")


def label() -> str:
    """Name the model that judges, for people: the judge's own, or that of the chats."""
    name = _generator().base_model
    return f"The judge ({name})" if settings.JUDGE else f"The model of the chats ({name})"


def _generator() -> Generator:
    generator: Generator = get_backend("JUDGE" if settings.JUDGE else "GENERATOR")
    return generator


async def prefer(question: str, expected: str, first: str, second: str) -> str:
    """Give "first", "second" or "tie". Asked twice, with the answers in both orders.

    Models favour a place; a verdict that does not survive the exchange is a tie. Raises
    GenerationError.
    """
    straight = await _said(build_judging_messages(question, expected, first, second))
    swapped = await _said(build_judging_messages(question, expected, second, first))
    if straight == "1" and swapped == "2":
        return "first"
    return "second" if straight == "2" and swapped == "1" else "tie"


async def _said(messages: Sequence[Turn]) -> str:
    """Give the first 1, 2 or 0 that the model writes; "0" where it writes none."""
    text = ""
    parts = _generator().stream(messages, [], question="", max_tokens=MOST_TOKENS)
    async with aclosing(parts):
        async for part in parts:
            if isinstance(part, TextPart):
                text += part.text
    return next((sign for sign in text if sign in "012"), "0")
