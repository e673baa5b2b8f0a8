"""Find the words of a query in passages, and the stretch that shows most of them."""

from collections.abc import Iterable, Sequence

from django.db import connection

from kb import words

Span = tuple[int, int]
# (language, word); "" as the language stands for a word that is kept as it is.
Form = tuple[str, str]

SNIPPET = 240
# A snippet begins this far before its first mark, at the start of a word.
_BEFORE = 60
_TERMS_OF_FORMS = """
SELECT f.language, f.word,
       CASE f.language
       WHEN '' THEN ARRAY[hashtextextended(':' || f.word, 0)]
       ELSE ARRAY(SELECT hashtextextended(f.language || ':' || t.lexeme, 0)
                    FROM unnest(to_tsvector(f.language::regconfig, f.word)) AS t)
       END
  FROM unnest(%(languages)s::text[], %(words)s::text[]) AS f (language, word)
"""
# Texts repeat their words, and asking how a thousand are stemmed takes longer than the search.
_MOST_KNOWN = 200_000
_known: dict[Form, list[int]] = {}


def find_marks(passages: Sequence[tuple[str, str]], terms: Sequence[int]) -> list[list[Span]]:
    """Find the words of `terms` in each (text, language): [start, end) in order, apart.

    A word counts when PostgreSQL stems it to the same lexeme: "painting" marks "painted".
    """
    found = [
        [(span, (language if is_plain else "", word)) for span, word, is_plain in words.spans(text)]
        for text, language in passages
    ]
    wanted, forms = frozenset(terms), {form for forms in found for _, form in forms}
    terms_of = _terms_of(forms) if wanted else {}
    matching = {form for form in forms if not wanted.isdisjoint(terms_of.get(form, ()))}
    return [_merged(span for span, form in forms if form in matching) for forms in found]


def _terms_of(forms: set[Form]) -> dict[Form, list[int]]:
    """Give the terms that forms are indexed by; PostgreSQL is asked only for unknown forms."""
    global _known
    if len(_known) > _MOST_KNOWN:
        _known = {}
    known = _known  # another search may begin anew meanwhile
    if unknown := [form for form in forms if form not in known]:
        parameters = {
            "languages": [language for language, _ in unknown],
            "words": [word for _, word in unknown],
        }
        with connection.cursor() as cursor:
            cursor.execute(_TERMS_OF_FORMS, parameters)
            known.update({(language, word): terms for language, word, terms in cursor.fetchall()})
    return known


def _merged(spans: Iterable[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def best_snippet(text: str, marks: Sequence[Span]) -> Span:
    """Choose about SNIPPET characters of text with the most different marked words: [start, end)."""
    starts = [_word_start(text, start - _BEFORE) for start, _ in marks] or [0]
    start = max(starts, key=lambda s: (_worth(text, marks, s), -s))
    start = max(0, min(start, _word_start(text, len(text) - SNIPPET)))
    return start, _word_end(text, start + SNIPPET)


def _worth(text: str, marks: Sequence[Span], start: int) -> float:
    shown = [text[a:b].lower() for a, b in marks if start <= a and b <= start + SNIPPET]
    return len(set(shown)) + len(shown) / 100


def _word_start(text: str, position: int) -> int:
    """Move back to where a word begins, at most 20 characters."""
    position = max(position, 0)
    for at in range(position, max(position - 20, -1), -1):
        if at == 0 or text[at - 1].isspace():
            return at
    return position


def _word_end(text: str, position: int) -> int:
    """Move back to where a word ends, at most 20 characters."""
    if position >= len(text):
        return len(text)
    for at in range(position, position - 20, -1):
        if text[at].isspace():
            return at
    return position
