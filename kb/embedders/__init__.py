"""Turn text into vectors. One file a backend; `EMBEDDER` in the settings names the one in use."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class EmbeddingError(Exception):
    """Texts could not be embedded. The message is a sentence for a person; trying again may help."""


class Embedder(Protocol):
    """Vectors are float32 and of unit length, so that their dot product is their cosine.

    `max_tokens`: the longest text that is embedded, counted by `count_tokens`.
    """

    model_name: str
    dimensions: int
    max_tokens: int

    def embed_passages(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts in their order: (N, D). Nothing is cut off.

        Raises ValueError naming the first text that is longer than `max_tokens`, and
        EmbeddingError when the model cannot be reached or loaded.
        """
        ...

    def embed_query(self, text: str) -> np.ndarray:
        """Embed what a person typed: (D,). A long text counts in full, not only its start."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens that the model reads for each text, its special tokens included."""
        ...
