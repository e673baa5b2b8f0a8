"""Text in pieces: the same text as at once, and no half characters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.serving.detokenizing import Detokenizer


def pieces(data: bytes, prompt: bytes = b"") -> list[str]:
    """Feed bytes one by one, as a byte-level tokenizer at its worst gives them."""
    detokenizer = Detokenizer(lambda ids: bytes(ids).decode(errors="replace"), list(prompt))
    return [detokenizer.add(byte) for byte in data]


@given(st.text(max_size=60), st.text(max_size=10))
def test_the_pieces_join_to_the_text(text: str, prompt: str):
    assert "".join(pieces(text.encode(), prompt.encode())) == text


@pytest.mark.parametrize("character", ["é", "€", "東", "🙂"])
def test_a_character_comes_whole_with_its_last_byte(character: str):
    *before, last = pieces(character.encode())
    assert before == [""] * len(before)
    assert last == character


@given(st.binary(max_size=80))
def test_what_is_no_text_comes_out_replaced_and_soon(data: bytes):
    got = pieces(data)
    expected = data.decode(errors="replace")
    joined = "".join(got)
    assert expected.startswith(joined)
    assert set(expected[len(joined) :]) <= {"\ufffd"}
    for i in range(len(data)):
        arrived = len("".join(got[: i + 1]))
        assert arrived >= len(data[: max(0, i - 3)].decode(errors="ignore").rstrip("\ufffd"))


def test_an_incomplete_end_is_left_out():
    assert "".join(pieces("good 🙂".encode()[:-1])) == "good "


def test_a_long_text_is_decoded_in_a_short_window():
    longest = 0

    def decode(ids: list[int]) -> str:
        nonlocal longest
        longest = max(longest, len(ids))
        return bytes(ids).decode(errors="replace")

    detokenizer = Detokenizer(decode, [])
    text = "".join(detokenizer.add(byte) for byte in b"abcdefgh" * 500)
    assert text == "abcdefgh" * 500
    assert longest < 30
