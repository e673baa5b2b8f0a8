from hypothesis import given
from hypothesis import strategies as st

from kb.sentences import SentenceKind, content_words, split_sentences, words


def parts(text: str) -> list[str]:
    return [text[s.start : s.end] for s in split_sentences(text)]


def test_stops_of_abbreviations_initials_and_decimals_end_nothing() -> None:
    text = "Dr. Ho met J. Smith et al. at 3.5 p.m. She paid $2.50, i.e. half. See Fig. 3 for more."

    assert parts(text) == [
        "Dr. Ho met J. Smith et al. at 3.5 p.m.",
        "She paid $2.50, i.e. half.",
        "See Fig. 3 for more.",
    ]


def test_a_year_ends_a_sentence_and_an_ordinal_does_not() -> None:
    assert parts("It began in 1998. 23 people came.") == ["It began in 1998.", "23 people came."]
    assert len(parts("Wir feiern am 3. Oktober in Bonn. Alle kommen.")) == 2


def test_citations_behind_the_stop_belong_to_the_sentence_before() -> None:
    assert parts("You earn 4 hours. [1][2] It never expires [1]. 【3】 Ask.") == [
        "You earn 4 hours. [1][2]",
        "It never expires [1]. 【3】",
        "Ask.",
    ]


def test_quotes_and_brackets_close_with_their_sentence() -> None:
    assert parts('He asked "Why?" (She knew.) It was late!') == [
        'He asked "Why?"',
        "(She knew.)",
        "It was late!",
    ]


def test_lines_of_a_paragraph_are_one_text_and_list_items_are_not() -> None:
    text = "A line that\ngoes on. Next:\n- one\n  and more\n- two\n1. three\n\nEnd"

    assert parts(text) == [
        "A line that\ngoes on.",
        "Next:",
        "- one\n  and more",
        "- two",
        "1. three",
        "End",
    ]


def test_markdown_gives_headings_table_rows_and_code_their_kinds() -> None:
    text = "# Title\n| a | b |\n|---|---|\n| 1 | 2 |\n```py\nx. Y\n\nz\n```\nText."

    assert [s.kind for s in split_sentences(text)] == [
        SentenceKind.HEADING,
        SentenceKind.TABLE,
        SentenceKind.TABLE,
        SentenceKind.CODE,
        SentenceKind.TEXT,
    ]


def test_chinese_and_japanese_need_no_space_after_the_stop() -> None:
    assert parts("今日は良い天気です。明日は雨でしょう。") == [
        "今日は良い天気です。",
        "明日は雨でしょう。",
    ]


def test_tokenized_lower_case_text_is_cut_at_its_free_standing_stops() -> None:
    assert parts("it was founded in 1960 . it grew .") == ["it was founded in 1960 .", "it grew ."]


@given(st.text(alphabet="aB.?! \n\t[]1(#|-`*。字", max_size=80))
def test_sentences_are_in_order_and_leave_out_only_white_space_and_rules(text: str) -> None:
    sentences = split_sentences(text)

    position = 0
    for sentence in sentences:
        assert position <= sentence.start < sentence.end <= len(text)
        assert not set(text[position : sentence.start]) - set(" \n\t-|*:_=")
        position = sentence.end


def test_inflected_words_meet_and_stop_words_go() -> None:
    assert content_words("The cats were running") == content_words("a cat runs")
    assert content_words("Wie viele Urlaubstage haben die Mitarbeiter?", "german") == [
        "urlaubstag",
        "mitarbeit",
    ]


def test_numbers_are_compared_without_their_commas() -> None:
    assert words("1,000 people, 3.5 %") == ["1000", "people", "3.5", "%"]


def test_scripts_without_spaces_become_pairs() -> None:
    assert content_words("東京都") == ["東京", "京都"]
