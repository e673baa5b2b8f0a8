"""A whole install of its own for a benchmark, in a temporary folder that goes with it."""

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from workers import embedded

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
        os.environ.setdefault("MINILM_GRAPH", str(_MODELS / "minilm.onnx"))
        _set_up()
        yield data_dir
    finally:
        for service in reversed(services):
            service.stop()
        shutil.rmtree(data_dir, ignore_errors=True)


def _set_up() -> None:
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)


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
