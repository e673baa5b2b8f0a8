import pytest

from kb import words


@pytest.mark.parametrize(
    ("text", "plain", "exact"),
    [
        ("set max_upload_mb to 50", "set max upload mb to 50", {"max_upload_mb"}),
        ("call foo.bar() now", "call foo bar() now", {"foo.bar"}),
        ("mail ann@example.org", "mail ann example org", {"ann@example.org"}),
        ("an e-mail", "an e mail", {"e-mail", "email"}),
        ("1,000 of 3.14", "1 000 of 3.14", {"1,000", "1000"}),
        ("C++ or C#", "C or C", {"c++", "c#"}),
        ("in kb/search.py", "in kb search py", {"kb/search.py"}),
        ("<b>bold</b>", "b bold b", set()),
        ("", "", set()),
    ],
)
def test_signs_join_words_that_are_found_whole_and_in_parts(
    text: str, plain: str, exact: set[str]
) -> None:
    read = words.read(text)

    assert read.plain.split() == plain.split()
    assert set(read.exact) == exact


def test_text_without_spaces_is_kept_as_pairs_of_letters() -> None:
    read = words.read("東京都に住む")

    assert not read.plain.strip()
    assert {"東京", "京都", "都", "都に"} <= set(read.exact)


def test_camel_case_is_found_whole_and_in_parts() -> None:
    assert words.read("HTMLParser").plain.split() == ["HTMLParser", "HTML", "Parser"]


def test_a_long_accented_word_is_also_found_without_its_accents() -> None:
    assert words.read("Cafés für alle").plain.split() == ["Cafés", "für", "alle", "Cafes"]


def test_spans_name_what_is_indexed_there() -> None:
    text = "The e-mail"
    spans = [(text[slice(*span)], word, is_plain) for span, word, is_plain in words.spans(text)]

    assert ("e-mail", "e-mail", False) in spans
    assert ("e-mail", "email", False) in spans
    assert ("mail", "mail", True) in spans


def test_a_megabyte_of_signs_takes_no_time() -> None:
    assert words.read("a" + "_" * 500_000 + "-" * 500_000).exact == {}
