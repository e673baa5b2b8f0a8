"""Answer with the best sentences of the passages, word for word. Needs no model server."""

import asyncio
import math
import re
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pkgutil import resolve_name

import numpy as np

from kb import languages
from kb.generators import Part, TextPart, UsagePart
from kb.prompts import NOT_IN_DOCUMENTS, Source, Turn
from kb.sentences import (
    MARKER_GROUP,
    Sentence,
    SentenceKind,
    content_words,
    split_sentences,
    starts_item,
)

Embed = Callable[[Sequence[str]], np.ndarray]  # texts to (N, D) rows of unit length

_MIN_SIMILARITY = 0.25  # below it, texts of this model have nothing in common
_KEEP_SHARE = 0.68  # of the best sentence's score that a further sentence must reach
_SAME_WORDS = 0.6  # share of the shorter sentence's words that makes two say the same
_USUAL_LAST_RANK = 7  # of two passages, the second is hardly worse than the first
_EMBEDDED = 16  # sentences compared by meaning: 12 ms each on two cores
_EMBEDDED_CHARS = 250  # never more tokens than the 256 that MiniLM reads, in any script
_CHARS_PER_TOKEN = 3.5


class ExtractiveGenerator:
    """Picks sentences by the question's words and, given `embed`, by meaning.

    `embed`: texts to (N, D) rows of unit length, or where to find it ("module:name"), because
    settings cannot import.
    """

    base_model = "extractive"
    label = "Extractive – sentences quoted from the documents"

    def __init__(self, embed: Embed | str | None = None, max_sentences: int = 5) -> None:
        self._given_embed = embed
        self._max_sentences = max_sentences

    @cached_property
    def _embed(self) -> Embed | None:
        named = isinstance(self._given_embed, str)
        return resolve_name(self._given_embed) if named else self._given_embed  # type: ignore[arg-type, return-value]

    async def stream(
        self,
        messages: Sequence[Turn],
        sources: Sequence[Source],
        *,
        question: str,
        adapter: str = "",
        max_tokens: int = 512,
    ) -> AsyncGenerator[Part, None]:
        """Yield the answer sentence by sentence, each with its citation. Counts no tokens."""
        picked = await asyncio.to_thread(
            pick, question, sources, embed=self._embed, limit=self._max_sentences
        )
        chars_left = max_tokens * _CHARS_PER_TOKEN
        for number, text in enumerate(render(picked)):
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
    rank: int  # of the source, 0 is best
    position: int  # among the source's sentences, from 0
    sentence: Sentence
    text: str
    words: frozenset[str]
    context: frozenset[str]  # words of title, headings and the lines that lead in
    announces: bool  # a heading, a question or a table's first row: the answer is below it
    asked: frozenset[str] = frozenset()  # the question's words that it has
    score: float = 0.0

    @property
    def kind(self) -> SentenceKind:
        return self.sentence.kind


def pick(
    question: str,
    sources: Sequence[Source],
    *,
    embed: Embed | None = None,
    limit: int = 5,
) -> list[Candidate]:
    """Choose the sentences that answer the question best, in reading order.

    Empty when no sentence has anything to do with the question.
    """
    language = languages.detect(" ".join(source.text for source in sources))
    candidates = [
        c for rank, source in enumerate(sources) for c in _candidates(source, rank, language)
    ]
    if not candidates or not _score(question, candidates, language, embed):
        return []
    chosen = _with_surroundings(_choose(candidates, limit), candidates)
    ranks = list(dict.fromkeys(c.rank for c in chosen))  # the best sentence's source first
    return sorted(chosen, key=lambda c: (ranks.index(c.rank), c.position))


_IMAGE = re.compile(r"!\[[^\]]*\]\([^)]*\)")
_QUOTE_OR_HASH = re.compile(r"^[ \t]*(?:>[ \t]?)+|^#{1,6}[ \t]+", re.MULTILINE)
_SPACE = re.compile(r"\s+")
_FOREIGN_MARKER = re.compile(rf"[ \t]*{MARKER_GROUP}")
_MAX_ITEM_CHARS = 500


def _candidates(source: Source, rank: int, language: str) -> Iterator[Candidate]:
    above = content_words(" ".join((source.title, *source.heading_path)), language)
    lead_in: list[str] = []
    kind_before = SentenceKind.TEXT
    for position, sentence in enumerate(_units(source.text)):
        text = source.text[sentence.start : sentence.end]
        if sentence.kind != SentenceKind.CODE:
            text = _IMAGE.sub("", _QUOTE_OR_HASH.sub("", text))
            text = _SPACE.sub(" ", _FOREIGN_MARKER.sub("", text)).strip()
        words, context = content_words(text, language), frozenset([*above, *lead_in])
        opens_table = sentence.kind == SentenceKind.TABLE != kind_before
        announces = sentence.kind == SentenceKind.HEADING or text.endswith("?") or opens_table
        yield Candidate(
            source, rank, position, sentence, text, frozenset(words), context, announces
        )
        if announces or text.endswith(":"):
            lead_in = words
        kind_before = sentence.kind


def _units(text: str) -> Iterator[Sentence]:
    """Join the sentences of a short list item: its first words alone rarely say anything."""
    item: Sentence | None = None
    for sentence in split_sentences(text):
        same_item = (
            item is not None
            and sentence.kind == SentenceKind.LIST
            and not starts_item(text, sentence)
            and sentence.end - item.start <= _MAX_ITEM_CHARS
        )
        if item is not None and same_item:
            item = Sentence(item.start, sentence.end, SentenceKind.LIST)
            continue
        if item is not None:
            yield item
        item = sentence
    if item is not None:
        yield item


W_CONTEXT, W_BEFORE, W_PREFIX = 0.5, 0.4, 0.7
W_MEANING, W_RANK, W_NUMBER, W_NAME = 1.0, 0.2, 0.12, 0.08


def _score(
    question: str, candidates: Sequence[Candidate], language: str, embed: Embed | None
) -> bool:
    """Score the candidates in place; False when none shares a word or a meaning with the question."""
    _score_words(question, candidates, language)
    related = any(c.score > 0 for c in candidates)
    last_rank = max(candidates[-1].rank, _USUAL_LAST_RANK)
    for c in candidates:
        c.score += W_RANK * (1 - c.rank / last_rank) + _fit(question, c)
        if c.announces or len(c.words) < 2:
            c.score *= 0.3
    if embed is None:
        return related
    promising = sorted(candidates, key=lambda c: -c.score)[:_EMBEDDED]
    texts = [question, *(c.text for c in promising)]
    vectors = embed([text[:_EMBEDDED_CHARS] for text in texts])
    similarities = [float(value) for value in vectors[1:] @ vectors[0]]
    for c, similarity in zip(promising, similarities, strict=True):
        c.score += W_MEANING * similarity
    return related or max(similarities) >= _MIN_SIMILARITY


def _score_words(question: str, candidates: Sequence[Candidate], language: str) -> None:
    """Score 0–1 by the question's words, each weighted by its rarity among the sentences.

    A word in the headings, in the line that leads in or in the sentence before counts in part.
    """
    wanted = list(dict.fromkeys(content_words(question, language)))
    found_in = Counter(word for c in candidates for word in c.words)
    weight = {w: math.log(1 + len(candidates) / (1 + found_in[w])) for w in wanted}
    total = sum(weight.values()) or 1.0
    before: Candidate | None = None
    for c in candidates:
        if before is not None and before.source is not c.source:
            before = None
        c.asked = c.words.intersection(wanted)
        c.score = sum(weight[w] * _presence(w, c, before) for w in wanted) / total
        before = c


def _presence(word: str, candidate: Candidate, before: Candidate | None) -> float:
    """Say how far a word of the question is in a sentence, 0–1."""
    if word in candidate.words:
        return 1.0
    if len(word) > 5 and any(len(w) > 5 and w[:5] == word[:5] for w in candidate.words):
        return W_PREFIX  # "mistaken" and "mistake": stemming leaves them apart
    if word in candidate.context:
        return W_CONTEXT
    return W_BEFORE if before is not None and word in before.words else 0.0


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
        return W_NUMBER
    if _ASKS_NAME.search(question) and _HAS_NAME.search(candidate.text):
        return W_NAME
    return 0.0


def _choose(candidates: Sequence[Candidate], limit: int) -> list[Candidate]:
    """Take the best, then the next best that say something new."""
    ranked = sorted(candidates, key=lambda c: -c.score)
    chosen = ranked[:1]
    for c in ranked[1:]:
        if len(chosen) == limit or c.score < ranked[0].score * _KEEP_SHARE:
            break
        if not any(_repeats(c, other) for other in chosen):
            chosen.append(c)
    return chosen


def _repeats(c: Candidate, other: Candidate) -> bool:
    shared = len(c.words & other.words) / max(1, min(len(c.words), len(other.words)))
    return shared >= _SAME_WORDS and (c.asked <= other.asked or shared == 1)


_OPENS_WITH_REFERENCE = re.compile(
    r"(?:it|its|this|that|these|those|they|their|he|she|his|her|such|both|however|therefore|also|"
    r"instead|otherwise|then|er|sie|es|dies\w*|il|elle|ils|elles|esto|ellos)\b",
    re.IGNORECASE,
)
_MAX_ITEMS_AFTER_COLON = 6
_LEAD_IN_WITHIN = 12  # list items between a quoted one and the line that opens the list


def _with_surroundings(
    chosen: Sequence[Candidate], candidates: Sequence[Candidate]
) -> list[Candidate]:
    """Add what a quoted sentence needs to be understood: the sentence that "It" refers to, the
    line that opens its list, the list that its colon announces, the header of its table."""
    by_place = {(c.rank, c.position): c for c in candidates}
    kept = {(c.rank, c.position): c for c in chosen}
    needed = [other for c in chosen for other in _needed_before(c, by_place)]
    for other in (*needed, *_announced(chosen[0], by_place)):
        kept.setdefault((other.rank, other.position), other)
    return list(kept.values())


Places = Mapping[tuple[int, int], Candidate]


def _needed_before(c: Candidate, by_place: Places) -> Iterator[Candidate]:
    above = by_place.get((c.rank, c.position - 1))
    if c.kind == SentenceKind.TEXT and _OPENS_WITH_REFERENCE.match(c.text):
        if above is not None and above.kind == SentenceKind.TEXT:
            yield above
    elif c.kind == SentenceKind.LIST:
        for steps in range(_LEAD_IN_WITHIN):
            if above is None or above.kind != SentenceKind.LIST:
                break
            above = by_place.get((c.rank, c.position - 2 - steps))
        if above is not None and above.kind == SentenceKind.TEXT and above.text.endswith(":"):
            yield above
    elif c.kind == SentenceKind.TABLE:
        header = c
        while above is not None and above.kind == SentenceKind.TABLE:
            header, above = above, by_place.get((c.rank, above.position - 1))
        if header is not c:
            yield header


def _announced(c: Candidate, by_place: Places) -> Iterator[Candidate]:
    if not c.text.endswith(":"):
        return
    for step in range(1, _MAX_ITEMS_AFTER_COLON + 1):
        below = by_place.get((c.rank, c.position + step))
        if below is None or below.kind not in (SentenceKind.LIST, SentenceKind.CODE):
            return
        yield below


def render(picked: Sequence[Candidate]) -> Iterator[str]:
    """Word each sentence with its citation; list items and table rows keep their lines."""
    before: Candidate | None = None
    for c in picked:
        yield _gap(before, c) + _cited(c, opens_table=c.kind != (before.kind if before else None))
        before = c


def _gap(before: Candidate | None, c: Candidate) -> str:
    if before is None:
        return ""
    if before.kind != c.kind or c.kind in (SentenceKind.HEADING, SentenceKind.CODE):
        return "\n\n"
    return " " if c.kind == SentenceKind.TEXT else "\n"


def _cited(c: Candidate, *, opens_table: bool) -> str:
    if c.kind == SentenceKind.CODE:
        return f"{c.text}\n\n[{c.source.marker}]"
    if c.kind == SentenceKind.TABLE:
        row = f"{c.text.rstrip('| ')} [{c.source.marker}] |"
        cells = max(1, c.text.strip("|").count("|") + 1)
        return row + ("\n|" + " --- |" * cells if opens_table else "")
    return f"{c.text} [{c.source.marker}]"
