"""Train a small base model on the project's own text, for tests and first starts."""

import ast
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

_PACKAGES = ("kb", "finetune", "workers", "config", "benchmarks")


class Command(BaseCommand):
    help = "Train a small chat model from nothing on the project's own text; takes minutes."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("folder", type=Path, help="is written whole; must not exist")
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument("--vocabulary", type=int, default=1536, help="tokens")
        parser.add_argument("--hidden", type=int, default=160, help="width, a multiple of 32")
        parser.add_argument("--layers", type=int, default=4)
        parser.add_argument("--steps", type=int, default=250)
        parser.add_argument(
            "--texts", type=Path, help="learn a folder of .md and .txt files instead"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            from finetune import base_model
        except ModuleNotFoundError as error:
            raise CommandError(
                f"{error.name} is missing: training needs torch and what requirements/train.lock "
                "lists. See docs/fine-tune.md."
            ) from error
        folder: Path = options["folder"]
        if folder.exists():
            raise CommandError(f"{folder} exists already.")
        began = time.monotonic()
        shape = {
            name: options[name] for name in ("seed", "vocabulary", "hidden", "layers", "steps")
        }
        try:
            loss = base_model.make(folder, texts(options["texts"]), **shape)
        except ValueError as error:
            raise CommandError(str(error)) from error
        seconds = time.monotonic() - began
        self.stdout.write(f"{folder} learned in {seconds:.0f} s; loss {loss:.2f} nats a token.")


def texts(folder: Path | None) -> list[str]:
    """Read a folder's texts, or the project's own: its pages and what its code says of itself."""
    if folder is not None:
        paths = sorted([*folder.rglob("*.md"), *folder.rglob("*.txt")])
        return [path.read_text(encoding="utf-8", errors="replace") for path in paths]
    root: Path = settings.ROOT
    pages = [*sorted(root.glob("*.md")), *sorted((root / "docs").rglob("*.md"))]
    code = [path for name in _PACKAGES for path in sorted((root / name).rglob("*.py"))]
    return [*(page.read_text() for page in pages), *filter(None, map(_said, code))]


def _said(path: Path) -> str:
    """Give the docstrings of a module, each under the name of what it describes."""
    return "\n\n".join(_docstrings(ast.parse(path.read_text())))


def _docstrings(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
            said := ast.get_docstring(node)
        ):
            yield f"# {node.name.strip('_').replace('_', ' ')}\n\n{said}"
