"""From a line of a snapshot to token ids, and which of them are learned. No torch.

Only the last answer of a conversation is learned. The mask is not guessed from marks in the text:
the prompt is rendered as the server will render it, and must be the beginning of prompt and answer
rendered together. A row for which that does not hold is dropped with its number and the reason.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from finetune.packing import Part

Message = dict[str, str]
SplitName = Literal["train", "validation", "test"]
_CUT = " … "
# Of the last question and its sources; with less of it there would be nothing to answer.
_LEAST_CHARS = 64


class Tokenizer(Protocol):
    """What is used of a transformers tokenizer."""

    eos_token_id: int | None

    @property
    def apply_chat_template(self) -> Callable[..., Any]: ...

    @property
    def __call__(self) -> Callable[..., Any]: ...


class SnapshotUnreadable(Exception):
    """The snapshot is not JSON lines with messages; says which line."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a snapshot, its number counted from 1. `rejected`: the worse answer, for DPO."""

    number: int
    messages: list[Message]
    rejected: str = ""


@dataclass(frozen=True, slots=True)
class Example:
    """A line as token ids. `rejected` is None for supervised rows; `truncated`: context was cut."""

    number: int
    chosen: Part
    rejected: Part | None
    truncated: bool

    @property
    def parts(self) -> list[Part]:
        return [self.chosen] if self.rejected is None else [self.chosen, self.rejected]

    @property
    def length(self) -> int:
        return sum(len(part.ids) for part in self.parts)

    @property
    def learned(self) -> int:
        """Tokens that the loss counts."""
        return sum(len(part.ids) - part.answer_start for part in self.parts)


@dataclass(frozen=True, slots=True)
class Dropped:
    """A line that is left out. `masked`: it has, or would keep, no token that the loss counts."""

    number: int
    reason: str
    masked: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    examples: list[Example]
    dropped: list[Dropped]


class _Unusable(Exception):
    """This row cannot be learned from; says why, and whether its mask would cover everything."""

    def __init__(self, reason: str, *, masked: bool = False) -> None:
        super().__init__(reason)
        self.masked = masked


def read_lines(data: Path, split: SplitName) -> list[Line]:
    """Read the lines of one split. Raises SnapshotUnreadable with the number of a bad line."""
    with data.open(encoding="utf-8") as file:
        found = (_line(number, text) for number, text in enumerate(file, start=1) if text.strip())
        return [line for line, of in found if of == split]


def _line(number: int, text: str) -> tuple[Line, str]:
    try:
        row = json.loads(text)
        messages = [{"role": m["role"], "content": m["content"]} for m in row["messages"]]
        line = Line(number, messages, row.get("rejected") or "")
        return line, row.get("split", "train")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SnapshotUnreadable(
            f"Line {number} of the snapshot cannot be read: {error}"
        ) from error


def prepare(
    lines: Sequence[Line], tokenizer: Tokenizer, *, max_length: int, preferences: bool = False
) -> Prepared:
    """Turn lines into examples of at most `max_length` tokens, each answer whole.

    `preferences`: rows need a rejected answer beside the good one.
    """
    examples, dropped = [], []
    for line in lines:
        try:
            examples.append(_example(line, tokenizer, max_length, preferences))
        except _Unusable as reason:
            dropped.append(Dropped(line.number, str(reason), reason.masked))
    return Prepared(examples, dropped)


def _example(line: Line, tokenizer: Tokenizer, max_length: int, preferences: bool) -> Example:
    *context, answer = line.messages or [{"role": "", "content": ""}]
    if answer["role"] != "assistant" or not answer["content"].strip():
        raise _Unusable("The last message is not an answer of the assistant.", masked=True)
    if not context:
        raise _Unusable("There is no question before the answer.")
    if preferences and not line.rejected.strip():
        raise _Unusable("There is no rejected answer to compare with.")
    answers = [answer["content"], line.rejected] if preferences else [answer["content"]]

    def build(messages: list[Message]) -> list[Part]:
        return [part_of(messages, text, tokenizer) for text in answers]

    parts = build(context)
    if truncated := _longest(parts) > max_length:
        parts = _fitted(context, build, max_length)
    return Example(line.number, parts[0], parts[1] if preferences else None, truncated)


def part_of(context: list[Message], answer: str, tokenizer: Tokenizer) -> Part:
    """Give the token ids of a conversation and where its last answer starts.

    The ids end with the stop token, which is learned with the answer: what a template puts after
    it is left out, and a template without one gets it. Raises for a template whose prompt is not
    the beginning of prompt and answer.
    """
    prompt = _ids(tokenizer, context, add_generation_prompt=True)
    whole = _ids(tokenizer, [*context, {"role": "assistant", "content": answer}])
    if whole[: len(prompt)] != prompt or len(whole) == len(prompt):
        raise _Unusable(
            "The chat template renders the prompt differently once an answer follows, so that the "
            "answer cannot be told from it."
        )
    return Part(prompt + _stopped(whole[len(prompt) :], tokenizer.eos_token_id), len(prompt))


def _ids(tokenizer: Tokenizer, messages: list[Message], **options: bool) -> list[int]:
    """Render and tokenize in two steps, as servers do: the template writes every control token."""
    text = tokenizer.apply_chat_template(messages, tokenize=False, **options)
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _stopped(answer: list[int], stop: int | None) -> list[int]:
    if stop is None:
        raise _Unusable("The tokenizer has no stop token, so the model would never learn to end.")
    if stop not in answer:
        return [*answer, stop]
    return answer[: len(answer) - answer[::-1].index(stop)]


def _longest(parts: list[Part]) -> int:
    return max(len(part.ids) for part in parts)


def _fitted(
    context: list[Message], build: Callable[[list[Message]], list[Part]], max_length: int
) -> list[Part]:
    """Shorten the context until all parts fit: older turns first, then the sources.

    How much of the message has to go is reckoned from how long its tokens are on average, so that
    a row is tokenized a few times only; what stays may be a few tokens short of `max_length`.
    """
    messages, parts = context, build(context)
    for messages in _without_history(context):
        if _longest(parts := build(messages)) <= max_length:
            return parts
    kept = len(messages[-1]["content"])
    chars_a_token = sum(len(each["content"]) for each in messages) / _longest(parts)
    while kept > _LEAST_CHARS:
        too_many = _longest(parts) - max_length
        kept = max(_LEAST_CHARS, kept - math.ceil(too_many * chars_a_token) - len(_CUT))
        parts = build([*messages[:-1], _shortened(messages[-1], kept)])
        if _longest(parts) <= max_length:
            return parts
    reason = f"The answer and its question do not fit into {max_length} tokens."
    raise _Unusable(reason, masked=True)


def _without_history(context: list[Message]) -> Iterator[list[Message]]:
    """Leave out the oldest exchange, then the next, until only instructions and question remain."""
    first = 1 if context and context[0]["role"] == "system" else 0
    for start in range(first + 2, len(context), 2):
        yield [*context[:first], *context[start:]]


def _shortened(message: Message, kept: int) -> Message:
    """Cut the middle out of a message: its start has the best sources, its end the question."""
    text, end = message["content"], kept // 2
    return {**message, "content": text[: kept - end] + _CUT + text[-end:]}
