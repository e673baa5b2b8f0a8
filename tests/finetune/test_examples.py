"""Rows become token ids with a mask, with a tokenizer small enough to read: one token a word."""

import json
from pathlib import Path
from typing import Any

import pytest

from finetune.examples import Line, SnapshotUnreadable, prepare, read_lines

STOP = 1
USER = {"role": "user", "content": "When does it melt ?"}
ANSWER = {"role": "assistant", "content": "In August ."}


class Words:
    """Splits at blanks; a turn is rendered as role, words, <end>, and a line feed word."""

    eos_token_id: int | None = STOP

    def __init__(self, *, end: str = "<end> <nl>", opening: str = "") -> None:
        self.end, self.opening = end, opening
        self.known = {"<end>": STOP}

    def apply_chat_template(self, messages: list[dict[str, str]], **options: Any) -> str:
        first = self.opening if messages[-1]["role"] == "assistant" else ""
        turns = [f"<{each['role']}> {each['content']} {self.end}" for each in messages]
        if options.get("add_generation_prompt"):
            turns.append("<assistant>")
        return " ".join([first, *turns])

    def __call__(self, text: str, **options: Any) -> dict[str, list[int]]:
        ids = [self.known.setdefault(word, len(self.known) + 1) for word in text.split()]
        return {"input_ids": ids}

    def text(self, ids: list[int]) -> str:
        names = {number: word for word, number in self.known.items()}
        return " ".join(names[each] for each in ids)


def line(*messages: dict[str, str], rejected: str = "") -> Line:
    return Line(1, list(messages), rejected)


def turns(count: int) -> list[dict[str, str]]:
    return [
        {"role": ("user", "assistant")[number % 2], "content": f"turn {number}"}
        for number in range(count)
    ]


def test_only_the_last_answer_and_its_stop_token_are_learned() -> None:
    words = Words()
    (example,) = prepare([line(*turns(2), USER, ANSWER)], words, max_length=99).examples

    start = example.chosen.answer_start
    assert words.text(example.chosen.ids[start:]) == "In August . <end>"
    assert words.text(example.chosen.ids[:start]).endswith("melt ? <end> <nl> <assistant>")
    assert example.learned == 4
    assert not example.truncated


def test_a_template_without_a_stop_token_gets_one() -> None:
    words = Words(end="<nl>")
    (example,) = prepare([line(USER, ANSWER)], words, max_length=99).examples

    assert words.text(example.chosen.ids).endswith("In August . <nl> <end>")


def test_a_stop_token_inside_the_answer_does_not_end_it() -> None:
    words = Words()
    answer = {"role": "assistant", "content": "It writes <end> there"}
    (example,) = prepare([line(USER, answer)], words, max_length=99).examples

    assert words.text(example.chosen.ids).endswith("It writes <end> there <end>")


def test_a_template_that_renders_the_prompt_otherwise_drops_the_row() -> None:
    prepared = prepare([line(USER, ANSWER)], Words(opening="<think>"), max_length=99)

    assert prepared.examples == []
    assert "renders the prompt differently" in prepared.dropped[0].reason


def test_a_tokenizer_without_a_stop_token_drops_the_row() -> None:
    words = Words()
    words.eos_token_id = None

    assert "no stop token" in prepare([line(USER, ANSWER)], words, max_length=99).dropped[0].reason


def test_older_turns_go_first_when_a_row_is_too_long() -> None:
    words = Words()
    system = {"role": "system", "content": "Be brief ."}
    whole = line(system, *turns(6), USER, ANSWER)
    (example,) = prepare([whole], words, max_length=32).examples

    kept = words.text(example.chosen.ids)
    assert example.truncated
    assert len(example.chosen.ids) <= 32
    assert "Be brief ." in kept
    assert "turn 0" not in kept
    assert "turn 5" in kept
    assert kept.endswith("When does it melt ? <end> <nl> <assistant> In August . <end>")


def test_then_the_middle_of_the_sources_is_cut_never_the_answer() -> None:
    words = Words()
    sources = " ".join(f"s{number}" for number in range(200))
    user = {"role": "user", "content": f"{sources} When does it melt ?"}
    (example,) = prepare([line(user, ANSWER)], words, max_length=40).examples

    kept = words.text(example.chosen.ids)
    assert 30 <= len(example.chosen.ids) <= 40
    assert kept.startswith("<user> s0 s1 s2 ")
    assert " … " in kept
    assert kept.endswith("When does it melt ? <end> <nl> <assistant> In August . <end>")


def test_instructions_are_never_cut() -> None:
    words = Words()
    system = {"role": "system", "content": " ".join(f"rule{number}" for number in range(60))}
    user = {"role": "user", "content": " ".join(f"s{number}" for number in range(100))}
    (example,) = prepare([line(system, user, ANSWER)], words, max_length=120).examples

    assert system["content"] in words.text(example.chosen.ids)


def test_an_answer_longer_than_a_row_drops_the_row_with_its_number() -> None:
    long = {"role": "assistant", "content": "word " * 50}
    prepared = prepare([Line(7, [USER, long])], Words(), max_length=40)

    assert [dropped.number for dropped in prepared.dropped] == [7]
    assert "do not fit into 40 tokens" in prepared.dropped[0].reason
    assert prepared.dropped[0].masked


@pytest.mark.parametrize(
    "messages", [[], [USER], [ANSWER], [USER, {"role": "assistant", "content": " "}]]
)
def test_a_row_without_question_or_answer_is_dropped(messages: list[dict[str, str]]) -> None:
    prepared = prepare([line(*messages)], Words(), max_length=99)

    assert (len(prepared.examples), len(prepared.dropped)) == (0, 1)


def test_a_preference_has_both_answers_to_the_same_prompt() -> None:
    words = Words()
    row = line(USER, ANSWER, rejected="In May .")
    (example,) = prepare([row], words, max_length=99, preferences=True).examples

    assert example.rejected is not None
    start = example.chosen.answer_start
    assert example.chosen.ids[:start] == example.rejected.ids[:start]
    assert words.text(example.rejected.ids[start:]) == "In May . <end>"


def test_a_preference_without_a_rejected_answer_is_dropped() -> None:
    prepared = prepare([line(USER, ANSWER)], Words(), max_length=99, preferences=True)

    assert prepared.dropped[0].reason == "There is no rejected answer to compare with."
    assert not prepared.dropped[0].masked


def test_lines_are_read_by_split_with_their_numbers(tmp_path: Path) -> None:
    rows = [{"messages": [USER, ANSWER], "split": split} for split in ("train", "test", "train")]
    path = tmp_path / "snapshot.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))

    assert [each.number for each in read_lines(path, "train")] == [1, 3]


@pytest.mark.parametrize("bad", ["{", "[]", '{"messages": 3}', '{"messages": [{"role": "user"}]}'])
def test_a_line_that_cannot_be_read_is_named(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "snapshot.jsonl"
    path.write_text(json.dumps({"messages": []}) + "\n" + bad)

    with pytest.raises(SnapshotUnreadable, match="Line 2"):
        read_lines(path, "train")
