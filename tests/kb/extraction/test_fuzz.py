"""Files changed at random: each is read or gets a sentence, and no reader fails by our own fault.

Short here; TACIT_FUZZ=5000 runs as many mutations.
"""

import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kb import extraction
from kb.extraction import wire
from kb.extraction.limits import Limits
from kb.extraction.unreadable import DocumentUnreadable
from kb.extraction.writing import Cleaner, PageWriter
from kb.pages import BlockKind, Extraction
from tests.kb.extraction.documents import docx, epub, odt, paragraph, pptx
from tests.kb.extraction.pdf_writer import Pdf, PdfPage, rule, text

MUTATIONS = int(os.environ.get("TACIT_FUZZ", "40"))
LIMITS = Limits(cpu_s=15, wall_s=60)
OUR_FAULTS = (
    "ImportError",
    "ModuleNotFoundError",
    "unknown encoding",
    "NameError",
    "AttributeError",
)
SEEDS = {
    "a.pdf": Pdf(
        [
            PdfPage(text(72, 700 - 20 * i, "Glaciers move.") + rule(72, 90, 200, 90))
            for i in range(3)
        ],
        outline=[("Ice", 0), ("Rock", 2)],
        labels="0 << /S /r >>",
    ).write(),
    "a.docx": docx(paragraph("Ice moves.") * 5),
    "a.pptx": pptx([("Ice", ["one", "two"])], notes="Smile."),
    "a.epub": epub({"a": "<h1>Ice</h1><p>It moves.</p>"}),
    "a.odt": odt("<text:h>Ice</text:h><text:p>It moves.</text:p>"),
    "a.html": b"<table><tr><td colspan=2>a<td>b</table><ul><li>x<ol><li>y</ol></ul>",
    "a.md": b"# Ice\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n- x\n  1. y\n\n> z\n",
    "a.eml": b"From: a\r\nSubject: =?utf-8?q?Ice?=\r\nContent-Type: text/plain\r\n\r\nIt moves.\r\n",
    "a.csv": b'a,b\n1,"2\n3"\n',
    "a.json": b'[{"a": 1, "b": [1, 2, {"c": null}]}]',
    "a.vtt": b"WEBVTT\n\n00:01.000 --> 00:02.000\n<v Ann>Hi\n",
    "a.txt": "Ice\n===\n\nGrüße aus dem Tal.\n".encode("cp1252"),
}


@pytest.mark.slow
def test_mutated_files_are_read_or_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    generator = random.Random(20240501)
    path = tmp_path / "upload"
    names = sorted(SEEDS)
    for number in range(MUTATIONS):
        name = names[number % len(names)]
        path.write_bytes(mutated(SEEDS[name], generator))
        caplog.clear()
        try:
            read = extraction.extract(path, name, limits=LIMITS)
            assert read.pages
        except DocumentUnreadable:
            pass  # its sentences are tested elsewhere
        assert not [fault for fault in OUR_FAULTS if fault in caplog.text], caplog.text


def mutated(data: bytes, generator: random.Random) -> bytes:
    """Change, drop, repeat or swap a few stretches of bytes."""
    changed = bytearray(data)
    for _ in range(generator.randint(1, 8)):
        at = generator.randrange(len(changed) + 1)
        length = generator.choice((1, 1, 2, 4, 16, 64))
        match generator.randrange(5):
            case 0:
                changed[at : at + length] = generator.randbytes(length)
            case 1:
                del changed[at : at + length]
            case 2:
                changed[at:at] = changed[at : at + length] * generator.choice((1, 2, 50))
            case 3 if at < len(changed):
                changed[at] ^= 1 << generator.randrange(8)
            case 4:
                other = generator.randrange(len(changed) + 1)
                changed[at:at] = changed[other : other + length]
    return bytes(changed)


@given(st.text(max_size=400))
@settings(max_examples=300, deadline=None)
def test_any_text_comes_out_clean_and_once_is_enough(words: str) -> None:
    clean = Cleaner()
    result = clean(words)
    result.encode()
    assert "\0" not in result
    assert "\r" not in result
    assert clean(result) == result


@given(st.lists(st.tuples(st.sampled_from(BlockKind), st.text(max_size=60)), max_size=12))
@settings(max_examples=200, deadline=None)
def test_written_blocks_cover_the_page_and_survive_the_pipe(
    blocks: list[tuple[BlockKind, str]],
) -> None:
    writer = PageWriter(Cleaner())
    for kind, words in blocks:
        writer.text(words, kind)
    page = writer.page(1)
    position = 0
    for block in page.blocks:
        assert not page.text[position : block.start].strip()
        assert page.text[block.start : block.end].strip()
        position = block.end
    extraction_ = Extraction((page,), "Title", ("warning",))
    assert wire.unpack(wire.pack(extraction_, Limits())) == extraction_


@pytest.mark.parametrize(
    "answer",
    [
        b"not json",
        b'{"pages": [], "title": 3, "warnings": []}',
        b'{"pages": [[2, "a", [], [], 0, 0, ""]], "title": "", "warnings": []}',
        b'{"pages": [[1, "a\\u0000", [], [], 0, 0, ""]], "title": "", "warnings": []}',
        b'{"pages": [[1, "a\\ud800", [], [], 0, 0, ""]], "title": "", "warnings": []}',
        b'{"pages": [[1, "abc", [["text", 0, 9, 0]], [], 0, 0, ""]], "title": "", "warnings": []}',
        b'{"pages": [[1, "abc", [["text", 1, 2, 0], ["text", 0, 1, 0]], [], 0, 0, ""]], "title": "", "warnings": []}',
        b'{"pages": [[1, "abc", [["poem", 0, 1, 0]], [], 0, 0, ""]], "title": "", "warnings": []}',
        b'{"pages": [[1, "abc", [], [[0, 1, 5, 5, 5, 9]], 0, 0, ""]], "title": "", "warnings": []}',
        b'{"pages": [[1, "abc", [], [[0, 1, "x", 5, 5, 9]], 0, 0, ""]], "title": "", "warnings": []}',
    ],
)
def test_an_answer_that_lies_is_refused(answer: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        wire.unpack(answer)
