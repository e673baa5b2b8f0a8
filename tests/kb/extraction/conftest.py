"""Ways to hand bytes to extraction as an uploaded file."""

from collections.abc import Callable
from pathlib import Path

import pytest

from kb import extraction
from kb.pages import BlockKind, Extraction, Page

Extract = Callable[..., Extraction]


@pytest.fixture
def extract(tmp_path: Path) -> Extract:
    """Extract from bytes (or text) under a name."""

    def extract_bytes(data: bytes | str, name: str) -> Extraction:
        path = tmp_path / "upload"
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return extraction.extract(path, name)

    return extract_bytes


def blocks_of(page: Page) -> list[tuple[str, str]]:
    """Give each block as its kind (with the level of a heading) and its text."""
    return [
        (f"{block.kind}{block.level or ''}", page.text[block.start : block.end])
        for block in page.blocks
    ]


def texts_of(page: Page, kind: BlockKind) -> list[str]:
    return [page.text[block.start : block.end] for block in page.blocks if block.kind is kind]
