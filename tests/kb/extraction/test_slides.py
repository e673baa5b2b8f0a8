"""PPTX: a slide is a page."""

import pytest

from kb.extraction.unreadable import DocumentUnreadable
from tests.kb.extraction.conftest import Extract, blocks_of
from tests.kb.extraction.documents import pptx


def test_a_slide_is_a_page_named_by_its_title(extract: Extract) -> None:
    data = pptx([("Ice", ["It moves", "It melts"]), ("Rock", ["It stays"])], notes="Smile here.")
    read = extract(data, "a.pptx")
    assert [page.label for page in read.pages] == ["Ice", "Rock"]
    assert blocks_of(read.pages[0]) == [
        ("heading1", "Ice"),
        ("list", "- It moves\n- It melts"),
        ("text", "Notes: Smile here."),
    ]
    assert blocks_of(read.pages[1])[1] == ("text", "It stays")


def test_tables_on_slides_repeat_merged_cells(extract: Extract) -> None:
    def cell(words: str, more: str = "") -> str:
        return f"<a:tc {more}><a:txBody><a:p><a:r><a:t>{words}</a:t></a:r></a:p></a:txBody></a:tc>"

    frame = (
        "<p:graphicFrame><a:graphic><a:graphicData><a:tbl>"
        f"<a:tr>{cell('Glacier', 'gridSpan=' + chr(34) + '2' + chr(34))}{cell('', 'hMerge=' + chr(34) + '1' + chr(34))}</a:tr>"
        f"<a:tr>{cell('Aletsch')}{cell('23 km')}</a:tr>"
        "</a:tbl></a:graphicData></a:graphic></p:graphicFrame>"
    )
    page = extract(pptx([("Ice", [])], extra=frame), "a.pptx").pages[0]
    assert blocks_of(page)[1] == (
        "table",
        "| Glacier | Glacier |\n| --- | --- |\n| Aletsch | 23 km |",
    )


def test_slides_without_text_say_so(extract: Extract) -> None:
    with pytest.raises(DocumentUnreadable, match="only pictures") as caught:
        extract(pptx([("", [])]), "a.pptx")
    assert caught.value.code == "no_text"
