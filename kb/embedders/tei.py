"""Vectors from a text-embeddings-inference server over HTTP: larger models, on a GPU if need be.

Its ways: a request holds at most `max_client_batch_size` texts; 413 means that there are too many
or that one is too long; 429 that the server is busy; an empty text is refused.
"""

import logging
import random
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import httpx2
import numpy as np

from kb.embedders import EmbeddingError

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
PASSAGE_ATTEMPTS, QUERY_ATTEMPTS = 6, 2  # a person waits for a query
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 8.0

UNREACHABLE = "The embedding server cannot be reached."
BUSY = "The embedding server is busy."
BROKEN = "The embedding server failed."
STRANGE = "What answers at TEI_URL is not a text-embeddings-inference server."
REFUSED_KEY = "The embedding server refused the key."


class _Unavailable(Exception):
    """The server may answer when it is asked again."""


class _TooLarge(Exception):
    """The server takes fewer texts at once, or shorter ones."""


class TEIEmbedder:
    """Embeds with POST /embed and counts with POST /tokenize.

    `url`: the server's root. `model_name` must be the model that the server names, so that vectors
    of two models never mix; a path to it counts by its last part. `timeout_s`: for one request.
    `query_prefix`, `passage_prefix`: what the model wants before a text, such as "query: ".
    """

    def __init__(
        self,
        url: str,
        model_name: str,
        dimensions: int,
        timeout_s: float = 30.0,
        api_key: str = "",
        query_prefix: str = "",
        passage_prefix: str = "",
    ) -> None:
        self.model_name = model_name
        self.dimensions = dimensions
        self._url = url.rstrip("/")
        self._timeout = httpx2.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S)
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._query_prefix = query_prefix
        self._passage_prefix = passage_prefix

    @property
    def max_tokens(self) -> int:
        """The longest text that the server takes; asks it once."""
        return int(self._info["max_input_length"])

    def embed_passages(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts in their order: (N, D), unit length."""
        prefixed = [self._passage_prefix + text for text in texts]
        return self._embed(prefixed, PASSAGE_ATTEMPTS)

    def embed_query(self, text: str) -> np.ndarray:
        """Embed a query: (D,). One that is too long becomes the mean of its parts' vectors."""
        parts = self._fitting(text)
        vectors = self._embed([self._query_prefix + part for part in parts], QUERY_ATTEMPTS)
        mean: np.ndarray = np.average(vectors, axis=0, weights=[len(part) + 1 for part in parts])
        return (mean / np.linalg.norm(mean)).astype(np.float32)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count each passage's tokens, the passage prefix and special tokens included."""
        prefixed = [self._passage_prefix + text for text in texts]
        return [len(tokens) for tokens in self._in_batches(self._tokenize, prefixed)]

    def _embed(self, texts: Sequence[str], attempts: int) -> np.ndarray:
        def embed(batch: Sequence[str]) -> list[list[float]]:
            payload = {"inputs": batch, "normalize": True, "truncate": False}
            return list(self._post("/embed", payload, len(batch), attempts))

        rows = self._in_batches(embed, texts)
        if any(len(row) != self.dimensions for row in rows):
            raise EmbeddingError(
                f"The embedding server gives vectors of {len(rows[0])} numbers, not {self.dimensions}."
            )
        return np.array(rows, np.float32).reshape(-1, self.dimensions)

    def _fitting(self, text: str) -> list[str]:
        """Halve a text until its parts fit the model."""
        longest = self.max_tokens
        if len(text) <= longest // 4:  # surely fits, even with a prefix: saves a request
            return [text]
        (tokens,) = self._tokenize([self._query_prefix + text])
        if len(tokens) <= longest or len(text) < 2:
            return [text]
        middle = text.find(" ", len(text) // 2) + 1 or len(text) // 2
        return [*self._fitting(text[:middle]), *self._fitting(text[middle:])]

    def _tokenize(self, batch: Sequence[str]) -> list[list[Any]]:
        payload = {"inputs": batch, "add_special_tokens": True}
        return list(self._post("/tokenize", payload, len(batch), PASSAGE_ATTEMPTS))

    def _in_batches(
        self, send: Callable[[Sequence[str]], list[Any]], texts: Sequence[str]
    ) -> list[Any]:
        """Send as many texts at once as the server takes; fewer where it finds them too large."""
        size = min(32, int(self._info["max_client_batch_size"])) if texts else 1
        results: list[Any] = []
        while len(results) < len(texts):
            batch = [text or " " for text in texts[len(results) : len(results) + size]]
            try:
                results += send(batch)
            except _TooLarge:
                if len(batch) == 1:
                    raise ValueError(
                        f"Text {len(results)} is longer than the {self.max_tokens} tokens"
                        f" that {self.model_name} reads."
                    ) from None
                size = len(batch) // 2
        return results

    @cached_property
    def _info(self) -> dict[str, Any]:
        """Ask the server what it serves, and refuse another model than the one expected."""
        info = self._request("GET", "/info", None, QUERY_ATTEMPTS)
        if not isinstance(info, dict) or not {
            "model_id",
            "max_input_length",
            "max_client_batch_size",
        } <= set(info):
            raise EmbeddingError(STRANGE)
        served = str(info["model_id"])
        if served.rstrip("/").split("/")[-1] != self.model_name.split("/")[-1]:
            raise EmbeddingError(
                f"The embedding server serves {served}, but TEI_MODEL is {self.model_name}."
            )
        return info

    def _post(self, path: str, payload: dict[str, Any], expected: int, attempts: int) -> list[Any]:
        rows = self._request("POST", path, payload, attempts)
        if not isinstance(rows, list) or len(rows) != expected:
            raise EmbeddingError(STRANGE)
        return rows

    def _request(self, method: str, path: str, payload: Any, attempts: int) -> Any:
        """Ask, and ask again after a growing pause while the server is away or busy."""
        for attempt in range(1, attempts + 1):
            try:
                return self._request_once(method, path, payload)
            except _Unavailable as error:
                if attempt == attempts:
                    raise EmbeddingError(str(error)) from error
                pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (attempt - 1))
                time.sleep(pause_s * random.uniform(0.5, 1.0))  # workers must not come back at once
        raise AssertionError("attempts must be at least 1")

    def _request_once(self, method: str, path: str, payload: Any) -> Any:
        try:
            response = httpx2.request(
                method,
                self._url + path,
                json=payload,
                headers=self._headers,
                timeout=self._timeout,
                trust_env=False,
            )
        except httpx2.HTTPError as error:
            logger.warning("no answer from %s%s: %r", self._url, path, error)
            raise _Unavailable(UNREACHABLE) from error
        if response.is_success:
            try:
                return response.json()
            except ValueError as error:
                raise EmbeddingError(STRANGE) from error
        logger.warning(
            "%s%s answered %s: %s", self._url, path, response.status_code, response.text[:500]
        )
        if response.status_code == 413:
            raise _TooLarge
        if response.status_code == 429:
            raise _Unavailable(BUSY)
        if response.status_code in (401, 403):
            raise EmbeddingError(REFUSED_KEY)
        if response.status_code in (404, 405):
            raise EmbeddingError(STRANGE)
        if response.status_code in (424, 500, 502, 503, 504):
            raise _Unavailable(BROKEN)
        raise EmbeddingError(BROKEN)
