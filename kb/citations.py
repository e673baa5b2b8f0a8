"""Which sources an answer names, whether they carry it, and whether a question has an answer at all."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kb import languages
from kb.prompts import NOT_IN_DOCUMENTS, Source
from kb.sentences import (
    MARKER_GROUP,
    SentenceKind,
    content_words,
    split_sentences,
)

__all__ = ["split_sentences"]


@dataclass(frozen=True, slots=True)
class CitationMark:
    """A named source; the marks of one bracket such as [1, 3] share its span [start, end)."""

    marker: int
    start: int
    end: int


_CODE = re.compile(
    r"(?P<fence>`{3,}|~{3,})[^\n]*\n.*?(?:(?P=fence)|\Z)|(?P<ticks>`+)(?!`).*?(?<!`)(?P=ticks)(?!`)",
    re.DOTALL,
)
_MARKER_GROUP = re.compile(MARKER_GROUP)
_NUMBER_OR_RANGE = re.compile(r"(\d{1,2})(?:[ \t]*[-–][ \t]*(\d{1,2}))?")


def find_citations(answer_text: str) -> list[CitationMark]:
    """Find [1], [1, 3], [2-4], [^1], [source 1] and 【1】 outside code, links and link definitions.

    Numbers above 99, such as the year in [2024], are not markers.
    """
    code = [match.span() for match in _CODE.finditer(answer_text)]
    marks: list[CitationMark] = []
    for group in _MARKER_GROUP.finditer(answer_text):
        start, end = group.span()
        if any(code_start <= start < code_end for code_start, code_end in code):
            continue
        if (
            answer_text[end : end + 1] == ":"
            and not answer_text[:start].rpartition("\n")[2].strip()
        ):
            continue  # "[1]: https://…" defines a link
        marks.extend(CitationMark(marker, start, end) for marker in _markers(group.group()))
    return marks


def _markers(group: str) -> list[int]:
    """Read the numbers of one bracket: "[1, 3-5]" gives [1, 3, 4, 5]."""
    found: list[int] = []
    for first, last in _NUMBER_OR_RANGE.findall(group.partition("†")[0]):
        through = int(last) if last else int(first)
        found.extend(range(int(first), min(through, int(first) + 19) + 1) or [int(first)])
    return [marker for marker in dict.fromkeys(found) if marker > 0]


@dataclass(frozen=True, slots=True)
class SentenceSupport:
    """How well the cited passages carry one sentence of an answer.

    `start`, `end`: [start, end) in the answer. `score`: 0–1. A sentence that claims nothing
    (greeting, heading, "not in the documents") is supported with score 1.
    """

    start: int
    end: int
    markers: tuple[int, ...]
    score: float
    supported: bool


SUPPORT_THRESHOLD = 0.5


def check_support(
    answer_text: str,
    sources: Sequence[Source],
    embed: Callable[[Sequence[str]], object] | None = None,
) -> list[SentenceSupport]:
    """Judge each sentence by the passages it cites, or by all of them where it cites none."""
    marks = find_citations(answer_text)
    by_marker = {source.marker: source for source in sources}
    judged: list[SentenceSupport] = []
    for sentence in split_sentences(answer_text):
        markers = tuple(
            dict.fromkeys(m.marker for m in marks if sentence.start <= m.start < sentence.end)
        )
        text = _MARKER_GROUP.sub("", answer_text[sentence.start : sentence.end])
        if claims_nothing(text, sentence.kind):
            judged.append(SentenceSupport(sentence.start, sentence.end, markers, 1.0, True))
            continue
        cited = [by_marker[marker] for marker in markers if marker in by_marker]
        score = _containment(text, cited if markers else sources)
        judged.append(
            SentenceSupport(
                sentence.start, sentence.end, markers, score, score >= SUPPORT_THRESHOLD
            )
        )
    return judged


def claims_nothing(text: str, kind: SentenceKind) -> bool:
    bare = text.strip(" \t*_.:!#-")
    return kind == SentenceKind.HEADING or len(content_words(bare)) < 2 or bare in NOT_IN_DOCUMENTS


def _containment(text: str, sources: Sequence[Source]) -> float:
    language = languages.detect(" ".join(source.text for source in sources))
    found = set(
        content_words(
            " ".join(f"{s.title} {' '.join(s.heading_path)} {s.text}" for s in sources), language
        )
    )
    wanted = content_words(text, language)
    return sum(word in found for word in wanted) / len(wanted) if wanted else 1.0


@dataclass(frozen=True, slots=True)
class Answerability:
    """Whether the passages found hold an answer; `score` 0–1, `answerable` where it is high enough.

    `coverage`: share of the question's content words, weighted by rarity, in the best passage.
    `similarity`: cosine of question and closest passage.
    """

    score: float
    answerable: bool
    coverage: float
    similarity: float


ANSWERABLE_THRESHOLD = 0.4


def is_answerable(question: str, sources: Sequence[Source]) -> Answerability:
    """Tell whether anything relevant was found, so that a chat can say no instead of guessing."""
    coverage = max((_containment(question, [source]) for source in sources), default=0.0)
    similarity = max((source.similarity for source in sources), default=0.0)
    score = max(coverage * 0.7, similarity)
    return Answerability(score, score >= ANSWERABLE_THRESHOLD, coverage, similarity)
