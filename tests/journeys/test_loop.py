"""The whole loop once: from documents to an adapter that answers, and back."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.train, pytest.mark.slow]


def test_the_loop_closes_on_a_processor() -> None:
    pytest.importorskip("torch")
    # The install is the program's own; what the tests set would lead it to theirs.
    ours = ("DATABASE_URL", "REDIS_URL", "DATA_DIR", "EMBEDDER", "DJANGO_SETTINGS_MODULE")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.loop"],
        cwd=ROOT, env=environment,
        capture_output=True, text=True, timeout=1500,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("Killed the training", "the gate is passed", "A made-up name is refused",
                  "answers:", "Rolled back", "The loop is closed."):  # fmt: skip
        assert words in done.stdout
