import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kb.embedders import EmbeddingError
from kb.embedders.hashing import HashingEmbedder
from kb.embedders.tei import TEIEmbedder

ROOT = Path(__file__).resolve().parents[3]
Connect = Callable[..., TEIEmbedder]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Start a server with options, and give an embedder that talks to it."""
    started = []

    def start(server: dict[str, Any] | None = None, **options: Any) -> TEIEmbedder:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.kb.embedders.tei_server", json.dumps(server or {})],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        )
        started.append(process)
        assert process.stdout
        url = f"http://127.0.0.1:{int(process.stdout.readline())}/"
        return TEIEmbedder(url, **{"model_name": "lab/hashing", "dimensions": 32, **options})

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_more_texts_than_a_request_holds_keep_their_order(connect):
    texts = [f"passage number {n} about topic {n * 7}" for n in range(70)]

    vectors = connect().embed_passages(texts)

    np.testing.assert_allclose(vectors, HashingEmbedder(32).embed_passages(texts), atol=1e-6)
    assert vectors.dtype == np.float32


def test_a_server_that_takes_fewer_texts_than_it_says_gets_fewer(connect):
    embedder = connect({"max_batch": 8, "real_max_batch": 3})

    assert embedder.embed_passages(["one", "two", "three", "four", "five"]).shape == (5, 32)


def test_tokens_are_counted_by_the_server(connect):
    embedder = connect()

    assert embedder.max_tokens == 64
    assert embedder.count_tokens(["two words", "", "one"]) == [4, 2, 3]


def test_a_text_over_the_limit_is_refused_by_its_index(connect):
    texts = ["short"] * 40 + ["word " * 80] + ["short"]

    with pytest.raises(ValueError, match="Text 40 is longer than the 64 tokens"):
        connect().embed_passages(texts)


def test_a_long_query_counts_to_its_end(connect):
    embedder = connect()
    start = "glacier ice " * 40

    plain, other = embedder.embed_query(start), embedder.embed_query(start + "pension law " * 40)

    assert plain @ other < 0.95
    assert np.linalg.norm(other) == pytest.approx(1, abs=1e-6)


def test_prefixes_go_before_queries_and_passages(connect):
    embedder = connect(query_prefix="query: ", passage_prefix="passage: ")
    plain = HashingEmbedder(32)

    assert embedder.embed_query("ice") @ plain.embed_query("query: ice") == pytest.approx(1)
    assert embedder.embed_passages(["ice"])[0] @ plain.embed_query("passage: ice") > 0.999
    assert embedder.count_tokens(["ice"]) == plain.count_tokens(["passage: ice"])


@pytest.mark.parametrize("trouble", ["busy", "failing"])
def test_a_server_in_trouble_is_asked_again(connect, trouble):
    assert connect({trouble: 1}).embed_query("ice").shape == (32,)


def test_a_server_that_stays_busy_is_named_so(connect):
    started = time.monotonic()

    with pytest.raises(EmbeddingError, match="is busy"):
        connect({"busy": 99}).embed_query("ice")

    assert time.monotonic() - started < 3, "a person waits for a query"


def test_a_server_that_is_gone_is_named_so():
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]

    with pytest.raises(EmbeddingError, match="cannot be reached"):
        TEIEmbedder(f"http://127.0.0.1:{port}", "hashing", 32).embed_query("ice")


def test_another_model_is_refused(connect):
    with pytest.raises(EmbeddingError, match="serves lab/other, but TEI_MODEL is lab/hashing"):
        connect({"model_id": "lab/other"}).embed_query("ice")


def test_vectors_of_another_width_are_refused(connect):
    with pytest.raises(EmbeddingError, match="vectors of 32 numbers, not 384"):
        connect(dimensions=384).embed_query("ice")


def test_another_kind_of_server_is_named_so(connect):
    with pytest.raises(EmbeddingError, match="is not a text-embeddings-inference server"):
        connect({"plain": True}).embed_query("ice")


def test_a_key_is_sent_and_a_wrong_one_named(connect):
    assert connect({"key": "Bearer k"}, api_key="k").embed_query("ice").shape == (32,)
    with pytest.raises(EmbeddingError, match="refused the key"):
        connect({"key": "Bearer k"}).embed_query("ice")


def test_no_texts_need_no_server():
    embedder = TEIEmbedder("http://127.0.0.1:9", "hashing", 32)

    assert embedder.embed_passages([]).shape == (0, 32)
    assert embedder.count_tokens([]) == []
