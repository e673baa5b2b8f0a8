"""OpenDocument text."""

import pytest

from kb.extraction.unreadable import DocumentUnreadable
from tests.kb.extraction.conftest import Extract, blocks_of
from tests.kb.extraction.documents import odt


def test_headings_lists_and_tables(extract: Extract) -> None:
    body = (
        '<text:h text:outline-level="2">Ice<text:s/>age</text:h>'
        "<text:p>It was <text:span>cold</text:span>.</text:p>"
        "<text:list><text:list-item><text:p>one</text:p><text:list><text:list-item>"
        "<text:p>inner</text:p></text:list-item></text:list></text:list-item>"
        "<text:list-item><text:p>two</text:p></text:list-item></text:list>"
        "<table:table><table:table-row><table:table-cell><text:p>a</text:p></table:table-cell>"
        "<table:table-cell><text:p>b</text:p></table:table-cell></table:table-row>"
        "<table:table-row><table:table-cell><text:p>c</text:p></table:table-cell>"
        "<table:table-cell/></table:table-row></table:table>"
    )
    assert blocks_of(extract(odt(body), "a.odt").pages[0]) == [
        ("heading2", "Ice age"),
        ("text", "It was cold."),
        ("list", "- one\n  - inner\n- two"),
        ("table", "| a | b |\n| --- | --- |\n| c |  |"),
    ]


def test_a_password_is_named(extract: Extract) -> None:
    manifest = "<m><encryption-data/></m>"
    with pytest.raises(DocumentUnreadable) as caught:
        extract(odt("<text:p/>", **{"META-INF/manifest.xml": manifest}), "a.odt")
    assert caught.value.code == "encrypted"
