"""What is measured of a pair: its name, its repeats, its language, and what to look at."""

import time

import pytest

from finetune.models import InstructionPair
from finetune.quality import Quality, content_hash, measure
from kb.prompts import NOT_IN_DOCUMENTS

PASSAGE = "The glacier loses most of its ice in August. Snow falls from November until March."


def found(quality: Quality, kind: str) -> list[list[str | int]]:
    return [finding[1:] for finding in quality.findings if finding[0] == kind]


def test_the_columns_carry_the_names_of_the_row() -> None:
    names = {field.name for field in InstructionPair._meta.get_fields()}
    assert set(Quality.__dataclass_fields__) <= names


def test_every_flag_is_known_to_the_row() -> None:
    worst = measure(
        instruction="Hi",
        output="As an AI I cannot help. {{name}} \ufffd a@b.org password: gl4cier! "
        + "yes so " * 2100,
        sources=[PASSAGE],
    )
    assert set(worst.flags) <= set(InstructionPair.Flag.values)
    assert set(worst.flags) == {
        "personal_data", "secret", "unsupported", "refusal", "template", "encoding", "repetition",
        "short", "long",
    }  # fmt: skip


def test_white_space_and_composition_do_not_make_another_pair() -> None:
    one = content_hash(instruction="Où est  le\ncafé ?", output="Ici.")
    assert one == content_hash(instruction=" Où est le cafe\u0301 ?", output="Ici.\n")
    assert one != content_hash(instruction="Où est le Café ?", output="Ici.")


def test_text_that_moved_to_another_field_makes_another_pair() -> None:
    assert content_hash(instruction="a", input="b") != content_hash(instruction="a", output="b")
    assert content_hash(instruction="a\x1fb") != content_hash(instruction="a", input="b")
    turns = [{"role": "user", "content": "a"}]
    assert content_hash(instruction="b", messages=turns) != content_hash(instruction="b")


def test_support_is_the_share_of_sentences_the_passages_hold() -> None:
    output = "The glacier loses most of its ice in August [1]. Bears eat the hikers in winter [1]."
    quality = measure(instruction="When does it melt?", output=output, sources=[PASSAGE])
    assert quality.support == 0.5
    [[field, start, end]] = found(quality, "unsupported")
    assert (field, output[int(start) : int(end)]) == ("output", output[49:])
    assert "unsupported" in quality.flags
    assert measure(instruction="When does it melt?", output=output).support is None


def test_an_abstention_is_no_refusal_and_claims_nothing() -> None:
    quality = measure(instruction="Who?", output=NOT_IN_DOCUMENTS, sources=[PASSAGE])
    assert quality.support == 1.0
    assert not {"refusal", "unsupported"} & set(quality.flags)


@pytest.mark.parametrize(
    "output",
    [
        "As an AI language model, I do not eat.",
        "I'm sorry, but I can’t help with that.",
        "Als KI habe ich keinen Geschmack.",
        "对不起，我无法回答这个问题。",
        "Lo siento, pero no puedo ayudarte.",
    ],
)
def test_a_refusal_is_seen(output: str) -> None:
    assert "refusal" in measure(instruction="What do you like to eat?", output=output).flags


@pytest.mark.parametrize(
    "output",
    [
        "He said that he was sorry about the AI conference.",
        "The word 'unable' means that one cannot do something.",
        "A KI-67 index is a marker.",
    ],
)
def test_a_story_about_refusing_is_none(output: str) -> None:
    assert "refusal" not in measure(instruction="Tell me a story.", output=output).flags


@pytest.mark.parametrize(
    "residue",
    ["{{name}}", "{% if user %}", "<|im_start|>", "[INST]", "[Your Name]", "### Response:"],
)
def test_what_a_template_left_is_seen(residue: str) -> None:
    quality = measure(instruction="Write a letter.", output=f"{residue}\nyours")
    assert found(quality, "template") == [["output", 0, len(residue)]]


def test_lists_and_citations_are_no_template() -> None:
    output = "See [1] and [note 2]. if (a < b) { return {a: 1}; } x <tag> ## Heading"
    assert "template" not in measure(instruction="Show me.", output=output).flags


@pytest.mark.parametrize("text", ["cafÃ©", "donâ€™t", "Ð¿Ñ€Ð¸Ð²ÐµÑ‚", "caf\ufffd", "a\x00b"])
def test_broken_encoding_is_seen(text: str) -> None:
    assert "encoding" in measure(instruction="Say it.", output=text).flags


@pytest.mark.parametrize(
    "text", ["café Ärger Óbidos São Âge", "don’t “quote”", "привет", "你好，世界", "naïve\t1 €"]
)
def test_letters_beyond_ascii_are_not_broken(text: str) -> None:
    assert "encoding" not in measure(instruction="Say it.", output=text).flags


def test_question_and_answer_in_two_languages_are_flagged_unless_asked_for() -> None:
    german = "Der Gletscher schmilzt im August, weil es dann am wärmsten ist und nicht schneit."
    quality = measure(instruction="When does the glacier melt and why is that so?", output=german)
    assert quality.language == "german"
    assert "language" in quality.flags
    asked = "Translate this to German, please: when does the glacier melt and why is that so?"
    assert "language" not in measure(instruction=asked, output=german).flags


def test_repetition_is_the_share_of_word_groups_that_came_before() -> None:
    assert measure(instruction="Count.", output="one two three four five").repetition == 0
    again = measure(instruction="Count.", output="one two three " * 10)
    assert again.repetition > 0.8
    assert "repetition" in again.flags


def test_words_are_counted_and_characters_where_there_are_no_spaces() -> None:
    quality = measure(instruction="When does it melt?", input="a b", output="In late August.")
    assert (quality.word_count, quality.output_words) == (9, 3)
    assert measure(instruction="何时？", output="在八月。").output_words == 3


def test_a_pair_is_measured_in_well_under_a_millisecond() -> None:
    words = [
        "The",
        "quick",
        "brown",
        "fox",
        "jumps",
        "over",
        "the",
        "lazy",
        "dog",
        "near",
        "the",
        "old",
        "stone",
        "bridge",
        "at",
        "noon",
    ]
    pairs = [" ".join(words[i % 16 :] + words[: i % 16]) * 4 for i in range(300)]
    start = time.process_time()
    for text in pairs:
        measure(instruction=text[:80], output=text)
    assert time.process_time() - start < 300 * 0.002  # 0.3 ms here; five times that is a bug
