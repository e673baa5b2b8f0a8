"""Which texts share most of their words: MinHash signatures cut into bands. Pure, on numpy.

A pair is compared in three fields: its question (earlier turns and instruction), its input and its
output. Two pairs are near duplicates when their inputs are alike and, besides, their questions, or
their questions and outputs together; so two questions about one passage are none.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from zlib import crc32

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]

# Three words in a row; at 0.6 about one word in twelve has changed.
NEAR = 0.6
# A band agrees when three minima in a row do, so texts at similarity s share one of n bands with
# probability 1 - (1 - s³)ⁿ: 0.99 at 0.6 and 0.9997 at 0.7 for the 20 bands of question and input.
_ROWS = 3
_ASKED_BANDS, _WHOLE_BANDS = 20, 12
_RANDOM = np.random.default_rng(20261121)
_FACTORS = _RANDOM.integers(1, 2**63, size=(_ROWS * _ASKED_BANDS, 1), dtype=np.uint64) | np.uint64(
    1
)
_BLOCK = 4096  # shingles hashed at once: bounds the memory at 2 MB
_A, _B, _C = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0xD6E8FEB86659FD93))
_HALF = np.uint64(32)
# Scripts that write without spaces: each character is a token.
_WIDE = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_TOKEN = re.compile(rf"[{_WIDE}]|[^\W{_WIDE}]+")
_ASCII_TOKEN = re.compile(r"\w+")


class Fields(NamedTuple):
    """The hashed shingles of a pair's three fields, each sorted and without repeats."""

    question: Hashes
    input: Hashes
    output: Hashes


def tokens(text: str) -> list[str]:
    """Cut a text into lower-case words, or characters where a script has no spaces."""
    pattern = _ASCII_TOKEN if text.isascii() else _TOKEN
    return pattern.findall(text.lower())


def words_of(
    messages: Sequence[Mapping[str, str]], instruction: str, input: str, output: str
) -> list[list[str]]:
    """Cut a pair into the tokens of its question, input and output."""
    turns = "\n".join(message.get("content", "") for message in messages)
    return [tokens(text) for text in (f"{turns}\n{instruction}", input, output)]


def shingles(words: Sequence[str], *, salt: int = 0) -> Hashes:
    """Hash each run of three tokens, in order; ends count, so that n tokens give n + 2.

    No token, no shingle. `salt` keeps the shingles of different fields apart.
    """
    if not words:
        return np.empty(0, dtype=np.uint64)
    hashed = np.zeros(len(words) + 4, dtype=np.uint64)
    hashed[2:-2] = [crc32(word) for word in "\n".join(words).encode().split(b"\n")]
    mixed = (hashed[:-2] * _A + hashed[1:-1]) * _B + hashed[2:] + np.uint64(salt)
    mixed = (mixed ^ (mixed >> _HALF)) * _C
    return mixed ^ (mixed >> _HALF)


def fields(question: Sequence[str], input: Sequence[str], output: Sequence[str]) -> Fields:
    """Give the sets by which pairs are compared, from the tokens that `words_of` gives."""
    return Fields(*(np.unique(shingles(words)) for words in (question, input, output)))


def bands(question: Hashes, input: Hashes, output: Hashes) -> list[int]:
    """Give the 32 band keys of a pair; near duplicates share one but for a chance below 1 %.

    Takes shingles with one salt a field. A key holds its band's number in its upper half, so all
    keys of many pairs can be sorted together.
    """
    asked = _minima(np.concatenate((question, input)))
    whole = np.minimum(asked, _minima(output))[: _ROWS * _WHOLE_BANDS]
    minima = np.concatenate((asked, whole)).reshape(-1, _ROWS)
    keys = ((minima[:, 0] * _A + minima[:, 1]) * _B + minima[:, 2]) >> _HALF
    numbers = np.arange(len(keys), dtype=np.uint64) << _HALF
    found: list[int] = (numbers | keys).tolist()
    return found


def _minima(hashes: Hashes) -> Hashes:
    """Give the least value of each of the 60 permutations; the largest number for no shingle."""
    least = np.full(len(_FACTORS), np.iinfo(np.uint64).max, dtype=np.uint64)
    for start in range(0, len(hashes), _BLOCK):
        np.minimum(least, (hashes[start : start + _BLOCK] * _FACTORS).min(axis=1), out=least)
    return least


def similarity(one: Fields, other: Fields) -> float:
    """How alike two pairs are, 0–1; near duplicates have at least NEAR."""
    alike = _jaccard(one.input, other.input)
    if alike < NEAR:
        return min(alike, _question(one, other))
    return min(alike, max(_question(one, other), _whole(one, other)))


def overlap(one: Fields, other: Fields) -> float:
    """Which share of the words of two pairs both have, 0–1, all fields together."""
    shared = sum(map(_shared, one, other))
    total = sum(map(len, (*one, *other)))
    return shared / max(1, total - shared)


def _question(one: Fields, other: Fields) -> float:
    return _jaccard(one.question, other.question)


def _whole(one: Fields, other: Fields) -> float:
    shared = _shared(one.question, other.question) + _shared(one.output, other.output)
    total = sum(map(len, (one.question, other.question, one.output, other.output)))
    return shared / max(1, total - shared)


def _jaccard(one: Hashes, other: Hashes) -> float:
    if not len(one) and not len(other):
        return 1.0
    shared = _shared(one, other)
    return shared / (len(one) + len(other) - shared)


def _shared(one: Hashes, other: Hashes) -> int:
    return len(np.intersect1d(one, other, assume_unique=True))
