"""EPUB: a chapter is a page, in reading order."""

import pytest

from kb.extraction.unreadable import DocumentUnreadable
from tests.kb.extraction.conftest import Extract, blocks_of
from tests.kb.extraction.documents import epub


def test_a_chapter_is_a_page(extract: Extract) -> None:
    book = epub({"c2": "<h1>Ice</h1><p>It moves.</p>", "c1": "<p>Rock</p>"}, title="On ice")
    read = extract(book, "a.epub")
    assert read.title == "On ice"
    assert [page.label for page in read.pages] == ["Ice", ""]
    assert blocks_of(read.pages[0]) == [("heading1", "Ice"), ("text", "It moves.")]
    assert read.pages[1].text == "Rock"


def test_copy_protection_is_named_and_hidden_fonts_do_no_harm(extract: Extract) -> None:
    def encryption(method: str) -> dict[str, str]:
        xml = f'<e xmlns="x"><EncryptionMethod Algorithm="{method}"/></e>'
        return {"META-INF/encryption.xml": xml}

    fonts = encryption("http://www.idpf.org/2008/embedding")
    assert extract(epub({"a": "<p>ice</p>"}, **fonts), "a.epub").pages[0].text == "ice"
    locked = encryption("http://www.w3.org/2001/04/xmlenc#aes128-cbc")
    with pytest.raises(DocumentUnreadable) as caught:
        extract(epub({"a": "<p>ice</p>"}, **locked), "a.epub")
    assert caught.value.code == "encrypted"
