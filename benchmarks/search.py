"""Measure the server time of a search, query embedding included.

`script/bench search [--passages 10000] [--queries 200] [--save]`: sentences of real documents are
shuffled into passages of about 120 words in 5 collections, of which the person reads 3. Their
vectors are drawn at random around 200 centres: only their number and size cost time. Queries are
stretches of other sentences. `page` is the whole request of the search page, in this process.
"""

import argparse
import random
import re
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks import installation

if TYPE_CHECKING:
    from kb.models import Collection, User

ROOT = Path(__file__).resolve().parents[1]
TEXTS = (ROOT.parent / "shared" / "data" / "docs", ROOT / "docs")
PASSAGES_A_DOCUMENT = 20
WORDS_A_PASSAGE = 120


def sentences() -> list[str]:
    """Read the sentences of all Markdown files at hand."""
    files = [path for folder in TEXTS for path in sorted(folder.rglob("*.md"))]
    text = "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in files)
    found = (" ".join(part.split()) for part in re.split(r"(?<=[.!?])\s+|\n\n", text))
    return [part for part in found if 30 < len(part) < 400]


def passages(texts: list[str], chance: random.Random) -> Iterator[str]:
    while True:
        passage = ""
        while passage.count(" ") < WORDS_A_PASSAGE:
            passage += chance.choice(texts) + " "
        yield passage.strip()


def fill(count: int, texts: list[str], chance: random.Random) -> "User":
    """Write passages into 5 collections; gives a person who reads 3 of them."""
    from django.db import connection

    from kb.backends import get_backend
    from kb.models import Collection, EmbeddingSpace, User

    person = User.objects.create_user("bench")
    collections = [Collection.objects.create(name=f"Collection {i}") for i in range(5)]
    for collection in collections[:3]:
        collection.grant(person, "reader")
    space = EmbeddingSpace.objects.ensure(get_backend("EMBEDDER"))
    generator = np.random.default_rng(1)
    centres = generator.normal(size=(200, space.dimensions))
    source, written = passages(texts, chance), 0
    while written < count:
        bodies = [next(source) for _ in range(min(PASSAGES_A_DOCUMENT, count - written))]
        spread = generator.normal(size=(len(bodies), space.dimensions))
        vectors = centres[generator.integers(200, size=len(bodies))] + spread
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        number = written // PASSAGES_A_DOCUMENT
        _write(collections[number % 5], f"{number}.md", bodies, vectors.astype(np.float32))
        written += len(bodies)
        if number % 100 == 99:
            print(f"  {written:,} of {count:,} passages written", flush=True)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")  # as autovacuum does within minutes
    return person


def _write(collection: "Collection", name: str, bodies: list[str], vectors: np.ndarray) -> None:
    from kb.chunking import text_hash
    from kb.models import (
        Chunk,
        Document,
        DocumentVersion,
        Embedding,
        EmbeddingSpace,
        Job,
        Posting,
    )

    document = Document.objects.create(
        collection=collection,
        name=name,
        title=bodies[0][:60],
        language="english",
        media_type="text/markdown",
        state=Document.State.READY,
        chunk_count=len(bodies),
    )
    version = DocumentVersion.objects.create(
        document=document,
        number=1,
        file=name,
        sha256=text_hash(name),
        size_bytes=1,
        job=Job.objects.create(kind=Job.Kind.INGEST, state=Job.State.DONE),
    )
    chunks = Chunk.objects.bulk_create(
        Chunk(
            version=version,
            document=document,
            collection=collection,
            position=position,
            start=0,
            end=len(body),
            page_first=1,
            page_last=1,
            text=body,
            text_hash=text_hash(body),
            language="english",
            token_count=body.count(" ") * 4 // 3,
        )
        for position, body in enumerate(bodies)
    )
    space = EmbeddingSpace.objects.active()
    Embedding.objects.copy(space, [(c.pk, v) for c, v in zip(chunks, vectors, strict=True)])
    Posting.objects.index(chunks, bodies)


def queries(texts: list[str], count: int, chance: random.Random) -> list[str]:
    """Take stretches of 2 to 12 words: from a few key words to a question."""
    found: list[str] = []
    while len(found) < count:
        words = chance.choice(texts).split()
        length = chance.randint(2, 12)
        if len(words) >= length:
            start = chance.randrange(len(words) - length + 1)
            found.append(" ".join(words[start : start + length]))
    return found


def times_ms(call: Callable[[str], object], asked: list[str]) -> list[float]:
    for query in asked[:10]:
        call(query)  # connections, caches and the model are warm in a server
    times = []
    for query in asked:
        started = time.perf_counter()
        call(query)
        times.append((time.perf_counter() - started) * 1000)
    return sorted(times)


def measure(count: int, asked: int) -> dict[str, object]:
    from django.test import Client

    from kb import search
    from kb.backends import get_backend

    chance = random.Random(1)
    texts = sentences()
    person = fill(count, texts, chance)
    client = Client(SERVER_NAME="localhost")
    client.force_login(person)
    embedder = get_backend("EMBEDDER")
    calls: dict[str, Callable[[str], object]] = {
        "query embedding": embedder.embed_query,
        "search, 10 hits": lambda query: search.search(person, query),
        "with filters' counts": lambda query: search.search_page(person, query),
        "page": lambda query: client.get("/search/", {"q": query}),
    }
    wanted = queries(texts, asked, chance)
    if client.get("/search/", {"q": wanted[0]}).status_code != 200:
        raise SystemExit("The search page does not answer with 200.")
    rows = {}
    print(f"\n{count:,} passages, {asked} queries{'':8}p50 ms  p95 ms  max ms")
    for name, call in calls.items():
        times = times_ms(call, wanted)
        p95 = statistics.quantiles(times, n=20)[-1]
        rows[name] = {
            "p50_ms": round(statistics.median(times), 1),
            "p95_ms": round(p95, 1),
            "max_ms": round(times[-1], 1),
        }
        print(f"{name:36}{rows[name]['p50_ms']:7}{rows[name]['p95_ms']:8}{rows[name]['max_ms']:8}")
    parts = [search.search_page(person, query).took_ms for query in wanted]
    middles = {name: round(statistics.median(p[name] for p in parts), 1) for name in parts[0]}
    print("parts, p50 ms:", ", ".join(f"{name} {ms}" for name, ms in middles.items()))
    return {"passages": count, "queries": asked, "times": rows, "parts_p50_ms": middles}


def main() -> None:
    parser = argparse.ArgumentParser(prog="script/bench search")
    parser.add_argument("--passages", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument(
        "--save", action="store_true", help="write benchmarks/results/search_N.json"
    )
    arguments = parser.parse_args()
    with installation.fresh_install():
        result = measure(arguments.passages, arguments.queries)
    if arguments.save:
        name = f"search_{arguments.passages}"
        print(f"Saved in {installation.save(name, result)}")


if __name__ == "__main__":
    main()
