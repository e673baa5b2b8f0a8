"""Bring everything that lies outside the code up to date with it."""

import hashlib
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.staticfiles import finders
from django.core.management import call_command
from django.core.management.base import BaseCommand

from kb.backends import get_backend
from kb.embedders.minilm import MiniLMEmbedder


class Command(BaseCommand):
    help = (
        "Collect static files, write the embedding model's graph, migrate, create the first"
        " administrator, queue the project's own documents, make the folder shared with TGI's"
        " supervisor. Quick when nothing is to do."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        collect_static()
        write_graph()
        call_command("migrate", verbosity=0)
        call_command("create_first_admin")
        call_command("load_own_docs")
        make_shared_folder()


def collect_static() -> None:
    """Collect static files if one has changed: naming them by content takes seconds."""
    mark = settings.STATIC_ROOT / ".collected"
    state = _static_state()
    if mark.exists() and mark.read_text() == state:
        return
    call_command("collectstatic", interactive=False, clear=True, verbosity=0)
    mark.write_text(state)


def _static_state() -> str:
    """Digest the names, sizes and times of all static files."""
    digest = hashlib.sha256()
    for finder in finders.get_finders():
        for name, storage in finder.list([]):
            stat = Path(storage.path(name)).stat()
            digest.update(f"{name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def write_graph() -> None:
    """Write the embedding model's graph where it is missing; workers renew an outdated one."""
    embedder = get_backend("EMBEDDER")
    if isinstance(embedder, MiniLMEmbedder) and not embedder.graph_path.exists():
        embedder.write_graph()


def make_shared_folder() -> None:
    """Make it ours before TGI's supervisor does, which may run as root: we write into it, too."""
    if settings.MODEL_SERVER_KIND == "tgi":
        Path(settings.TGI_SUPERVISOR_DIR).mkdir(parents=True, exist_ok=True)
