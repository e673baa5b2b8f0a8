import pytest

from kb import highlights, ranking
from kb.models import Collection
from tests.kb.rows import make_document


def marked(text: str, query: str, language: str = "english") -> list[str]:
    terms = ranking.read_query(query).terms
    (marks,) = highlights.find_marks([(text, language)], terms)
    assert marks == sorted(marks)
    return [text[start:end] for start, end in marks]


@pytest.fixture(autouse=True)
def languages_present(collection: Collection) -> None:
    make_document(collection, "a.md", ["present"])
    make_document(collection, "b.md", ["vorhanden"], language="german")


def test_other_forms_of_a_word_are_marked() -> None:
    assert marked("She painted; painters paint.", "Painting") == ["painted", "paint"]


def test_stop_words_are_not_marked() -> None:
    assert marked("The cat is on the mat.", "where is the cat") == ["cat"]


def test_words_are_stemmed_by_the_language_of_the_passage() -> None:
    assert marked("Viele Häuser und ein Haus.", "Haus", "german") == ["Häuser", "Haus"]


@pytest.mark.parametrize(
    ("text", "query", "expected"),
    [
        ("Set max_upload_mb here.", "max_upload_mb", ["max_upload_mb"]),
        ("Set max_upload_mb here.", "upload", ["upload"]),
        ("Call foo.bar() first.", "foo.bar()", ["foo.bar"]),
        ("Send an e-mail.", "email", ["e-mail"]),
        ("Un café noir", "cafe", ["café"]),
        ("東京に住む", "東京", ["東京"]),
        ("In C++ it is.", "C++", ["C++"]),
        ("1,000 people", "1000", ["1,000"]),
        ("", "river", []),
    ],
)
def test_words_kept_as_they_stand_are_marked(text: str, query: str, expected: list[str]) -> None:
    assert marked(text, query) == expected


def test_a_query_without_words_marks_nothing() -> None:
    assert highlights.find_marks([("some text", "english")], []) == [[]]


def test_a_snippet_of_a_short_text_is_all_of_it() -> None:
    assert highlights.best_snippet("short", []) == (0, 5)


def test_a_snippet_shows_most_different_words_and_cuts_between_words() -> None:
    text = "river " + "filler " * 100 + "the river meets the glacier " + "filler " * 100
    river, glacier = text.index("river", 10), text.index("glacier")
    marks = [(0, 5), (river, river + 5), (glacier, glacier + 7)]

    start, end = highlights.best_snippet(text, marks)

    assert start < river
    assert glacier + 7 <= end
    assert end - start <= highlights.SNIPPET + 20
    assert text[start - 1] == " "
    assert text[end].isspace()


def test_a_snippet_of_text_without_spaces_still_has_its_length() -> None:
    text = "字" * 1000

    start, end = highlights.best_snippet(text, [(500, 502)])

    assert start <= 500 < 502 <= end
    assert end - start <= highlights.SNIPPET
