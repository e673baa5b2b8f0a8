"""Rows of each format become pairs; what they held besides is kept."""

import json
from typing import Any

import pytest

from finetune import formats, reading
from finetune.formats import HERE, Pair
from finetune.reading import RowRefused


def read(row: dict[str, Any], mapping: dict[str, str] | None = None) -> Pair:
    """Read a row as the format that it is recognised as."""
    [pair] = reading.read(row, formats.detect([row]), mapping or {})
    return pair


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def said(speaker: str, value: str) -> dict[str, str]:
    return {"from": speaker, "value": value}


def test_alpaca() -> None:
    pair = read({"instruction": "Add.", "input": "2 and 3", "output": "5", "id": 7})

    assert pair == Pair(instruction="Add.", input="2 and 3", output="5", extra={"id": 7})


def test_alpaca_with_system_history_and_tags() -> None:
    row = {"instruction": "And now?", "output": "8", "system": "Be brief.", "tags": ["sums"]}

    pair = read(row | {"history": [["2 and 3?", "5"], ["Sure?", "Yes"]]})

    assert pair.system == "Be brief."
    assert pair.tags == ["sums"]
    assert pair.messages == [
        turn("user", "2 and 3?"),
        turn("assistant", "5"),
        turn("user", "Sure?"),
        turn("assistant", "Yes"),
    ]


@pytest.mark.parametrize(
    ("answers", "output", "extra"),
    [
        ({"output": "good", "rejected": "bad"}, "good", {}),
        ({"chosen": "good", "rejected": "bad"}, "good", {}),
        ({"output": "good", "chosen": "good", "rejected": "bad"}, "good", {}),
        ({"output": "old", "chosen": "good", "rejected": "bad"}, "good", {"output": "old"}),
    ],
)
def test_alpaca_with_preferences(
    answers: dict[str, str], output: str, extra: dict[str, str]
) -> None:
    pair = read({"instruction": "Write."} | answers)

    assert (pair.output, pair.rejected, pair.extra) == (output, "bad", extra)


def test_each_instance_of_a_seed_task_is_a_pair() -> None:
    row = {
        "id": "seed_task_1",
        "instruction": "Translate.",
        "instances": [{"input": "eau", "output": "water"}, {"input": "feu", "output": "fire"}],
        "is_classification": False,
    }

    first, second = reading.read(row, formats.detect([row]), {})

    assert (first.instruction, first.input, first.output) == ("Translate.", "eau", "water")
    assert (second.input, second.output) == ("feu", "fire")
    assert second.extra == {"id": "seed_task_1", "is_classification": False}


def test_sharegpt_with_a_system_turn_and_earlier_turns() -> None:
    turns = [
        said("system", "Be brief."),
        said("human", "Hello"),
        said("gpt", "Hi."),
        said("human", "How deep?"),
        said("gpt", "30 m."),
    ]

    pair = read({"conversations": turns, "id": "a"})

    assert (pair.system, pair.instruction, pair.output) == ("Be brief.", "How deep?", "30 m.")
    assert pair.messages == [turn("user", "Hello"), turn("assistant", "Hi.")]
    assert pair.extra == {"id": "a"}


def test_sharegpt_with_tools_keeps_their_turns_in_place() -> None:
    turns = [
        said("human", "Weather?"),
        said("function_call", '{"name": "w", "arguments": {}}'),
        said("observation", "sun"),
        said("gpt", "It is sunny."),
    ]

    pair = read({"conversations": turns, "tools": "[…]"})

    assert (pair.instruction, pair.output) == ("Weather?", "It is sunny.")
    assert pair.messages == [
        HERE,
        turn("tool_call", '{"name": "w", "arguments": {}}'),
        turn("tool", "sun"),
    ]
    assert pair.extra == {"tools": "[…]"}


def test_an_answer_that_only_calls_a_tool_says_so() -> None:
    pair = read({"conversations": [said("human", "Weather?"), said("function_call", "{}")]})

    assert (pair.output, pair.extra) == ("{}", {"answer_role": "tool_call"})


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [
        (said("gpt", "good"), said("gpt", "bad")),
        (turn("assistant", "good"), turn("assistant", "bad")),
        ("good", "bad"),
        ([turn("assistant", "good")], [turn("assistant", "bad")]),
    ],
)
@pytest.mark.parametrize("name", ["conversations", "messages"])
def test_a_conversation_with_preferences(name: str, chosen: Any, rejected: Any) -> None:
    row = {name: [said("human", "Write.")], "chosen": chosen, "rejected": rejected}

    assert read(row) == Pair(instruction="Write.", output="good", rejected="bad")


@pytest.mark.parametrize(("label", "output", "rejected"), [(True, "Yes", ""), (False, "", "Yes")])
def test_an_answer_with_a_verdict_is_right_or_wrong(
    label: bool, output: str, rejected: str
) -> None:
    pair = read({"messages": [turn("user", "Is it?"), turn("assistant", "Yes")], "label": label})

    assert (pair.output, pair.rejected, pair.extra) == (output, rejected, {"label": label})


def test_messages_with_tool_calls() -> None:
    call = {"type": "function", "function": {"name": "w", "arguments": {"at": "Rome"}}}
    turns = [
        turn("user", "Weather?"),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "sun", "tool_call_id": "c1"},
        turn("assistant", "Sunny."),
    ]

    pair = read({"messages": turns})

    assert pair.messages[1:] == [
        turn("tool_call", '{"name": "w", "arguments": {"at": "Rome"}}'),
        turn("tool", "sun"),
    ]
    assert pair.extra == {"turn_fields": {"2": {"tool_call_id": "c1"}}}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Add 2 and 3.", "completion": "5"},
        {"prompt": [turn("user", "Add 2 and 3.")], "completion": [turn("assistant", "5")]},
        {"prompt": [turn("user", "Add 2 and 3.")], "completion": "5"},
    ],
)
def test_prompt_and_completion(row: dict[str, Any]) -> None:
    assert read(row) == Pair(instruction="Add 2 and 3.", output="5")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Add.", "chosen": "5", "rejected": "6"},
        {
            "prompt": [turn("user", "Add.")],
            "chosen": [turn("assistant", "5")],
            "rejected": [turn("assistant", "6")],
        },
        {
            "chosen": [turn("user", "Add."), turn("assistant", "5")],
            "rejected": [turn("user", "Add."), turn("assistant", "6")],
        },
    ],
)
def test_prompts_with_preferences(row: dict[str, Any]) -> None:
    assert read(row) == Pair(instruction="Add.", output="5", rejected="6")


def test_a_completion_that_is_json_stays_the_text_it_is() -> None:
    assert read({"prompt": "List.", "completion": "[1, 2]"}).output == "[1, 2]"


def test_columns_are_guessed_by_their_names() -> None:
    mapping = formats.guess_mapping(["Question", "context", "Answer", "category"])

    assert mapping == {"instruction": "Question", "input": "context", "output": "Answer"}
    row = {"Question": "Who?", "context": "A tale.", "Answer": "She.", "category": "qa"}
    assert read(row, mapping) == Pair(
        instruction="Who?", input="A tale.", output="She.", extra={"category": "qa"}
    )


def test_a_mapped_conversation_needs_no_instruction() -> None:
    row = {"talk": [["Hello", "Hi."], ["How deep?", "30 m."]], "id": 7, "chosen": 3}

    pair = read(row, {"messages": "talk"})

    assert (pair.instruction, pair.output) == ("How deep?", "30 m.")
    assert pair.messages == [turn("user", "Hello"), turn("assistant", "Hi.")]
    assert pair.extra == {"id": 7, "chosen": 3}


def test_a_cell_may_hold_json() -> None:
    pair = read({"conversations": json.dumps([said("human", "a"), said("gpt", "b")])})

    assert (pair.instruction, pair.output) == ("a", "b")


def test_tags_in_one_cell() -> None:
    row = {"instruction": "a", "output": "b"}
    assert read(row | {"tags": "ice, snow; ice"}).tags == ["ice", "snow"]
    assert read(row | {"tags": '["ice, old"]'}).tags == ["ice, old"]
    assert read(row | {"tags": {"ice": 1}}).extra == {"tags": {"ice": 1}}


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"instruction": "a", "output": ""}, "The output is empty."),
        ({"instruction": "a", "output": None}, "The output is empty."),
        ({"instruction": " ", "output": "b"}, "The instruction is empty."),
        ({"instruction": "a", "output": True}, "The output is true or false, not text."),
        ({"instruction": {"a": 1}, "output": "b"}, "The instruction is an object, not text."),
        ({"instruction": "a", "instances": []}, "The list of instances is empty."),
        ({"conversations": []}, "The conversation is empty."),
        ({"conversations": [said("human", "a")]}, "The last turn of the conversation has no answer."),
        ({"conversations": [said("gpt", "a")]}, "Nobody asks anything in the conversation."),
        ({"conversations": ["a"]}, "Turn 1 is not an object with a speaker and a text."),
        ({"conversations": [said("alien", "a")]}, "Turn 1 is said by “alien”, who is no known speaker."),
        ({"messages": [turn("user", "a"), {"role": "assistant"}]}, "Turn 2 has no text."),
        ({"chosen": [turn("user", "a")], "rejected": []}, "The conversation is empty."),
        ({"instruction": "a", "output": "b\0"}, "The output holds a NUL character, which cannot be stored."),
        (
            {"instruction": "a", "output": "b", "x": {"y": ["\ud800"]}},
            "A further column holds half a character, which cannot be stored.",
        ),
        (
            {"instruction": "a", "output": "b", "x": float("inf")},
            "A further column holds a number that is too large to be stored.",
        ),
    ],
)  # fmt: skip
def test_what_makes_no_pair_is_refused_with_a_sentence(row: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RowRefused) as refusal:
        read(row)
    assert str(refusal.value) == sentence


PACKED = {
    "prompt": '[{"role": "user", "content": "Add 2 and 3."}]',
    "completion": '[{"role": "assistant", "content": "5"}]',
}


def test_a_conversation_in_the_cells_of_a_table_is_read_as_one() -> None:
    for answer in (PACKED["completion"], "5"):
        [pair] = reading.read(
            {**PACKED, "completion": answer}, formats.PROMPT_COMPLETION, {}, in_cells=True
        )
        assert (pair.instruction, pair.output) == ("Add 2 and 3.", "5")


def test_a_row_of_packed_conversations_is_read_as_one_in_any_file() -> None:
    assert read(PACKED).instruction == "Add 2 and 3."


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Name people as JSON.", "completion": '[{"name": "Alice"}]'},
        {"prompt": "Write a chat as JSON.", "completion": PACKED["completion"]},
        {"prompt": PACKED["prompt"], "completion": "Somebody asks for a sum."},
        {"prompt": PACKED["prompt"], "completion": '[{"name": "Alice"}]'},
    ],
)
def test_one_text_that_looks_like_a_conversation_stays_a_text(row: dict[str, Any]) -> None:
    pair = read(row)
    assert (pair.instruction, pair.output) == (row["prompt"], row["completion"])


def test_no_answer_beside_a_text_is_a_conversation_even_in_a_table() -> None:
    row = {"prompt": "Write a chat as JSON.", "completion": PACKED["completion"]}
    [pair] = reading.read(row, formats.PROMPT_COMPLETION, {}, in_cells=True)
    assert pair.output == PACKED["completion"]
