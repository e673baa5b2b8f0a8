"""How good answers are, how sure that is, and whether two sets of them differ. Pure.

Each question gets its scores; a cell of the evaluation is a list of them. Intervals come from
drawing the questions again, tests from turning signs: the same questions were put to both, so only
the differences count. Every draw is seeded.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from kb.citations import check_support, find_citations
from kb.prompts import NOT_IN_DOCUMENTS, Source
from kb.sentences import MARKER_GROUP, words

Floats = npt.NDArray[np.float64]
DRAWS = 2_000  # of bootstrap samples
FLIPS = 10_000  # of signs; all of them where there are fewer
ORDERS = 4  # n-grams of BLEU
# Scripts without spaces: one token a character, as XQuAD and sacrebleu count them.
_UNSPACED = re.compile(
    "[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_MARKERS = re.compile(rf"[ \t]*{MARKER_GROUP}")


# --- One answer ----------------------------------------------------------------------------------


def tokens(text: str) -> list[str]:
    """Give the words that answers are compared by: lower case, without signs and citations."""
    return words(_UNSPACED.sub(r" \g<0> ", without_citations(text)))


def without_citations(text: str) -> str:
    return _MARKERS.sub("", text)


def exact_match(output: str, expected: str) -> float:
    """1 where both have the same words in the same order, else 0."""
    return float(tokens(output) == tokens(expected))


def token_f1(output: str, expected: str) -> float:
    """Give the harmonic mean of precision and recall of the words, 0–1.

    Source: Rajpurkar et al. 2016 (SQuAD), here without leaving out English articles.
    """
    said, wanted = tokens(output), tokens(expected)
    common = sum((Counter(said) & Counter(wanted)).values())
    return _f1(common, len(said), len(wanted))


def rouge_l(output: str, expected: str) -> float:
    """Give the F1 of the longest common subsequence of words, 0–1. Source: Lin 2004."""
    said, wanted = tokens(output), tokens(expected)
    return _f1(_common_subsequence(said, wanted), len(said), len(wanted))


def _f1(common: int, said: int, wanted: int) -> float:
    """2PR / (P + R); two empty texts agree."""
    return 2 * common / (said + wanted) if said + wanted else 1.0


def _common_subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    lengths = [0] * (len(other) + 1)
    for word in one:
        diagonal = 0
        for place, against in enumerate(other, start=1):
            above = lengths[place]
            best = diagonal + 1 if word == against else max(above, lengths[place - 1])
            diagonal, lengths[place] = above, best
    return lengths[-1]


def cited_right(output: str, expected: str) -> float | None:
    """Give the F1 of the cited markers against those that hold the answer, 0–1.

    The expected answer names the latter; None where it names none.
    """
    right = {mark.marker for mark in find_citations(expected)}
    cited = {mark.marker for mark in find_citations(output)}
    return _f1(len(right & cited), len(right), len(cited)) if right else None


def grounded(output: str, sources: Sequence[Source]) -> float | None:
    """Give the share of the answer's sentences that the cited passages carry; None without any."""
    judged = check_support(output, sources) if sources else []
    return sum(each.supported for each in judged) / len(judged) if judged else None


def abstains(text: str) -> bool:
    """Whether an answer is the sentence that nothing was found, and nothing else."""
    return tokens(text) == tokens(NOT_IN_DOCUMENTS)


def score(
    output: str, expected: str, sources: Sequence[Source] | None, *, ended: bool
) -> dict[str, float | None | list[int]]:
    """Give all scores of one answer; None where a metric says nothing about the question.

    `sources`: those offered, none where nothing was found; None for a question asked alone.
    `answered_wrongly`: answered what the sources do not hold. `abstained_wrongly`: said that they
    do not hold it, and they do. Both only for a question that was asked with sources.
    """
    asked, silent, offered = abstains(expected), abstains(output), sources is not None
    return {
        "exact": exact_match(output, expected),
        "f1": token_f1(output, expected),
        "rouge_l": rouge_l(output, expected),
        "bleu": bleu_counts(output, expected),
        "citations": cited_right(output, expected) if offered else None,
        "grounded": grounded(output, sources or ()),
        "abstention": float(asked == silent) if offered else None,
        "answered_wrongly": float(not silent) if offered and asked else None,
        "abstained_wrongly": float(silent) if offered and not asked else None,
        "ended": float(ended),
    }


# --- BLEU ----------------------------------------------------------------------------------------

# What the mteval-13a script takes for a word of its own; stated in Post 2018 (sacrebleu).
_SIGNS = re.compile(r"([{-~\[-` -&(-+:-@/])")
_STOP_AFTER, _STOP_BEFORE = re.compile(r"([^0-9])([.,])"), re.compile(r"([.,])([^0-9])")
_DASH = re.compile(r"([0-9])(-)")


def bleu_tokens(text: str) -> list[str]:
    """Cut as mteval-13a does, case kept; characters of scripts without spaces stand alone."""
    text = _UNSPACED.sub(r" \g<0> ", without_citations(text))
    text = _SIGNS.sub(r" \1 ", f" {text} ")
    text = _STOP_AFTER.sub(r"\1 \2 ", text)
    text = _STOP_BEFORE.sub(r" \1 \2", text)
    return _DASH.sub(r"\1 \2 ", text).split()


def bleu_counts(output: str, *expected: str) -> list[int]:
    """Give what BLEU sums over answers: (10,) matches of 1–4-grams, their totals, both lengths.

    With several expected answers the one nearest in length counts, the shorter of two.
    """
    said = bleu_tokens(output)
    references = [bleu_tokens(each) for each in expected]
    matches, totals = [], []
    for order in range(1, ORDERS + 1):
        mine = _grams(said, order)
        most: Counter[tuple[str, ...]] = Counter()
        for reference in references:
            most |= _grams(reference, order)
        matches.append(sum((mine & most).values()))
        totals.append(sum(mine.values()))
    nearest = min((len(each) for each in references), key=lambda n: (abs(n - len(said)), n))
    return [*matches, *totals, len(said), nearest]


def _grams(sequence: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(sequence[i : i + order]) for i in range(len(sequence) - order + 1))


def bleu(counts: Floats) -> Floats:
    """Give the corpus BLEU, 0–1, of summed counts (…, 10); (…,).

    Source: Papineni et al. 2002, an order without matches smoothed by halving as in sacrebleu's
    “exp”. An order for which no answer is long enough is left out.
    """
    counts = np.asarray(counts, dtype=float)
    matches, totals = counts[..., :ORDERS], counts[..., ORDERS : 2 * ORDERS]
    said, wanted = counts[..., -2], counts[..., -1]
    halvings = np.cumsum((matches == 0) & (totals > 0), axis=-1)
    smoothed = np.where(matches > 0, matches, 0.5**halvings)
    logs = np.where(totals > 0, np.log(smoothed / np.maximum(totals, 1)), 0.0)
    mean = logs.sum(axis=-1) / np.maximum((totals > 0).sum(axis=-1), 1)
    brevity = np.minimum(0.0, 1 - wanted / np.maximum(said, 1))
    result: Floats = np.where(matches[..., 0] > 0, np.exp(mean + brevity), 0.0)
    return result


# --- Many answers --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over `n` questions with its 95 % interval."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """After − before on the same `n` questions, its 95 % interval, and p of no difference."""

    difference: float
    low: float
    high: float
    p: float
    n: int


def _statistic(values: Floats) -> Floats:
    """Give the mean of (…, n) values along n, or the BLEU of (…, n, 10) counts."""
    is_counts = values.ndim > 1 and values.shape[-1] == 2 * ORDERS + 2
    return bleu(values.sum(axis=-2)) if is_counts else values.mean(axis=-1)


def _drawn(count: int, seed: int) -> npt.NDArray[np.intp]:
    """Give the places of bootstrap samples: (DRAWS, count)."""
    return np.random.default_rng(seed).integers(0, count, size=(DRAWS, count))


def _samples(values: Floats, places: npt.NDArray[np.intp]) -> Floats:
    """Give the statistic of each sample, a few at a time: a thousand questions have 20 M counts."""
    return np.concatenate([_statistic(values[part]) for part in np.array_split(places, 20)])


def estimate(scores: Sequence[float] | Sequence[Sequence[int]], *, seed: int = 0) -> Estimate:
    """Give the mean of scores, or the BLEU of counts, with its bootstrap percentile interval.

    Raises ValueError for none. Source: Efron and Tibshirani 1993, chapter 13.
    """
    values = np.asarray(scores, dtype=float)
    if not len(values):
        raise ValueError("nothing to estimate from")
    low, high = np.percentile(_samples(values, _drawn(len(values), seed)), [2.5, 97.5])
    return Estimate(float(_statistic(values)), float(low), float(high), len(values))


def compare(
    before: Sequence[float] | Sequence[Sequence[int]],
    after: Sequence[float] | Sequence[Sequence[int]],
    *,
    seed: int = 0,
) -> Comparison:
    """Compare scores of the same questions, in the same order.

    The interval is the paired bootstrap's (Koehn 2004). p, two-sided, is how often exchanging the
    two answers of each question at random gives a difference at least as large: over all exchanges
    up to 13 questions, over FLIPS drawn ones beyond (Fisher's randomization test, 1935).
    """
    one, other = np.asarray(before, dtype=float), np.asarray(after, dtype=float)
    if len(one) != len(other) or not len(one):
        raise ValueError("a paired comparison needs the same questions, and at least one")
    apart = float(_statistic(other) - _statistic(one))
    places = _drawn(len(one), seed)
    low, high = np.percentile(_samples(other, places) - _samples(one, places), [2.5, 97.5])
    return Comparison(apart, float(low), float(high), _p(one, other, apart, seed), len(one))


def _p(one: Floats, other: Floats, apart: float, seed: int) -> float:
    exchanged, every = _exchanges(len(one), seed)
    reached = 0
    for part in np.array_split(exchanged, 20):
        turn = part.reshape(part.shape + (1,) * (one.ndim - 1))
        turned = _statistic(np.where(turn, one, other)) - _statistic(np.where(turn, other, one))
        reached += int((np.abs(turned) >= abs(apart) - 1e-12).sum())
    # What was seen is one of the exchanges; drawn ones need it counted in (Phipson and Smyth 2010).
    return reached / len(exchanged) if every else (reached + 1) / (len(exchanged) + 1)


def _exchanges(count: int, seed: int) -> tuple[npt.NDArray[np.bool_], bool]:
    """Give which questions are exchanged, (samples, count), and whether these are all ways."""
    if 2**count <= FLIPS:
        return np.array(list(product((False, True), repeat=count))), True
    return np.random.default_rng(seed).random((FLIPS, count)) < 0.5, False


def perplexity(nats: float) -> float:
    """Give e to the nats a token; infinite beyond what a float holds."""
    return math.exp(nats) if nats < 700 else math.inf
