"""Answer with the best sentences of the passages, word for word. Needs no model server."""

import asyncio
import math
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from kb.generators import Part, TextPart, UsagePart
from kb.prompts import NOT_IN_DOCUMENTS, Source, Turn
from kb.sentences import (
    MARKER_GROUP,
    Sentence,
    SentenceKind,
    content_words,
    language_of,
    split_sentences,
)

Embed = Callable[[Sequence[str]], np.ndarray]  # texts to (N, D) rows of unit length

MAX_SENTENCES = 5
_KEEP_SHARE = 0.72  # of the best sentence's score that a further sentence must reach
_CHARS_PER_TOKEN = 3.5


class ExtractiveGenerator:
    """Picks sentences by the question's words and, given `embed`, by meaning."""

    base_model = "extractive"
    label = "Extractive – sentences quoted from the documents"

    def __init__(self, embed: Embed | None = None, max_sentences: int = MAX_SENTENCES) -> None:
        self._embed = embed
        self._max_sentences = max_sentences

    async def stream(
        self,
        messages: Sequence[Turn],
        sources: Sequence[Source],
        *,
        question: str,
        adapter: str = "",
        max_tokens: int = 512,
    ) -> AsyncIterator[Part]:
        """Yield the answer sentence by sentence, each with its citation. Counts no tokens."""
        picked = await asyncio.to_thread(
            pick, question, sources, embed=self._embed, limit=self._max_sentences
        )
        chars_left = max_tokens * _CHARS_PER_TOKEN
        for number, text in enumerate(_render(picked)):
            chars_left -= len(text)
            if number and chars_left < 0:
                yield UsagePart(0, 0, "length")
                return
            yield TextPart(text)
        if not picked:
            yield TextPart(NOT_IN_DOCUMENTS)
        yield UsagePart(0, 0, "stop")

    async def probe(self, adapter: str = "") -> None:
        """Nothing can be away: there is no server."""


@dataclass(slots=True)
class Candidate:
    """A sentence of a source that may be quoted."""

    source: Source
    position: int  # among the source's sentences, from 0
    sentence: Sentence
    text: str
    words: frozenset[str]
    context: frozenset[str]  # words of title, headings and the lines that lead in
    score: float = 0.0
    with_before: list["Candidate"] = field(default_factory=list)


def pick(
    question: str,
    sources: Sequence[Source],
    *,
    embed: Embed | None = None,
    limit: int = MAX_SENTENCES,
) -> list[Candidate]:
    """Choose the sentences that answer the question best, in reading order."""
    language = language_of(" ".join(source.text for source in sources))
    candidates = [c for source in sources for c in _candidates(source, language)]
    if not candidates:
        return []
    _score(question, candidates, language, embed)
    chosen = _choose(candidates, limit)
    order = {id(source): rank for rank, source in enumerate(sources)}
    first_of = list(dict.fromkeys(id(c.source) for c in chosen))
    del order
    chosen = _with_lead_ins(chosen, candidates)
    return sorted(chosen, key=lambda c: (first_of.index(id(c.source)), c.position))


_IMAGE = re.compile(r"!\[[^\]]*\]\([^)]*\)")
_SPACE = re.compile(r"\s+")
_FOREIGN_MARKER = re.compile(rf"[ \t]*{MARKER_GROUP}")


def _candidates(source: Source, language: str) -> Iterator[Candidate]:
    above = content_words(" ".join((source.title, *source.heading_path)), language)
    lead_in: list[str] = []
    for position, sentence in enumerate(split_sentences(source.text)):
        text = source.text[sentence.start : sentence.end]
        if sentence.kind != SentenceKind.CODE:
            text = _SPACE.sub(" ", _FOREIGN_MARKER.sub("", _IMAGE.sub("", text))).strip()
        words = content_words(text, language)
        yield Candidate(
            source, position, sentence, text, frozenset(words), frozenset([*above, *lead_in])
        )
        if sentence.kind == SentenceKind.HEADING or text.endswith(("?", ":")):
            lead_in = words


def _score(
    question: str, candidates: Sequence[Candidate], language: str, embed: Embed | None
) -> None:
    """Weigh the question's words by rarity among the sentences; context words count less."""
    wanted = list(dict.fromkeys(content_words(question, language)))
    found_in = Counter(word for c in candidates for word in c.words)
    weight = {w: math.log(1 + len(candidates) / (1 + found_in[w])) for w in wanted}
    total = sum(weight.values()) or 1.0
    meaning = _similarities(question, candidates, embed)
    best_source = max(c.source.score for c in candidates) or 1.0
    for number, c in enumerate(candidates):
        before = candidates[number - 1].words if c.position else frozenset()
        lexical = sum(
            weight[w]
            * (1.0 if w in c.words else 0.5 if w in c.context else 0.3 if w in before else 0.0)
            for w in wanted
        )
        c.score = lexical / total + meaning[number] + _fit(question, c)
        c.score += 0.1 * c.source.score / best_source
        if c.sentence.kind == SentenceKind.HEADING or c.text.endswith("?") or len(c.words) < 2:
            c.score *= 0.3


def _similarities(
    question: str, candidates: Sequence[Candidate], embed: Embed | None
) -> Sequence[float]:
    if embed is None:
        return [0.0] * len(candidates)
    vectors = embed([question, *(c.text for c in candidates)])
    return [float(value) for value in vectors[1:] @ vectors[0]]


_ASKS_NUMBER = re.compile(
    r"\b(?:how (?:many|much|long|old|far|often|tall|big)|what (?:year|date|percent\w*|time|number)|when|wie ?viele?|wann|combien|quand|cuánt\w+|cuándo)\b",
    re.I,
)
_HAS_NUMBER = re.compile(
    r"\d|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|hundred|thousand|million|once|twice|daily|weekly|monthly|january|february|march|april|june|july|august|september|october|november|december|monday|tuesday|wednesday|thursday|friday)\b",
    re.I,
)
_ASKS_NAME = re.compile(r"\b(?:who|whom|whose|wer|wem|wen|qui|quién)\b", re.I)
_HAS_NAME = re.compile(r"(?<!^)(?<![.!?] )\b[A-Z][a-z]+")


def _fit(question: str, candidate: Candidate) -> float:
    """Reward a sentence that has the kind of thing asked for: a number or date, a name."""
    if _ASKS_NUMBER.search(question) and _HAS_NUMBER.search(candidate.text):
        return 0.12
    if _ASKS_NAME.search(question) and _HAS_NAME.search(candidate.text):
        return 0.08
    return 0.0


def _choose(candidates: Sequence[Candidate], limit: int) -> list[Candidate]:
    """Take the best, then the next best that say something new (maximal marginal relevance)."""
    ranked = sorted(candidates, key=lambda c: -c.score)
    chosen = ranked[:1]
    for c in ranked[1:]:
        if len(chosen) == limit or c.score < ranked[0].score * _KEEP_SHARE:
            break
        if all(
            len(c.words & o.words) < 0.6 * max(1, min(len(c.words), len(o.words))) for o in chosen
        ):
            chosen.append(c)
    return chosen


_OPENS_WITH_REFERENCE = re.compile(
    r"(?:it|its|this|that|these|those|they|their|he|she|his|her|such|both|however|therefore|"
    r"also|instead|otherwise|then|er|sie|es|dies\w*|il|elle|ils|elles)\b",
    re.I,
)


def _with_lead_ins(chosen: list[Candidate], candidates: Sequence[Candidate]) -> list[Candidate]:
    """Add what a quoted sentence needs to be understood: the sentence that "It" refers to,
    the line that opens its list, the header of its table."""
    by_place = {(id(c.source), c.position): c for c in candidates}
    kept = {(id(c.source), c.position): c for c in chosen}
    for c in chosen:
        if c.sentence.kind == SentenceKind.TEXT and _OPENS_WITH_REFERENCE.match(c.text):
            before = by_place.get((id(c.source), c.position - 1))
            if before and before.sentence.kind == SentenceKind.TEXT:
                kept.setdefault((id(c.source), c.position - 1), before)
    return list(kept.values())


def _render(picked: Sequence[Candidate]) -> Iterator[str]:
    """Word each sentence with its citation; list items and table rows keep their lines."""
    for number, c in enumerate(picked):
        before = picked[number - 1] if number else None
        own_line = c.sentence.kind != SentenceKind.TEXT or (
            before is not None and before.sentence.kind != SentenceKind.TEXT
        )
        gap = "" if before is None else "\n" if own_line else " "
        yield f"{gap}{c.text} [{c.source.marker}]"
