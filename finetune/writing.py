"""Pairs to rows of a format. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from finetune.formats import (
    ALPACA,
    FIELDS,
    FIRST_TURN,
    HERE,
    MESSAGES,
    OTHER_PROVENANCE,
    PROMPT_COMPLETION,
    READABLE,
    SHAREGPT,
    SHAREGPT_ROLES,
    TABLE,
    VERDICTS,
    dumps,
    turns_in,
    unpacked,
)


def write(pair: Any, format_: str, provenance: dict[str, Any] | None) -> dict[str, Any]:
    """Give a pair as a row of a format, its provenance and further columns beside it.

    A further column whose name the format uses itself stands in `extra`.
    """
    further = _further(pair)
    row = _WRITERS[format_](pair, further)
    row |= {"tags": list(pair.tags)} if pair.tags else {}
    row |= {"provenance": provenance} if provenance is not None else {}
    used = {*row, *_USED, *_USED_BY[format_]}
    row |= {name: value for name, value in further.items() if name not in used}
    inside = {name: value for name, value in further.items() if name in used}
    return row | ({"extra": inside} if inside else {})


def write_cells(pair: Any, provenance: dict[str, Any] | None) -> dict[str, Any]:
    """Give a pair as the columns of TABLE; lists stay lists, "" is nothing."""
    further, known = _further(pair), provenance or {}
    sources = known.get("sources")
    titles = [str(s.get("title", "")) for s in sources or () if isinstance(s, dict)]
    return {
        **{name: getattr(pair, name) for name in TABLE if name in FIELDS},
        "messages": [_as_message(turn, with_calls=False) for turn in pair.messages],
        "tags": list(pair.tags),
        **{name: str(known.get(name) or "") for name in READABLE},
        "documents": "; ".join(titles),
        "provenance": dumps(provenance) if provenance is not None else "",
        "extra": dumps(further) if further else "",
    }


def _further(pair: Any) -> dict[str, Any]:
    """Give what an imported row held besides, in a fixed order; a verdict only while it holds."""
    is_redeemed = bool(pair.output and not pair.rejected)
    kept = {
        "provenance" if name == OTHER_PROVENANCE else name: value
        for name, value in pair.extra.items()
        if not (name == "provenance" and isinstance(value, dict))
        and not (is_redeemed and name in VERDICTS and value is False)
    }
    return dict(sorted(kept.items()))


def conversation(pair: Any) -> list[dict[str, str]]:
    """Give every turn before the output in order, the system prompt first, as role and content.

    Roles: system, user, assistant, tool_call (its content is JSON) and tool, its result.
    """
    said = f"{pair.instruction}\n\n{pair.input}" if pair.input else pair.instruction
    turns = [{"role": "system", "content": pair.system}] if pair.system else []
    spoken = (turn for turn in pair.messages if turn["content"] or turn["role"] != "system")
    turns += [_as_message(turn, with_calls=False) for turn in spoken]
    here = next((n for n, turn in enumerate(turns) if turn["role"] == HERE["role"]), len(turns))
    return [*turns[:here], {"role": "user", "content": said}, *turns[here + 1 :]]


def _as_alpaca(pair: Any, further: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"system": pair.system} if pair.system else {}
    if exchanges := _exchanges(pair.messages):
        row["history"] = exchanges
    elif pair.messages:
        row["messages"] = [_as_message(turn, with_calls=False) for turn in pair.messages]
    row |= {"instruction": pair.instruction, "input": pair.input, "output": pair.output}
    return row | ({"rejected": pair.rejected} if pair.rejected else {})


def _exchanges(messages: Sequence[Mapping[str, str]]) -> list[list[str]]:
    """Give turns as [[question, answer], …]; empty when they do not alternate so."""
    roles = [turn["role"] for turn in messages]
    if roles != ["user", "assistant"] * (len(roles) // 2):
        return []
    texts = [turn["content"] for turn in messages]
    return [list(exchange) for exchange in zip(texts[::2], texts[1::2], strict=True)]


def _as_sharegpt(pair: Any, further: dict[str, Any]) -> dict[str, Any]:
    return _as_conversation(pair, further, "conversations", _as_sharegpt_turn)


def _as_messages(pair: Any, further: dict[str, Any]) -> dict[str, Any]:
    return _as_conversation(pair, further, "messages", _as_message)


def _as_conversation(
    pair: Any, further: dict[str, Any], name: str, spell: Callable[[Mapping[str, str]], Any]
) -> dict[str, Any]:
    answers, turns = _answers(pair, further), conversation(pair)
    last = answers.pop("completion", None)
    spelled = _spelled([*turns, *([last] if last else [])], pair, further, spell)
    row: dict[str, Any] = {name: spelled}
    row |= {name: spell(turn) for name, turn in answers.items()}
    return row | _beside(pair, further)


def _as_prompt(pair: Any, further: dict[str, Any]) -> dict[str, Any]:
    """Write TRL's row: texts where nothing but the instruction was said, else messages."""
    turns = conversation(pair)
    is_text = len(turns) == 1 and not {"answer_role", "turn_fields"} & set(further)
    answers = _answers(pair, further)
    # Texts that are all conversations as JSON would be read as what they look like.
    is_text = is_text and not all(turns_in(turn["content"]) for turn in (*turns, *answers.values()))
    if is_text:
        row: dict[str, Any] = {"prompt": turns[0]["content"]}
        row |= {name: turn["content"] for name, turn in answers.items()}
        return row | _beside(pair, further)
    last = answers.pop("completion", None)
    spelled = _spelled([*turns, *([last] if last else [])], pair, further, _as_message)
    row = {"prompt": spelled[: len(turns)]}
    row |= {"completion": spelled[len(turns) :]} if last else {}
    row |= {name: [_as_message(turn)] for name, turn in answers.items()}
    return row | _beside(pair, further)


def _answers(pair: Any, further: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Give {"completion": turn}, or {"chosen": turn, "rejected": turn} of a preference."""
    role = str(further.pop("answer_role", "assistant"))
    if pair.output and pair.rejected:
        named = {"chosen": pair.output, "rejected": pair.rejected}
    else:
        named = {"completion": pair.output or pair.rejected}
    return {name: {"role": role, "content": text} for name, text in named.items()}


def _beside(pair: Any, further: dict[str, Any]) -> dict[str, Any]:
    """Give the input, which was joined to the instruction, and the verdict on a wrong answer."""
    row = {"input": pair.input} if pair.input else {}
    if not pair.system and _speaks_first(pair):
        row[FIRST_TURN] = "system"
    if not pair.output:
        further.pop("label", None)
        row["label"] = False
    return row


def _speaks_first(pair: Any) -> bool:
    """Whether the first turn of the conversation is the system's, its prompt aside."""
    return conversation(pair)[0]["role"] == "system"


def _spelled(
    turns: Sequence[Mapping[str, str]],
    pair: Any,
    further: dict[str, Any],
    spell: Callable[[Mapping[str, str]], dict[str, Any]],
) -> list[dict[str, Any]]:
    """Spell turns as a format does, each with what it held besides when it was imported."""
    fields, first = further.pop("turn_fields", {}), 1 if _speaks_first(pair) else 0
    return [
        spell(turn) | fields.get(str(position - first), {}) for position, turn in enumerate(turns)
    ]


def _as_sharegpt_turn(turn: Mapping[str, str]) -> dict[str, Any]:
    return {"from": SHAREGPT_ROLES.get(turn["role"], turn["role"]), "value": turn["content"]}


def _as_message(turn: Mapping[str, str], *, with_calls: bool = True) -> dict[str, Any]:
    """Spell a turn for chat templates: a tool call is a field of the assistant's turn."""
    call = unpacked(turn["content"]) if with_calls and turn["role"] == "tool_call" else None
    calls: list[Any] = call if isinstance(call, list) else [call]
    if not all(isinstance(c, dict) and set(c) == {"name", "arguments"} for c in calls):
        return {"role": turn["role"], "content": turn["content"]}
    functions = [{"name": c["name"], "arguments": c["arguments"]} for c in calls]
    spelled = [{"type": "function", "function": function} for function in functions]
    return {"role": "assistant", "content": None, "tool_calls": spelled}


_WRITERS: dict[str, Callable[[Any, dict[str, Any]], dict[str, Any]]] = {
    ALPACA: _as_alpaca,
    SHAREGPT: _as_sharegpt,
    MESSAGES: _as_messages,
    PROMPT_COMPLETION: _as_prompt,
}
# Names that a reader of the format understands, so that no further column may have them.
_USED = {"system", "input", "chosen", "rejected", "tags", "provenance", "extra", "instruction"}
_USED_BY = {
    ALPACA: {"output", "history", "messages", "instances", *READABLE},
    SHAREGPT: {"conversations", "output", FIRST_TURN},
    MESSAGES: {"messages", "output", "conversations", FIRST_TURN},
    PROMPT_COMPLETION: {
        *("prompt", "completion", "output", "messages", "conversations", FIRST_TURN)
    },
}
