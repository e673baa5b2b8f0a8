"""A whole install of its own for a benchmark, in a temporary folder that goes with it."""

import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers import embedded

if TYPE_CHECKING:
    from kb.models import Collection, User

RESULTS = Path(__file__).parent / "results"
# Written from the weights once, 86 MB: kept between runs.
_MODELS = Path(__file__).parent.parent / ".tacit" / "models"


@contextmanager
def fresh_install() -> Iterator[Path]:
    """Start an empty database with the default embedder and set Django up; gives the data folder."""
    data_dir = Path(tempfile.mkdtemp(prefix="tacit-bench-"))
    data_dir.chmod(0o711)  # as root, PostgreSQL runs as a user who has to pass through
    services: list[embedded.Postgres | embedded.Redis] = [
        embedded.Postgres(data_dir, durable=False),
        embedded.Redis(data_dir, durable=False),
    ]
    try:
        for variable, service in zip(("DATABASE_URL", "REDIS_URL"), services, strict=True):
            os.environ[variable] = service.start()
        os.environ.update(
            DATA_DIR=str(data_dir),
            SECRET_KEY="only for benchmarks",
            DJANGO_SETTINGS_MODULE="config.settings",
            LOG_LEVEL="WARNING",
        )
        os.environ.setdefault("EMBEDDER", "minilm")
        os.environ.setdefault("MINILM_GRAPH", str(graph()))
        _set_up()
        yield data_dir
    finally:
        for service in reversed(services):
            service.stop()
        shutil.rmtree(data_dir, ignore_errors=True)


def graph() -> Path:
    """Say where the embedding model's graph is, or will be written."""
    return Path(os.environ.get("MINILM_GRAPH", _MODELS / "minilm.onnx"))


def _set_up() -> None:
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    call_command("collectstatic", interactive=False, verbosity=0)  # pages name these files


def ingest(
    documents: Sequence[tuple[str, str, str]], collection: "Collection", user: "User"
) -> dict[int, str]:
    """Upload (id, title, text) as text files and read them; gives each chunk's document's id."""
    from django.core.files.base import ContentFile

    from kb import ingestion
    from kb.models import Chunk, Document, Job

    for number, (_, title, text) in enumerate(documents):
        content = ContentFile(_file_of(title, text).encode())
        collection.add_document(content, name=f"{number}.txt", added_by=user)
    # A document is titled by its file until it is read; here the name says nothing.
    collection.documents.update(title="")
    done = 0
    while job := Job.objects.claim(Job.Kind.INGEST):
        ingestion.ingest(job)
        done += 1
        if done % 100 == 0:
            print(f"  {done:,} of {len(documents):,} documents read", flush=True)
    for failed in collection.documents.filter(state=Document.State.FAILED):
        print(f"  {documents[int(failed.name.removesuffix('.txt'))][0]} failed", flush=True)
    chunks = Chunk.objects.filter(collection=collection)
    return {
        chunk_id: documents[int(name.removesuffix(".txt"))][0]
        for chunk_id, name in chunks.values_list("pk", "document__name")
    }


def _file_of(title: str, text: str) -> str:
    """Write a document as a text file; an underlined first line is read as its heading.

    Many sets repeat the title at the start of the text: there it becomes the heading.
    """
    title = " ".join(title.split())
    repeated = re.match(r"\s*" + r"\s+".join(map(re.escape, title.split())) + r"[\s.]*", text)
    body = text[repeated.end() :] if repeated else text
    if not title or not body:
        return text
    return f"{title}\n{'=' * min(len(title), 100)}\n\n{body}"


def save(name: str, result: dict[str, Any]) -> Path:
    """Write a result beside the machine it was measured on."""
    machine = {
        "measured_on": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
    }
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(machine | result, indent=2, ensure_ascii=False) + "\n")
    return path
