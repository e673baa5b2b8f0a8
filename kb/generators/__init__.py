"""Generation backends: what they yield, how they fail, and the contract they share."""

import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from kb.prompts import Source, Turn


class GenerationError(Exception):
    """The answer could not be generated; the message is a sentence for the person who asked.

    `retryable`: the same request may work in a moment. `retry_after_s`: the server's wish, 0 if
    it did not say.
    """

    def __init__(self, sentence: str, *, retryable: bool, retry_after_s: float = 0.0) -> None:
        super().__init__(sentence)
        self.retryable = retryable
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class TextPart:
    """The next piece of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class UsagePart:
    """The last part of an answer. `finish_reason`: "stop", or "length" where it was cut short."""

    prompt_tokens: int
    completion_tokens: int
    finish_reason: str


Part = TextPart | UsagePart
# PostgreSQL keeps no NUL, and UTF-8 has no halves of surrogate pairs; small models write both.
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def storable(written: str) -> str:
    """Put U+FFFD where a model wrote what no row can hold."""
    return _UNSTORABLE.sub("\ufffd", written)


class Generator(Protocol):
    """Answers a list of messages. Close the iterator to stop early."""

    base_model: str
    label: str  # shown to people beside the answer

    def stream(
        self,
        messages: Sequence[Turn],
        sources: Sequence[Source],
        *,
        question: str,
        adapter: str = "",
        max_tokens: int = 512,
    ) -> AsyncGenerator[Part, None]: ...

    async def probe(self, adapter: str = "") -> None: ...
