"""Measure how well search ranks: by meaning, by words, and fused.

`script/bench retrieval [FOLDER…]`: folders in BEIR's layout (corpus.jsonl, queries.jsonl, qrels.tsv
or qrels/test.tsv); without any, those below ../shared/data/retrieval. Each document goes through the
product's own door: uploaded as a text file, read, cut, embedded and indexed; a query is ranked by
the same functions as a search. A document counts by its best passage.

`script/bench retrieval --saved` measures the install that is running instead, with the questions that
its curators saved beside their right passages, and names those that are missed.
"""

import argparse
import os
import statistics
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import beir, installation, metrics

if TYPE_CHECKING:
    from finetune.models import RetrievalQuestion
    from kb.models import Collection, User

DEFAULT_FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data" / "retrieval"
PASSAGES = 1_000  # how deep each ranking alone is measured
LEGS = ("vector", "text", "fused")


@dataclass(frozen=True)
class Quality:
    """Means over the queries, 0 to 1."""

    ndcg_10: float
    recall_10: float
    recall_100: float
    mrr: float


def measure(folder: Path) -> dict[str, object]:
    """Ingest a folder and rank all its queries."""
    from kb.models import Chunk, Collection, User

    test_set = beir.read(folder)
    user, _ = User.objects.get_or_create(username="bench", is_superuser=True)
    collection = Collection.objects.create(name=str(folder.resolve())[-120:], created_by=user)
    started = time.perf_counter()
    ids = installation.ingest(test_set.documents, collection, user)
    ingest_s = time.perf_counter() - started
    rankings: dict[str, dict[str, list[str]]] = {leg: {} for leg in LEGS}
    started = time.perf_counter()
    for query_id, query in test_set.queries.items():
        for leg, ranking in _rank(query, collection, user, ids).items():
            rankings[leg][query_id] = ranking
    return {
        "name": test_set.name,
        "documents": len(test_set.documents),
        "passages": Chunk.objects.filter(collection=collection).count(),
        "queries": len(test_set.queries),
        "ingest_s": round(ingest_s, 1),
        "ms_per_query": round((time.perf_counter() - started) * 1000 / len(test_set.queries), 1),
        **{leg: vars(_quality(rankings[leg], test_set.grades)) for leg in LEGS},
    }


def _rank(
    query: str, collection: "Collection", user: "User", ids: Mapping[int, str]
) -> dict[str, list[str]]:
    """Rank documents in the three ways, each by its best passage."""
    legs = _passages(query, user, (collection.pk,))
    return {leg: list(dict.fromkeys(ids[id_] for id_ in found)) for leg, found in legs.items()}


def _passages(
    query: str, user: "User", collections: tuple[int, ...] = ()
) -> dict[str, Iterable[int]]:
    """Rank passages in the three ways, best first."""
    from kb import ranking, search
    from kb.backends import get_backend
    from kb.models import EmbeddingSpace

    filters = search.Filters(collection_ids=collections)
    scope = ranking.scope_of(user, filters)
    extent = ranking.extent_of(scope)
    text = query[: search.MAX_QUERY]
    vector = get_backend("EMBEDDER").embed_query(text)
    space = EmbeddingSpace.objects.active()
    return {
        "vector": ranking.nearest(scope, extent, space, vector, PASSAGES),
        "text": ranking.matching(scope, extent, ranking.read_query(text), PASSAGES).scores,
        "fused": search.rank(user, query, filters=filters).fused,
    }


def _quality(
    rankings: Mapping[str, list[str]], grades: Mapping[str, Mapping[str, float]]
) -> Quality:
    pairs = [(ranking, grades[query_id]) for query_id, ranking in rankings.items()]
    return Quality(
        ndcg_10=_mean(metrics.ndcg(ranking, judged, 10) for ranking, judged in pairs),
        recall_10=_mean(metrics.recall(ranking, judged, 10) for ranking, judged in pairs),
        recall_100=_mean(metrics.recall(ranking, judged, 100) for ranking, judged in pairs),
        mrr=_mean(metrics.reciprocal_rank(ranking, judged) for ranking, judged in pairs),
    )


def measure_saved() -> dict[str, object]:
    """Rank the questions that curators saved, in the install that Django is set up for.

    Everything that is there is searched, as an administrator would. A passage counts as found when
    half of it, or half of what was saved, overlaps. A question whose passage stands in no document
    any more is left out and counted.
    """
    from finetune.models import RetrievalQuestion
    from kb.models import Chunk, User

    questions = RetrievalQuestion.objects.select_related("document__current_version")
    everyone = User(username="bench", is_superuser=True, is_active=True)
    rankings: dict[str, dict[str, list[str]]] = {leg: {} for leg in LEGS}
    grades: dict[str, dict[str, float]] = {}
    missed, lost = [], 0
    started = time.perf_counter()
    for saved in questions.order_by("pk"):
        right = _right_passages(saved)
        if not right:
            lost += 1
            continue
        key = str(saved.pk)
        grades[key] = dict.fromkeys(right, 1.0)
        for leg, found in _passages(saved.question, everyone).items():
            rankings[leg][key] = list(map(str, found))
        if not set(right) & set(rankings["fused"][key][:10]):
            missed.append(saved.question)
    return {
        "name": "saved questions",
        "documents": questions.values("document").distinct().count(),
        "passages": Chunk.objects.count(),
        "queries": len(grades),
        "lost": lost,
        "missed": missed,
        "ms_per_query": round((time.perf_counter() - started) * 1000 / max(1, len(grades)), 1),
        **{leg: vars(_quality(rankings[leg], grades)) for leg in LEGS if grades},
    }


def _right_passages(saved: "RetrievalQuestion") -> list[str]:
    """Give the ids of today's passages that hold what was saved; none when it is gone."""
    from finetune.staleness import find_text

    version = saved.document.current_version
    span = find_text(saved.text, version.text, saved.start) if version else None
    if version is None or span is None:
        return []
    start, end = span
    chunks = version.chunks.filter(start__lt=end, end__gt=start).order_by("position")
    return [
        str(chunk.pk)
        for chunk in chunks
        if 2 * (min(end, chunk.end) - max(start, chunk.start))
        >= min(end - start, chunk.end - chunk.start)
    ]


def _mean(values: Iterable[float]) -> float:
    return round(statistics.fmean(values), 4)


def _print(row: Mapping[str, object]) -> None:
    print(
        f"\n{row['name']}: {row['documents']:,} documents, {row['passages']:,} passages,"
        f" {row['queries']:,} queries, {row['ms_per_query']} ms a query"
    )
    print(f"{'':8}{'nDCG@10':>10}{'recall@10':>11}{'recall@100':>12}{'MRR':>8}")
    for leg in LEGS:
        q = Quality(**row[leg])  # type: ignore[arg-type]
        print(f"{leg:8}{q.ndcg_10:10.4f}{q.recall_10:11.4f}{q.recall_100:12.4f}{q.mrr:8.4f}")


def _folders(given: list[Path]) -> list[Path]:
    folders = given or sorted(path.parent for path in DEFAULT_FOLDER.glob("*/corpus.jsonl"))
    if not folders:
        raise SystemExit(f"Name a folder in BEIR's layout; there is none below {DEFAULT_FOLDER}.")
    return folders


def _run_saved(*, save: bool) -> None:
    """Measure the running install; its questions stay where they are, only numbers are written."""
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    row = measure_saved()
    if not row["queries"]:
        raise SystemExit("No saved question has its passage: sort rated answers, or add some.")
    _print(row)
    for question in row.pop("missed"):  # type: ignore[attr-defined]
        print(f"  not among the first 10: {question}")
    if row["lost"]:
        print(f"  {row['lost']} left out: their passages stand in no document any more")
    if save:
        print(f"\nSaved in {installation.save('retrieval_saved', row)}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="script/bench retrieval")
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument(
        "--save", action="store_true", help="write benchmarks/results/retrieval.json"
    )
    parser.add_argument(
        "--saved", action="store_true", help="the questions saved in the running install"
    )
    arguments = parser.parse_args()
    if arguments.saved:
        _run_saved(save=arguments.save)
        return
    folders = _folders(arguments.folders)
    with installation.fresh_install():
        rows = []
        for folder in folders:
            rows.append(measure(folder))
            _print(rows[-1])
    if arguments.save:
        print(f"\nSaved in {installation.save('retrieval', {'sets': rows})}")


if __name__ == "__main__":
    main()
