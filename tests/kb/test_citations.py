from pathlib import Path

import pytest

from kb.citations import CitationMark, check_support, find_citations, is_answerable
from kb.prompts import NOT_IN_DOCUMENTS, Source


def source(marker: int, text: str, similarity: float = 0.0, title: str = "Handbook") -> Source:
    return Source(marker, title, (), 1, text, 1.0, similarity)


SICK = source(1, "You earn 4 hours of sick leave per pay period. Sick leave does not expire.", 0.7)
VOUCHER = source(2, "Fill out a voucher within 5 business days. Maria Lopez approves it.", 0.2)


@pytest.mark.parametrize(
    ("text", "markers"),
    [
        ("Yes [1].", [1]),
        ("Yes [1][2].", [1, 2]),
        ("Yes [1, 3].", [1, 3]),
        ("Yes [2-4].", [2, 3, 4]),
        ("Yes [1; 3–4].", [1, 3, 4]),
        ("Yes 【1】 and 【2†source】.", [1, 2]),
        ("Yes [^1].", [1]),
        ("Yes [source 2].", [2]),
        ("Word[1] and **bold**[2]", [1, 2]),
        ("In [2024] and [100]", []),
        ("[0] is none", []),
        ("A [1](https://example.org) link", []),
        ("[1]: https://example.org", []),
        ("Code `a[1]` and ``b[2] ` c``", []),
        ("```\narr[1]\n```\nthen [2]", [2]),
        ("~~~\nunclosed [1]", []),
        ("[9-2]", [9]),
        ("[1-99]", list(range(1, 21))),
        ("", []),
    ],
)
def test_markers_are_found_where_they_are_markers(text: str, markers: list[int]) -> None:
    assert [mark.marker for mark in find_citations(text)] == markers


def test_marks_of_one_bracket_share_its_span() -> None:
    assert find_citations("ab [1, 3].") == [CitationMark(1, 3, 9), CitationMark(3, 3, 9)]


def supported(answer: str, *sources: Source) -> list[bool]:
    return [sentence.supported for sentence in check_support(answer, sources or (SICK, VOUCHER))]


def test_a_quoted_sentence_is_supported_by_its_source() -> None:
    assert supported("You earn 4 hours of sick leave per pay period. [1]") == [True]


def test_a_paraphrase_is_supported() -> None:
    assert supported("Per pay period, an employee earns four hours of sick leave [1].") == [True]


def test_the_wrong_source_does_not_support() -> None:
    assert supported("You earn 4 hours of sick leave per pay period. [2]") == [False]


def test_a_marker_that_no_source_has_does_not_support() -> None:
    assert supported("You earn 4 hours of sick leave per pay period. [7]") == [False]


@pytest.mark.parametrize(
    "answer",
    [
        "You earn 6 hours of sick leave per pay period. [1]",
        "You do not earn 4 hours of sick leave per pay period. [1]",
        "Fill out a voucher within 5 business days and Carlos Lopez approves it. [2]",
        "The moon base on Europa was opened by penguins. [1]",
    ],
)
def test_another_number_name_or_polarity_is_not_supported(answer: str) -> None:
    assert supported(answer) == [False]


def test_a_sentence_without_a_marker_is_held_against_all_sources() -> None:
    assert supported("Fill out a voucher within 5 business days.") == [True]
    assert supported("Bananas ripen faster in paper bags.") == [False]


@pytest.mark.parametrize(
    "answer",
    [
        NOT_IN_DOCUMENTS,
        "Hello!",
        "## Sick leave",
        "According to the documents:",
        "The documents do not mention a dress code.",
        "I could not find that in the sources.",
    ],
)
def test_what_claims_nothing_needs_no_support(answer: str) -> None:
    assert supported(answer) == [True]


def test_each_sentence_is_judged_by_itself_and_where_it_stands() -> None:
    answer = "You earn 4 hours of sick leave per pay period [1]. Penguins opened a base [2]."

    first, second = check_support(answer, [SICK, VOUCHER])

    assert (first.supported, first.markers) == (True, (1,))
    assert (second.supported, second.markers) == (False, (2,))
    assert answer[second.start : second.end] == "Penguins opened a base [2]."


def test_without_sources_nothing_is_supported() -> None:
    assert [s.supported for s in check_support("Leave is 4 hours.", [])] == [False]


def test_a_question_about_the_sources_is_answerable() -> None:
    assert is_answerable("How much sick leave do I earn?", [SICK, VOUCHER]).answerable


def test_a_question_about_something_else_is_not() -> None:
    far = [source(1, SICK.text, 0.05), source(2, VOUCHER.text, 0.02)]

    judged = is_answerable("Which penguins live on Europa?", far)

    assert not judged.answerable
    assert judged.similarity == 0.05


def test_without_passages_nothing_is_answerable() -> None:
    assert not is_answerable("How much sick leave do I earn?", []).answerable


@pytest.mark.data
def test_judged_answers_are_told_apart(shared_data: Path) -> None:
    """BEGIN: 430 answers that people judged attributable to a passage or not."""
    lines = (shared_data / "answers/begin_wow_dev/begin_dev_wow.tsv").read_text().splitlines()[1:]
    rows = [line.split("\t") for line in lines]
    right = {True: [0, 0], False: [0, 0]}
    for _, _, knowledge, _, response, label in rows:
        attributable = label.strip() == "Fully attributable"
        judged = all(s.supported for s in check_support(response, [source(1, knowledge)]))
        right[attributable][judged == attributable] += 1

    assert right[True][1] / sum(right[True]) >= 0.9
    assert right[False][1] / sum(right[False]) >= 0.7
