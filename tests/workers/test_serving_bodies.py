"""What clients send, however strange, is accepted or refused with a reason."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.serving import bodies
from workers.serving.generation import Limits, Wanted

LIMITS = Limits(max_total_tokens=64)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
NAMES = st.sampled_from(
    [
        "temperature",
        "top_p",
        "top_k",
        "typical_p",
        "seed",
        "stop",
        "truncate",
        "max_new_tokens",
        "max_tokens",
        "best_of",
        "details",
        "repetition_penalty",
        "frequency_penalty",
        "presence_penalty",
        "do_sample",
        "top_n_tokens",
        "grammar",
        "watermark",
        "adapter_id",
        "return_full_text",
        "decoder_input_details",
    ]
)


def wanted(asked: bodies.Asked) -> list[Wanted]:
    def encode(text: str) -> list[int]:
        return list(text.encode())

    return [bodies.validate(asked, prompt, encode, "", LIMITS) for prompt in asked.prompts]


@given(st.dictionaries(NAMES, VALUES, max_size=4), st.text(max_size=5) | VALUES)
def test_any_generate_body_is_read_or_refused(parameters: dict[str, Any], inputs: Any):
    try:
        [read] = wanted(bodies.read_generate({"inputs": inputs, "parameters": parameters}))
    except (bodies.Refused, bodies.Unreadable):
        return
    assert 0 < read.max_new_tokens <= LIMITS.max_total_tokens - len(read.prompt_ids)
    assert read.sampling.temperature > 0
    assert 0 < read.sampling.top_p <= 1


@given(st.dictionaries(NAMES, VALUES, max_size=4), st.lists(VALUES, max_size=2))
def test_any_chat_body_is_read_or_refused(fields: dict[str, Any], messages: list[Any]):
    chat = [{"role": "user", "content": "x"}, *messages]
    try:
        wanted(bodies.read_chat({**fields, "messages": chat}, lambda messages: "prompt"))
    except (bodies.Refused, bodies.Unreadable):
        return


@given(st.binary(max_size=40))
def test_any_bytes_are_json_or_refused(raw: bytes):
    with suppress(bodies.Unreadable):
        bodies.read_json(raw)


@pytest.mark.parametrize(
    ("body", "samples"),
    [
        ({"inputs": "x"}, True),  # TGI's surprise
        ({"inputs": "x", "parameters": {}}, False),
        ({"inputs": "x", "parameters": {"temperature": 1.0}}, False),
        ({"inputs": "x", "parameters": {"temperature": 0.7}}, True),
        ({"inputs": "x", "parameters": {"top_p": 0.9}}, True),
        ({"inputs": "x", "parameters": {"do_sample": True}}, True),
    ],
)
def test_generate_samples_as_tgi_does(body: dict[str, Any], samples: bool):
    [read] = wanted(bodies.read_generate(json.loads(json.dumps(body))))
    assert read.sampling.do_sample is samples


@pytest.mark.parametrize(("temperature", "samples"), [(0, False), (None, True), (1.0, True)])
def test_chat_is_greedy_only_at_temperature_0(temperature: float | None, samples: bool):
    body = {"messages": [{"role": "user", "content": "x"}], "temperature": temperature}
    [read] = wanted(bodies.read_chat(body, lambda messages: "prompt"))
    assert read.sampling.do_sample is samples


def test_parts_of_a_message_are_joined():
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    seen: list[Any] = []
    body = {"messages": [{"role": "user", "content": parts}], "presence_penalty": -0.5}
    asked = bodies.read_chat(body, lambda messages: seen.extend(messages) or "prompt")  # type: ignore[func-returns-value]
    assert seen == [{"role": "user", "content": "one two"}]
    assert wanted(asked)[0].sampling.repetition_penalty == 1.5


def test_names_of_the_base_and_of_adapters_are_told_apart():
    loaded = {"a": ""}
    for name in ("", "tgi", "dummy", "/models/base"):
        assert bodies.resolve(name, loaded, "/models/base", fall_back=False) == ""
    assert bodies.resolve("a", loaded, "/models/base", fall_back=False) == "a"
    assert bodies.resolve("b", loaded, "/models/base", fall_back=True) == ""
    with pytest.raises(bodies.AdapterUnknown, match="“b” is not loaded"):
        bodies.resolve("b", loaded, "/models/base", fall_back=False)
