"""From token ids to text, piece by piece, without broken characters. No torch."""

from collections.abc import Callable

Decode = Callable[[list[int]], str]
BROKEN = "\ufffd"
MOST_HELD = 3  # a UTF-8 character has at most four bytes, and a token at least one


class Detokenizer:
    """Gives the text that each further token adds.

    What ends in an incomplete character is held back until the character is whole. Bytes that
    cannot become a character come out as U+FFFD after at most MOST_HELD tokens. An incomplete
    character at the very end is left out.
    """

    def __init__(self, decode: Decode, prompt_ids: list[int]) -> None:
        self._decode = decode
        # Decoders treat the first token of a text differently (its leading space), so decoding
        # starts some tokens before the new ones.
        self._ids = prompt_ids[-5:]
        self._start = 0
        self._emitted = len(_whole(decode(self._ids)))
        self._held = 0

    def add(self, token_id: int) -> str:
        self._ids.append(token_id)
        text = self._decode(self._ids[self._start :])
        whole = _whole(text)
        self._held = self._held + 1 if len(whole) < len(text) else 0
        if self._held > MOST_HELD:
            whole, self._held = text[:-1], 1
        piece = whole[self._emitted :]
        self._emitted = max(self._emitted, len(whole))
        if not self._held and len(self._ids) - self._start > 16:
            self._start = len(self._ids) - 5
            self._emitted = len(self._decode(self._ids[self._start :]))
        return piece


def _whole(text: str) -> str:
    return text.rstrip(BROKEN)
