"""Make text ready for PostgreSQL's `to_tsvector`, and find what it would lose.

PostgreSQL stems words and drops stop words by language. It would also take `foo.bar` for a host
name, drop `<tag>`, and take a Chinese sentence for one word. So its share is written as plain words,
and what must be found as it stands is listed beside them. Pure.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

# Chinese, Japanese, Thai, Lao, Khmer and Burmese put no spaces between words; Korean glues
# particles to them.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]+"
)
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
# Words joined by signs (max_upload_mb, foo.bar, a/b, e-mail, ann@example.org), 1,000, C++ and C#.
# Tried only where a word begins, and "++" gives nothing back: a shorter piece could not match.
_JOINED = re.compile(
    r"\d{1,3}(?:,\d{3})+(?![\d,])"
    r"|(?<![^\W_])(?:[^\W_]++(?:_*+(?:::|->|[.\-/:@#\\])_*+[^\W_]++|_++[^\W_]++)++"
    r"|\b[A-Za-z]++\+\+|\b[A-Za-z]#(?!\w))"
)
_NUMBER = re.compile(r"\d+(?:\.\d+)+")
_SIGNS = re.compile(r"[\W_]+")
_CAMEL_WORD = re.compile(r"\b(?=\w*(?:[a-z0-9][A-Z]|[A-Z]{2}[a-z]{2}))\w+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})")
_HYPHENATED = re.compile(r"[^\W_]+(?:-[^\W_]+)+")
# PostgreSQL would read tags, paths and addresses out of these.
_BLANKS = str.maketrans(dict.fromkeys("<>&/\\_=?#@:~|\0", " "))
_WORD = re.compile(r"\d+(?:\.\d+)+|[^\W_]+")
_ACCENTED_WORD = re.compile(r"\w*[^\W\d_\x00-\x7f]\w*")
# Without its accents a shorter word often is another one (für, fur).
_UNACCENTED_FROM = 4


@dataclass(frozen=True, slots=True)
class Words:
    """`plain`: for `to_tsvector`. `exact`: how often each word stands that is kept as it is."""

    plain: str
    exact: Counter[str]

    def plain_words(self) -> Counter[str]:
        return Counter(word.lower() for word in _WORD.findall(self.plain))


def read(text: str) -> Words:
    """Split text into words to stem and words to keep.

    "set max_upload_mb" gives "set max upload mb" and {"max_upload_mb": 1}.
    """
    exact: Counter[str] = Counter()

    def take_unspaced(match: re.Match[str]) -> str:
        exact.update(_pieces(match[0]))
        return " "

    def take_joined(match: re.Match[str]) -> str:
        if _NUMBER.fullmatch(match[0]):
            return match[0]
        exact.update(_spellings(match[0].lower()))
        return _SIGNS.sub(" ", match[0])

    text = unicodedata.normalize("NFKC", text)
    text = _JOINED.sub(take_joined, _UNSPACED.sub(take_unspaced, text)).translate(_BLANKS)
    text = _CAMEL_WORD.sub(lambda match: f"{match[0]} {_CAMEL.sub(' ', match[0])}", text)
    return Words(plain=" ".join([text, *_unaccented(text)]), exact=exact)


def spans(text: str) -> Iterator[tuple[tuple[int, int], str, bool]]:
    """Yield where each word of a text stands, [start, end), how it is indexed, and if `plain`.

    A stretch may come several times: "e-mail" as "e-mail", as "email", and its parts as plain words.
    """
    for match in _WORD.finditer(text):
        yield match.span(), match[0], True
        if not match[0].isascii():
            yield from ((match.span(), form, True) for form in _unaccented(match[0]))
    for match in _JOINED.finditer(text):
        yield from ((match.span(), form, False) for form in _spellings(match[0].lower()))
    for match in _UNSPACED.finditer(text):
        for at in range(match.start(), match.end()):
            yield (at, at + 1), text[at], False
            if at + 1 < match.end():
                yield (at, at + 2), text[at : at + 2], False


def _pieces(run: str) -> list[str]:
    """Give every two neighbouring letters, and Han letters alone as well: many are words."""
    pairs = [run[i : i + 2] for i in range(len(run) - 1)]
    return pairs + (_HAN.findall(run) if len(run) > 1 else [run])


def _spellings(word: str) -> set[str]:
    """Give the word as it stands and, as people write e-mail and 1,000 both ways, in one piece."""
    in_one_piece = word.replace(",", "")
    if _HYPHENATED.fullmatch(word):
        in_one_piece = word.replace("-", "")
    return {word, in_one_piece}


def _unaccented(text: str) -> Iterator[str]:
    for word in _ACCENTED_WORD.findall(text):
        if len(word) >= _UNACCENTED_FROM:
            parts = unicodedata.normalize("NFD", word)
            bare = "".join(letter for letter in parts if not unicodedata.combining(letter))
            if bare != word:
                yield bare
