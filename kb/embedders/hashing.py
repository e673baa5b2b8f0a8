"""A deterministic embedder without weights, for tests: texts that share words are near each other.

It knows words and their three-letter pieces, no meaning. Shapes: N texts, D dimensions.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from math import log1p

import numpy as np

WORD = re.compile(r"\w+")
TOKEN = re.compile(r"\w{1,6}|[^\w\s]")  # about as many as a word-piece tokenizer makes
SPECIAL_TOKENS = 2
WORD_WEIGHT = 1.0
TRIGRAM_WEIGHT = 0.3


class HashingEmbedder:
    """Adds a pseudo-random direction for every word and every three letters of a word.

    `dimensions`: 8 to 2000; fewer make unrelated texts collide more.
    """

    model_name = "hashing"

    def __init__(self, dimensions: int = 256, max_tokens: int = 256) -> None:
        self.dimensions = dimensions
        self.max_tokens = max_tokens

    def embed_passages(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts in their order: (N, D), unit length."""
        for index, count in enumerate(self.count_tokens(texts)):
            if count > self.max_tokens:
                raise ValueError(
                    f"Text {index} has {count} tokens; the model reads {self.max_tokens}."
                )
        vectors = [self.embed_query(text) for text in texts]
        return np.array(vectors, np.float32).reshape(-1, self.dimensions)

    def embed_query(self, text: str) -> np.ndarray:
        """Embed a text of any length: (D,), unit length."""
        vector = np.zeros(self.dimensions, np.float32)
        vector[0] = 1e-6  # a text without any word still has a direction
        for feature, weight in _features(text):
            position, sign = _place(feature, self.dimensions)
            vector[position] += sign * weight
        return vector / np.linalg.norm(vector)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count pieces of at most six letters and punctuation marks, and two special tokens."""
        return [len(TOKEN.findall(text)) + SPECIAL_TOKENS for text in texts]


def _features(text: str) -> Iterator[tuple[str, float]]:
    """Give each feature's weight; a repeated word counts less each time."""
    for word, count in Counter(WORD.findall(text.lower())).items():
        weight = log1p(count)
        yield word, WORD_WEIGHT * weight
        padded = f"^{word}$"
        for i in range(len(padded) - 2):
            yield padded[i : i + 3], TRIGRAM_WEIGHT * weight


def _place(feature: str, dimensions: int) -> tuple[int, int]:
    """Hash a feature to a position and a sign, the same in every process."""
    number = int.from_bytes(blake2b(feature.encode(), digest_size=8).digest())
    return (number >> 1) % dimensions, 1 if number & 1 else -1
