"""Time an import of many pairs and the search for their duplicates, and check what was found.

`script/bench curation [FOLDER] [--rows 55000] [--save]`: FOLDER holds instructions/ as
../shared/data does. Its sets of instructions become one file: every row as it is, then copies of
rows (a tenth), rows with one word in twenty exchanged (a tenth), and rows with every third word
exchanged, which are other rows. The file goes through the product: import, then the search.
"""

import argparse
import json
import os
import random
import re
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import installation

DEFAULT_FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data"
SETS = (
    "llamafactory/alpaca_en_demo.json", "llamafactory/alpaca_zh_demo.json",
    "gsm8k_alpaca/gsm_8k_train.json", "rasbt/instruction-data.json",
)  # fmt: skip
COPIES = NEAR = 0.1
NEAR_CHANGE, OTHER_CHANGE = 20, 3  # one word in so many
EMBEDDED = 256
Row = dict[str, str]


@dataclass(frozen=True)
class Made:
    """A file's rows. `copies`, `near`: (place, place of what it was made from)."""

    rows: list[Row]
    copies: list[tuple[int, int]]
    near: list[tuple[int, int]]


def read(folder: Path) -> list[Row]:
    """Read the sets; a row has instruction, input and output."""
    return [
        {name: str(row.get(name) or "") for name in ("instruction", "input", "output")}
        for name in SETS
        for row in json.loads((folder / "instructions" / name).read_text(encoding="utf-8"))
    ]


def make(base: Sequence[Row], count: int, *, seed: int = 1) -> Made:
    """Make `count` rows of the base rows, always the same ones."""
    rng = random.Random(seed)
    vocabulary = sorted({word for row in base for word in re.findall(r"[a-z]{3,}", row["output"])})
    made = Made(list(base[:count]), [], [])
    while len(made.rows) < count:
        source = rng.randrange(min(len(base), count))
        kind, place = rng.random(), len(made.rows)
        if kind < COPIES:
            made.copies.append((place, source))
            made.rows.append(base[source])
        elif kind < COPIES + NEAR:
            made.near.append((place, source))
            made.rows.append(changed(base[source], rng, vocabulary, NEAR_CHANGE))
        else:
            made.rows.append(changed(base[source], rng, vocabulary, OTHER_CHANGE))
    return made


def changed(row: Row, rng: random.Random, vocabulary: Sequence[str], one_in: int) -> Row:
    """Exchange one word in so many of each field; a field of fewer words stays."""
    return {name: _changed(text, rng, vocabulary, one_in) for name, text in row.items()}


def _changed(text: str, rng: random.Random, vocabulary: Sequence[str], one_in: int) -> str:
    words = re.split(r"(\s+)", text)
    places = range(0, len(words), 2)
    for place in rng.sample(places, len(places) // one_in):
        words[place] = rng.choice(vocabulary)
    return "".join(words)


def measure(made: Made, folder: Path) -> dict[str, Any]:
    """Import the rows and look for their duplicates; needs an install."""
    from finetune import duplicates
    from finetune.models import Dataset
    from kb.models import Collection, User

    user = User.objects.create_superuser("curator", password="only for benchmarks")
    collection = Collection.objects.create(name="Benchmark", created_by=user)
    dataset = Dataset.objects.create(collection=collection, name="Benchmark")
    path = folder / "pairs.jsonl"
    path.write_text("".join(_lines(made.rows)), encoding="utf-8")
    cpu = _processor_s()
    import_s, problems = _import(dataset, user, path)
    import_cpu_s = _processor_s() - cpu
    keys = list(dataset.pairs.order_by("row_number").values_list("pk", flat=True))
    start = time.perf_counter()
    items = duplicates.load(dataset, user)
    exact, single = duplicates.exact(items)
    exact_s = time.perf_counter() - start
    near, _ = duplicates.near(single)
    near_s = time.perf_counter() - start - exact_s
    first = time.perf_counter()
    duplicates.vectors_of(keys[:EMBEDDED])
    embed_s = time.perf_counter() - first
    return {
        "rows": len(made.rows),
        "file_mb": round(path.stat().st_size / 1e6, 1),
        "imported": len(keys),
        "rows_left_out": problems,
        "import_s": round(import_s, 1),
        "import_processor_s": round(import_cpu_s, 1),
        "exact_s": round(exact_s, 1),
        "near_s": round(near_s, 1),
        "exact_clusters": len(exact),
        "exact_copies": sum(len(cluster.items) - 1 for cluster in exact),
        "near_clusters": len(near),
        **_recall(made, keys, exact, near),
        "embedded_per_s": round(min(EMBEDDED, len(keys)) / embed_s, 1),
        "load": round(os.getloadavg()[0], 1),
    }


def _processor_s() -> float:
    """Give the processor time of this process and of its children that have ended, in seconds."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def _lines(rows: Sequence[Row]) -> Iterator[str]:
    return (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _import(dataset: Any, user: Any, path: Path) -> tuple[float, int]:
    from django.core.files import File

    from finetune import importing
    from kb.models import Job

    start = time.perf_counter()
    with path.open("rb") as file:
        added, _ = importing.add_file(dataset, File(file), name=path.name, user=user)
    importing.start(added, user)
    job = Job.objects.claim(Job.Kind.IMPORT)
    assert job is not None
    importing.import_pairs(job)
    took = time.perf_counter() - start
    added.refresh_from_db()
    return took, added.problem_count


def _recall(made: Made, keys: Sequence[int], exact: Any, near: Any) -> dict[str, float]:
    """Say which part of the planted copies and near copies stand in a cluster with their origin."""
    if len(keys) != len(made.rows):
        return {}
    cluster_of: dict[int, set[Any]] = {}
    best: dict[int, int] = {}
    for number, cluster in enumerate((*exact, *near)):
        for item in cluster.items:
            cluster_of.setdefault(item.pk, set()).add(number)
            if cluster.kind == "exact":
                best[item.pk] = cluster.items[0].pk

    def together(one: int, other: int) -> bool:
        # A near cluster holds the best of its exact copies.
        first, second = (best.get(keys[place], keys[place]) for place in (one, other))
        of_first, of_second = cluster_of.get(first, set()), cluster_of.get(second, set())
        return first == second or not of_first.isdisjoint(of_second)

    return {
        f"{name}_recall": round(sum(together(*pair) for pair in planted) / max(len(planted), 1), 4)
        for name, planted in (("exact", made.copies), ("near", made.near))
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="script/bench curation")
    parser.add_argument("folder", type=Path, nargs="?", default=DEFAULT_FOLDER)
    parser.add_argument("--rows", type=int, default=55_000)
    parser.add_argument(
        "--save", action="store_true", help="write benchmarks/results/curation.json"
    )
    arguments = parser.parse_args()
    made = make(read(arguments.folder), arguments.rows)
    with installation.fresh_install(), tempfile.TemporaryDirectory() as folder:
        measured = measure(made, Path(folder))
    for name, value in measured.items():
        print(f"{name:20} {value:>12}")
    if arguments.save:
        print(f"Saved in {installation.save('curation', measured)}")


if __name__ == "__main__":
    main()
