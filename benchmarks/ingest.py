"""Measure how fast documents become searchable, and what share of that is the embedding model.

`script/bench ingest [FOLDER] [--documents 60] [--save]`: files of FOLDER, spread evenly over it,
are uploaded and read by one worker in this process, each parsed in its own child process. Then the
same passages are embedded by the model alone, by the product and by sentence-transformers where the
train extra is installed, each in a process of its own.
"""

import argparse
import importlib.util
import multiprocessing
import resource
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import installation
from kb.embedders.minilm import MiniLMEmbedder, packaged_model_dir

if TYPE_CHECKING:
    from kb.models import Collection, User

DEFAULT_FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data" / "docs" / "18f_handbook"
# Reads and embeds once before the clock starts, as a worker that runs has.
WARM_UP = "# Warm\n\nThe first document loads the model.\n"


def files(folder: Path, count: int) -> list[Path]:
    """Take `count` supported files, evenly spread; all of them where there are fewer."""
    from kb.extraction import SUPPORTED

    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUPPORTED)
    if not found:
        raise SystemExit(f"{folder} holds no file that can be read.")
    step = max(len(found) / count, 1)
    return [found[int(number * step)] for number in range(min(count, len(found)))]


def measure(folder: Path, count: int) -> tuple[dict[str, object], list[str]]:
    """Ingest the files; gives rates and peak memory, and the texts that were embedded."""
    from django.core.files.base import ContentFile

    from kb.models import Chunk, Collection, Document, User

    user = User.objects.create_user("bench")
    warm = Collection.objects.create(name="Warm", created_by=user)
    warm.add_document(ContentFile(WARM_UP.encode()), name="warm.md", added_by=user)
    work_off()
    collection = add(folder, count, user)
    started = time.perf_counter()
    work_off()
    seconds = time.perf_counter() - started
    passages = Chunk.objects.filter(collection=collection).count()
    texts = _embedded_texts(collection)
    documents = collection.documents
    result: dict[str, object] = {
        "folder": folder.name,
        "documents": documents.count(),
        "failed": {
            document.name: document.newest_version.job.error
            for document in documents.filter(state=Document.State.FAILED)
        },
        "passages": passages,
        "seconds": round(seconds, 1),
        "documents_per_s": round(documents.count() / seconds, 2),
        "passages_per_s": round(passages / seconds, 1),
        "tokens_per_s": round(_tokens(texts) / seconds),
        "worker_peak_mb": _peak_mb(),
    }
    return result, texts


def add(folder: Path, count: int, user: "User") -> "Collection":
    """Upload files of a folder into a collection of their own."""
    from django.core.files.base import ContentFile

    from kb.models import Collection

    collection = Collection.objects.create(name=folder.name, created_by=user)
    for path in files(folder, count):
        name = path.relative_to(folder).as_posix()
        collection.add_document(ContentFile(path.read_bytes()), name=name, added_by=user)
    return collection


def work_off() -> None:
    """Read all waiting documents here, as one worker would."""
    from kb import ingestion
    from kb.models import Job

    while job := Job.objects.claim(Job.Kind.INGEST):
        ingestion.ingest(job)


def _embedded_texts(collection: "Collection") -> list[str]:
    """Give what was embedded; a text that comes twice was embedded once."""
    from kb import chunking
    from kb.models import Chunk

    chunks = Chunk.objects.filter(collection=collection).select_related("document")
    texts = (chunking.embedding_text(c.document.title, c.heading_path, c.text) for c in chunks)
    return list(dict.fromkeys(texts))


def _tokens(texts: Sequence[str]) -> int:
    from kb.backends import get_backend

    return sum(get_backend("EMBEDDER").count_tokens(texts))


def _peak_mb() -> int:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


# --- The model alone --------------------------------------------------------------------------


def models_alone(texts: Sequence[str]) -> dict[str, dict[str, int]]:
    """Embed the texts in fresh processes: tokens a second and peak memory by library."""
    libraries: dict[str, Callable[[list[str]], dict[str, int]]] = {"ONNX Runtime, ours": ours}
    if importlib.util.find_spec("sentence_transformers"):
        libraries["sentence-transformers"] = sentence_transformers
    tokens, rows = _tokens(texts), {}
    for name, embed in libraries.items():
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
            row = pool.submit(embed, list(texts)).result()
        rows[name] = {
            "tokens_per_s": round(1000 * tokens / max(row["took_ms"], 1)),
            "peak_mb": row["peak_mb"],
        }
    return rows


def ours(texts: list[str]) -> dict[str, int]:
    embedder = MiniLMEmbedder(installation.graph())
    return _timed(embedder.embed_passages, texts)


def sentence_transformers(texts: list[str]) -> dict[str, int]:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(packaged_model_dir()), device="cpu")
    model.max_seq_length = MiniLMEmbedder.max_tokens
    return _timed(lambda batch: model.encode(batch, normalize_embeddings=True), texts)


def _timed(embed: Callable[[list[str]], object], texts: list[str]) -> dict[str, int]:
    embed(texts[:8])
    started = time.perf_counter()
    embed(texts)
    took_ms = round(1000 * (time.perf_counter() - started))
    return {"took_ms": took_ms, "peak_mb": _peak_mb()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="script/bench ingest")
    parser.add_argument("folder", type=Path, nargs="?", default=DEFAULT_FOLDER)
    parser.add_argument("--documents", type=int, default=60)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/ingest.json")
    arguments = parser.parse_args()
    with installation.fresh_install():
        result, texts = measure(arguments.folder, arguments.documents)
        result["model_alone"] = models_alone(texts)
    for name, value in result.items():
        print(f"{name:18} {value}")
    if arguments.save:
        print(f"Saved in {installation.save('ingest', result)}")


if __name__ == "__main__":
    main()
