"""Names of persons are found by the lists; what is called like a person, but is none, is left alone."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune import names


def found(text: str) -> list[str]:
    return [text[start:end] for start, end in names.find(text)]


@pytest.mark.parametrize(
    ("name", "around"),
    [
        ("Anna Novak", "Yesterday {} signed it."),
        ("Anna", "Then {} signed it."),
        ("Anna", "{}'s desk is empty."),
        ("Anna Qwertzuiop", "{}: no list has her family name."),
        ("Anna van der Berg", "Ask {} first."),
        ("Willem ten Brink", "{} is away"),
        ("Sinéad O’Connor", "Ask {}."),
        ("Mary J. Jones", "({})"),
        ("J. Jones", "by {}"),
        ("J.R. Jones", "by {}"),
        ("Jean-Luc Moreau-Petit", "with {}."),
        ("Sarah Moss-Horwitz", "with {}."),
        ("Juan Carlos García", "with {}."),
        ("MARY JONES", "{}"),
        ("Szabó Anna", "{} úr"),
        ("Will Smith", "{} came."),
        ("Mark Taylor", "That is {}."),
        ("Анна Иванова", "Это {}."),
        ("Γιώργος Παπαδόπουλος", "{}"),
        ("王建华", "昨天{}来了"),
        ("佐藤 太郎", "{}さん"),
        ("김민수", "{}"),
    ],
)
def test_a_name_is_found_where_it_stands(name: str, around: str) -> None:
    assert found(around.format(name)) == [name]


@pytest.mark.parametrize(
    "text",
    [
        "Florence, Italy, and San Jose are worth a journey; so are Costa Rica and Lake Victoria.",
        "San Antonio, St. Louis and Fort Collins lie far apart.",
        "Morgan Stanley, Wells Fargo and the Ford Foundation gave money.",
        "They met at Anna Kovacs University, near Martin Luther Street.",
        "In May Grace Period ends; Mark Complete. Will Rose Garden open? Summer Rain fell.",
        "Art and chase: the Chase is on, May is warm, Grace was said, Will it rain?",
        "Over-the-Top praise for Geo-targeting and Long-Term plans of the RAs.",
        "ANNA IS LATE. THE ART OF WAR",
        "The Python Package Index, Google Cloud Platform, and Apple Music",
        "MacAnna2 and xAnna, Anna99",
        "高强的材料和文章",
        "Tämä on hyvä. Una simmetria.",
    ],
)
def test_what_is_called_like_a_person_is_left_alone(text: str) -> None:
    assert found(text) == []


def test_a_word_that_may_be_something_else_needs_a_family_name_of_the_lists() -> None:
    assert found("Grace Qwertzuiop and Grace Kovacs") == ["Grace Kovacs"]


def test_a_family_name_alone_is_one_where_the_text_has_the_full_name() -> None:
    assert found("Qwertzuiop left. Anna Qwertzuiop said so.") == ["Qwertzuiop", "Anna Qwertzuiop"]
    assert found("Qwertzuiop left. She said so.") == []


def test_a_word_of_two_meanings_is_not_looked_for_alone() -> None:
    assert found("Will Smith came. Will it rain? The smith Will knew.") == ["Will Smith"]


def test_a_greeting_and_a_signature_are_read() -> None:
    assert found("Hi Anna,\n\nsee you.\n\nBest,\nTom") == ["Anna", "Tom"]


@given(st.text(max_size=300))
def test_any_text_is_read_and_places_lie_inside_in_order(text: str) -> None:
    last = 0
    for start, end in names.find(text):
        assert last <= start < end <= len(text)
        last = end


@pytest.mark.parametrize(
    "text",
    [
        "A" * 50_000,
        "A. " * 20_000,
        "Anna " * 20_000,
        "A-" * 20_000,
        "Anna van " * 10_000,
        "王" * 30_000,
    ],
)
def test_a_hostile_text_takes_no_more_than_its_length(text: str) -> None:
    names.find("Anna 王")  # the lists are read once

    started = time.process_time()
    names.find(text)

    assert time.process_time() - started < 2
