"""Citation markers in texts that people or models wrote: put in, renumbered, taken out. Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence

from kb.citations import check_support, find_citations, split_sentences
from kb.prompts import Source

_SPACE_BEFORE = re.compile(r"[ \t]+$")


def source(marker: int, text: str, *, title: str = "", heading_path: Iterable[str] = ()) -> Source:
    """Give a passage as the checks of answers take it."""
    return Source(marker, title, tuple(heading_path), 1, text, score=0.0)


def cited(*texts: str) -> set[int]:
    """Name the markers that stand in any of the texts."""
    return {mark.marker for text in texts for mark in find_citations(text)}


def cite(text: str, sources: Sequence[Source]) -> str:
    """Put behind each sentence without a marker that of the passage that carries it best.

    A sentence that no passage carries, or that claims nothing, stays as it is.
    """
    marks = find_citations(text)
    parts, at = [], 0
    for sentence in split_sentences(text):
        parts.append(text[at : sentence.end])
        at = sentence.end
        if any(sentence.start <= mark.start < sentence.end for mark in marks):
            continue
        if marker := _carrier(text[sentence.start : sentence.end], sources):
            parts.append(f" [{marker}]")
    return "".join([*parts, text[at:]])


def _carrier(sentence: str, sources: Sequence[Source]) -> int:
    """Give the marker of the passage that carries a sentence best; 0 for none."""
    if _carried(sentence, source(1, "")):  # it claims nothing: every passage would do
        return 0
    best = max(sources, key=lambda one: _carried(sentence, one), default=None)
    return best.marker if best is not None and _carried(sentence, best) else 0


def _carried(sentence: str, one: Source) -> float:
    """Say how well one passage carries a whole sentence, 0–1; 0 below the threshold."""
    judged = check_support(sentence, [one])
    supported = judged and all(part.supported for part in judged)
    return min(part.score for part in judged) if supported else 0.0


def renumber(text: str, numbers: Mapping[int, int]) -> str:
    """Give citation markers new numbers; one without a new number is taken out.

    "Ice melts [3]. It floods [1, 2]." with {3: 1} gives "Ice melts [1]. It floods."
    """
    spans: dict[tuple[int, int], list[int]] = {}
    for mark in find_citations(text):
        spans.setdefault((mark.start, mark.end), []).append(mark.marker)
    parts, at = [], 0
    for (start, end), markers in spans.items():
        parts.append(text[at:start])
        kept = dict.fromkeys(numbers[marker] for marker in markers if marker in numbers)
        if not kept:
            parts[-1] = _SPACE_BEFORE.sub("", parts[-1])
        parts.extend(f"[{marker}]" for marker in kept)
        at = end
    return "".join([*parts, text[at:]])


def carried_share(text: str, sources: Sequence[Source]) -> float:
    """Give the share of a text's sentences that the passages carry, 0–1, whatever it cites.

    Sentences that claim nothing do not count; a text without claims has 0.
    """
    bare = renumber(text, {})
    if not sources or not bare.strip():
        return 0.0
    # A sentence that even an empty passage carries claims nothing.
    judged = zip(check_support(bare, sources), check_support(bare, [source(1, "")]), strict=True)
    claims = [by_these.supported for by_these, by_nothing in judged if not by_nothing.supported]
    return sum(claims) / len(claims) if claims else 0.0
