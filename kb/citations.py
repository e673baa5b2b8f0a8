"""Which sources an answer names, whether they carry it, and whether a question has an answer at all."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from kb import languages
from kb.prompts import NOT_IN_DOCUMENTS, Source
from kb.sentences import (
    MARKER_GROUP,
    SentenceKind,
    content_words,
    split_sentences,
    words,
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


# Share of a sentence's content words that the cited passages must have. On the held-out halves of
# BEGIN and MTRAG 6 % of the supported answers and 12 % of the sentences of faithful ones were marked;
# 22 % of the unsupported answers and 6 % of the sentences on foreign passages were not
# (script/bench answers). Between 0.6 and 0.7 the sum of the errors changes little.
SUPPORT_THRESHOLD = 0.65
_CONTRADICTED = 0.5  # what a contradicted sentence keeps of its score: never the threshold


def check_support(answer_text: str, sources: Sequence[Source]) -> list[SentenceSupport]:
    """Judge each sentence by the passages it cites, or by all of them where it cites none.

    Words alone decide: adding MiniLM's cosine to the share of words found did not lower the errors.
    A number, a name or a negation that the passages do not have outweighs the words they share.
    """
    marks = find_citations(answer_text)
    by_marker = {source.marker: source for source in sources}
    language = languages.detect(" ".join(source.text for source in sources))
    judged: list[SentenceSupport] = []
    for sentence in split_sentences(answer_text):
        markers = tuple(
            dict.fromkeys(m.marker for m in marks if sentence.start <= m.start < sentence.end)
        )
        text = _bare(answer_text[sentence.start : sentence.end])
        cited = [by_marker[marker] for marker in markers if marker in by_marker]
        score = 1.0
        if not _claims_nothing(text, sentence.kind, language):
            evidence = _evidence(tuple(cited if markers else sources), language)
            score = _support(text, evidence, language)
        judged.append(
            SentenceSupport(
                sentence.start, sentence.end, markers, score, score >= SUPPORT_THRESHOLD
            )
        )
    return judged


_LIST_NUMBERS = re.compile(r"^[ \t>]*(?:[-*+•]|\(?\d{1,3}[.)])[ \t]+|[ \t]\d{1,2}\.$")
_MARKUP = re.compile(r"[*_`#|]+")


def _bare(sentence: str) -> str:
    """Take away what marks the sentence up: citations, emphasis, its number in a list."""
    return _LIST_NUMBERS.sub("", _MARKUP.sub(" ", _MARKER_GROUP.sub("", sentence)).strip()).strip()


# What an answer says about the documents, or about not knowing, claims nothing of their content.
_ABSENCE = re.compile(
    r"\b(?:documents?|sources?|passages?|context|text|information|details?|i|we)\b.{0,40}?"
    r"(?:\b(?:not|no|cannot|unable|without)\b|n['’]t\b).{0,40}?"
    r"\b(?:mention|contain|specif|provid|includ|stat|find|found|say|answer|have|information|cover|"
    r"describ|explain|address|indicat|know)"
    r"|\b(?:no|not enough|not any|insufficient) (?:\w+ )?(?:information|mention|details?)\b",
    re.IGNORECASE,
)
_ABOUT_THE_ANSWER = frozenset(
    """according document source passage context provid follow step here list include summary answer
    question base inform give exampl note reason""".split()  # noqa: SIM905
)


def _claims_nothing(text: str, kind: SentenceKind, language: str) -> bool:
    if kind == SentenceKind.HEADING or _ABSENCE.search(text) or text in NOT_IN_DOCUMENTS:
        return True
    carrying = content_words(text, language)
    if text.endswith(":"):
        carrying = [word for word in carrying if word not in _ABOUT_THE_ANSWER]
    return len(carrying) < 2


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What passages hold: stemmed content words, those negated and not, all words, numbers."""

    content: frozenset[str]
    negated: frozenset[str]
    affirmed: frozenset[str]
    words: frozenset[str]
    numbers: frozenset[str]


@lru_cache(maxsize=16)
def _evidence(sources: tuple[Source, ...], language: str) -> _Evidence:
    text = "\n".join(" ".join((s.title, *s.heading_path, s.text)) for s in sources)
    content, negated = Counter(content_words(text, language)), _negated(text, language)
    every = frozenset(words(text))
    return _Evidence(
        content=frozenset(content),
        negated=frozenset(negated),
        affirmed=frozenset(word for word in content if content[word] > negated[word]),
        words=every,
        numbers=frozenset(_NUMBERS.get(word, word) for word in every),
    )


def _support(text: str, evidence: _Evidence, language: str) -> float:
    wanted = content_words(text, language)
    return _share(wanted, evidence) * (
        _CONTRADICTED if _contradicts(text, wanted, evidence, language) else 1.0
    )


def _share(wanted: Sequence[str], evidence: _Evidence) -> float:
    return sum(word in evidence.content for word in wanted) / max(len(wanted), 1)


_NEGATION = {
    "english": re.compile(
        r"\b(?:not|never|no|without|neither|nor|cannot|\w+n['’]t)\b(?!,)"
        r"(?! (?:only|just|necessarily|merely|always|all|every)\b)((?:\s+[\w'’-]+){1,3})",
        re.IGNORECASE,
    ),
    "german": re.compile(r"\b(?:kein\w*|ohne|nie|niemals)((?:\s+\w+){1,2})", re.IGNORECASE),
    "spanish": re.compile(r"\b(?:no|nunca|sin|jamás)\b(?!,)((?:\s+\w+){1,3})", re.IGNORECASE),
}


def _negated(text: str, language: str) -> Counter[str]:
    """Count the words that follow a negation: "do not share it" gives {"share": 1}."""
    found: Counter[str] = Counter()
    pattern = _NEGATION.get(language)
    for match in pattern.finditer(text) if pattern else ():
        found.update(content_words(match[1], language)[:1])
    return found


def _contradicts(text: str, wanted: Sequence[str], evidence: _Evidence, language: str) -> bool:
    """Say whether a sentence has a number, a part of a name or a negation that nothing backs."""
    negated = _negated(text, language)
    turned = any(word in evidence.affirmed and word not in evidence.negated for word in negated)
    turned = turned or any(
        word in evidence.negated and word not in evidence.affirmed and word not in negated
        for word in wanted
    )
    return (
        turned
        or any(word[0].isdigit() and word not in evidence.numbers for word in words(text))
        or any(_is_half_known(name.group(), evidence) for name in _NAME.finditer(text))
        or (not _SELF.isdisjoint(words(text)) and _SELF.isdisjoint(evidence.words))
    )


_NUMBERS = {
    **{"one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7"},
    **{"eight": "8", "nine": "9", "ten": "10", "eleven": "11", "twelve": "12"},
}
_SELF = frozenset({"i", "i'm", "i've", "my", "me"})  # a document's claim is nobody's opinion
# Two or more capitalized words that do not open the sentence.
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][\w’'-]+(?: [A-Z][\w’'-]+)+")


def _is_half_known(name: str, evidence: _Evidence) -> bool:
    """Tell "Carlos Lopez" where the passages have only a Maria Lopez."""
    known = [word in evidence.words for word in words(name)]
    return any(known) and not all(known)


@dataclass(frozen=True, slots=True)
class Answerability:
    """Whether the passages found hold an answer; `score` 0–1, `answerable` where it is high enough.

    `coverage`: share of the question's content words in the passage that has most of them.
    `similarity`: cosine of question and closest passage.
    """

    score: float
    answerable: bool
    coverage: float
    similarity: float


# Calibrated for all-MiniLM-L6-v2 on the first halves of MTRAG, XQuAD and TruthfulQA at once, an
# abstention in vain counted double: script/bench answers, docs/measurements.md. Another model's
# cosines need another threshold.
ANSWERABLE_THRESHOLD = 0.45
COVERAGE_WEIGHT = 0.4


def is_answerable(question: str, sources: Sequence[Source]) -> Answerability:
    """Tell whether anything relevant was found, so that a chat can say no instead of guessing.

    Words alone decide where no passage has a similarity, as when the embedding model is away.
    """
    language = languages.detect(" ".join(source.text for source in sources))
    wanted = content_words(question, language)
    coverage = max((_share(wanted, _evidence((s,), language)) for s in sources), default=0.0)
    similarity = max((source.similarity for source in sources), default=0.0)
    score = coverage
    if any(source.similarity for source in sources):
        score = COVERAGE_WEIGHT * coverage + (1 - COVERAGE_WEIGHT) * max(similarity, 0.0)
    return Answerability(score, score >= ANSWERABLE_THRESHOLD, coverage, similarity)
