"""A pair written in any format and read again is the same pair, and writes the same bytes."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune import formats, reading, writing
from finetune.formats import ALPACA, HERE, MESSAGES, PROMPT_COMPLETION, SHAREGPT, Pair

FORMATS = [ALPACA, SHAREGPT, MESSAGES, PROMPT_COMPLETION]


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


PLAIN = Pair(instruction="How deep?", output="30 m.")
PAIRS = {
    "plain": PLAIN,
    "input": replace(PLAIN, input="The lake\n\nof Geneva"),
    "input that repeats": replace(PLAIN, instruction="a\n\nb", input="b"),
    "system": replace(PLAIN, system="Be brief."),
    "preference": replace(PLAIN, rejected="3 m."),
    "only rejected": replace(PLAIN, output="", rejected="3 m."),
    "verdict": replace(PLAIN, output="", rejected="3 m.", extra={"label": False}),
    "good verdict": replace(PLAIN, extra={"label": True}),
    "turns": replace(PLAIN, messages=[turn("user", "Hi"), turn("assistant", "Hello.")]),
    "odd turns": replace(PLAIN, messages=[turn("assistant", "Hello."), turn("user", "Hm")]),
    "tools": replace(
        PLAIN,
        system="Use tools.",
        messages=[
            turn("user", "Hi"),
            turn("assistant", "Hello."),
            HERE,
            turn("tool_call", '{"name": "depth", "arguments": {"of": "lake"}}'),
            turn("tool", "30"),
        ],
        extra={"tools": "[…]"},
    ),
    "calls a tool": replace(
        PLAIN, output='{"name": "depth", "arguments": {}}', extra={"answer_role": "tool_call"}
    ),
    "a call that is no JSON": replace(PLAIN, messages=[HERE, turn("tool_call", "depth()")]),
    "tags": replace(PLAIN, tags=["ice, old", "Gletscher"]),
    "unicode": replace(PLAIN, output="深さは30メートル 😀\u2028\u0085 \"q\" \r\n\ttab \\n"),
    "looks like JSON": replace(PLAIN, instruction="[1, 2]", output='{"a": 1}'),
    "further columns": replace(PLAIN, extra={"id": 7, "meta": {"a": [1, None, 2.5]}}),
    "columns in the way": replace(
        PLAIN, extra={n: n for n in ("input", "prompt", "output", "chosen", "extra", "messages")}
    ),
    "fields of turns": replace(
        PLAIN,
        messages=[turn("user", "Hi"), turn("assistant", "Hello.")],
        extra={"turn_fields": {"1": {"weight": 0}, "3": {"score": 5}}},
    ),
    "provenance": replace(PLAIN, provenance={"state": "approved", "sources": [{"marker": 1}]}),
}  # fmt: skip


def write(pair: Pair, format_: str) -> str:
    return json.dumps(writing.write(pair, format_, pair.provenance or None), ensure_ascii=False)


def read(line: str) -> Pair:
    row = json.loads(line)
    [pair] = reading.read(row, formats.detect([row]), {})
    return pair


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_comes_back_as_it_was(name: str, format_: str) -> None:
    written = write(PAIRS[name], format_)

    again = read(written)

    assert write(again, format_) == written
    verdict = {} if again.output else {"label": False}
    expected = replace(PAIRS[name], extra={**verdict, **PAIRS[name].extra})
    assert again == expected or format_ == ALPACA and again == PAIRS[name]


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_comes_back_from_the_columns_of_a_table(name: str) -> None:
    pair = PAIRS[name]
    cells = writing.write_cells(pair, pair.provenance or None)
    assert list(cells) == list(formats.TABLE)
    as_text = {
        name: (formats.dumps(cell) if cell else "") if isinstance(cell, list) else cell
        for name, cell in cells.items()
    }
    for row in (cells, as_text):
        assert formats.detect([row]) == ALPACA
        [again] = reading.read(row, ALPACA, {})
        assert again == pair


def test_the_shapes_are_those_that_trainers_read() -> None:
    pair = replace(PAIRS["turns"], system="Be brief.", rejected="3 m.")

    assert writing.write(pair, ALPACA, None) == {
        "system": "Be brief.",
        "history": [["Hi", "Hello."]],
        "instruction": "How deep?",
        "input": "",
        "output": "30 m.",
        "rejected": "3 m.",
    }
    assert writing.write(pair, SHAREGPT, None) == {
        "conversations": [
            {"from": "system", "value": "Be brief."},
            {"from": "human", "value": "Hi"},
            {"from": "gpt", "value": "Hello."},
            {"from": "human", "value": "How deep?"},
        ],
        "chosen": {"from": "gpt", "value": "30 m."},
        "rejected": {"from": "gpt", "value": "3 m."},
    }
    assert writing.write(replace(pair, rejected=""), MESSAGES, None) == {
        "messages": [
            turn("system", "Be brief."),
            turn("user", "Hi"),
            turn("assistant", "Hello."),
            turn("user", "How deep?"),
            turn("assistant", "30 m."),
        ]
    }
    assert writing.write(PLAIN, PROMPT_COMPLETION, None) == {
        "prompt": "How deep?",
        "completion": "30 m.",
    }


def test_a_tool_call_is_a_field_of_the_assistants_turn() -> None:
    row = writing.write(PAIRS["tools"], MESSAGES, None)

    call = {"name": "depth", "arguments": {"of": "lake"}}
    assert row["messages"][4] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"type": "function", "function": call}],
    }


def test_a_verdict_falls_with_the_answer_it_was_about() -> None:
    corrected = replace(PAIRS["verdict"], output="30 m.", rejected="")

    row = writing.write(corrected, MESSAGES, None)

    assert "label" not in row
    assert read(json.dumps(row)).output == "30 m."


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
words = texts.filter(lambda text: bool(text.strip()))
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
columns = st.sampled_from(["id", "output", "prompt", "meta", "kto_tag", "history", "source"])
roles = st.sampled_from(["user", "assistant", "tool_call", "tool", "system"])
pairs = st.builds(
    Pair,
    system=texts,
    messages=st.lists(st.builds(turn, roles, texts), max_size=4),
    instruction=words,
    input=texts,
    output=words,
    rejected=st.just("") | words,
    tags=st.lists(words, max_size=2, unique=True),
    extra=st.dictionaries(columns, values.filter(lambda value: value is not None), max_size=3),
)


@settings(max_examples=300, deadline=None)
@given(pair=pairs, format_=st.sampled_from(FORMATS))
def test_any_pair_writes_the_same_bytes_again(pair: Pair, format_: str) -> None:
    written = write(pair, format_)
    assert write(read(written), format_) == written
