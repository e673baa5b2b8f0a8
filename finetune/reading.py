"""Rows of a file to pairs. Pure."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from finetune.formats import (
    ALPACA,
    FIELDS,
    FIRST_TURN,
    HERE,
    MAX_TAG,
    MESSAGES,
    NAMES,
    OTHER_PROVENANCE,
    PROMPT_COMPLETION,
    READABLE,
    ROLES,
    SHAREGPT,
    TABLE,
    Pair,
    dumps,
    turns_in,
    unpacked,
)

LONGEST_NAME = 60


class RowRefused(Exception):
    """A row that makes no pair; the message is a sentence."""


def read(
    row: Mapping[str, Any], format_: str, mapping: Mapping[str, str], *, in_cells: bool = False
) -> list[Pair]:
    """Give the pairs of a row, one as a rule. `in_cells`: of a table. Raises RowRefused."""
    # The readable columns of our own tables are written anew from the provenance.
    ignored = set(READABLE) if set(READABLE) <= set(row) else set()
    left = {
        str(name): value
        for name, value in row.items()
        if name not in ignored and value is not None and not (value == "" and name in TABLE)
    }
    carried = _carried(left)
    if format_ == PROMPT_COMPLETION:
        left |= _packed_turns(left, in_cells=in_cells)
    if reader := _READERS.get(format_):
        tags, pairs = _tags(left), reader(left)
    else:
        tags, pairs = [], _mapped(left, mapping)
    for pair in pairs:
        pair.tags = pair.tags or tags
        pair.extra = {**left, **pair.extra, **carried.get("extra", {})}
        pair.provenance = carried.get("provenance", {})
        if pair.provenance and "provenance" in pair.extra:
            pair.extra[OTHER_PROVENANCE] = pair.extra.pop("provenance")
        _judge(pair)
        _check(pair)
    return pairs


def _carried(left: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Take what our own exports put beside the content: provenance, and columns without a place."""
    found: dict[str, dict[str, Any]] = {}
    for name in ("provenance", "extra"):
        value = unpacked(left.get(name))
        if isinstance(value, dict):
            found[name] = {str(key): inner for key, inner in value.items()}
            del left[name]
    return found


def _alpaca(left: dict[str, Any]) -> list[Pair]:
    instances = left.pop("instances", None)
    if instances is not None:
        return _instances(left, instances)
    pair = Pair(
        system=_text(left, "system"),
        instruction=_text(left, "instruction"),
        input=_text(left, "input"),
        output=_preferred(left),
        rejected=_text(left, "rejected"),
        messages=_history(left),
    )
    return [pair]


def _preferred(left: dict[str, Any]) -> str:
    """Take `chosen` before `output`; an output that differs from it is kept beside."""
    chosen, output = left.pop("chosen", ""), left.pop("output", "")
    if chosen not in ("", output) and output != "":
        left["output"] = output
    return _as_text(chosen if chosen != "" else output, "output")


def _instances(left: dict[str, Any], instances: Any) -> list[Pair]:
    """Read one instruction with several inputs and outputs, as self-instruct's seed tasks."""
    if not isinstance(instances, list) or not instances:
        raise RowRefused("The list of instances is empty.")
    instruction, pairs = _text(left, "instruction"), []
    for instance in instances:
        if not isinstance(instance, dict):
            raise RowRefused("An instance is not an object with input and output.")
        of_its_own = dict(instance)
        pair = Pair(
            instruction=instruction,
            input=_text(of_its_own, "input"),
            output=_text(of_its_own, "output"),
        )
        pair.extra = of_its_own
        pairs.append(pair)
    return pairs


def _history(left: dict[str, Any]) -> list[dict[str, str]]:
    """Read earlier turns: LLaMA-Factory's [[question, answer], …], or our own list of turns."""
    messages, history = unpacked(left.get("messages")), unpacked(left.get("history"))
    if isinstance(messages, list) and (not messages or isinstance(messages[0], dict)):
        del left["messages"]
        return [_plain(turn, position) for position, turn in enumerate(messages)]
    if not isinstance(history, list) or not all(_is_exchange(pair) for pair in history):
        return []
    del left["history"]
    roles = ("user", "assistant")
    return [
        {"role": role, "content": text}
        for pair in history
        for role, text in zip(roles, pair, strict=True)
    ]


def _is_exchange(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(isinstance(t, str) for t in pair)


def _plain(turn: Any, position: int) -> dict[str, str]:
    """Read one of our own stored turns."""
    if not isinstance(turn, dict) or not isinstance(turn.get("content"), str):
        raise RowRefused(f"Earlier turn {position + 1} has no text.")
    role = turn.get("role")
    if role != HERE["role"] and role not in ROLES:
        raise RowRefused(f"Earlier turn {position + 1} is said by “{_short(role)}”.")
    return {"role": ROLES.get(role, str(role)), "content": turn["content"]}


def _sharegpt(left: dict[str, Any]) -> list[Pair]:
    return [_conversation(left, left.pop("conversations", None))]


def _messages(left: dict[str, Any]) -> list[Pair]:
    return [_conversation(left, left.pop("messages", None))]


def _prompt(left: dict[str, Any]) -> list[Pair]:
    """Read TRL's rows: prompt with completion, or with chosen and rejected; texts or messages."""
    names = ("prompt", "completion", "chosen", "rejected")
    prompt, completion, chosen, rejected = (left.pop(name, None) for name in names)
    if prompt is None and isinstance(chosen, list):
        prompt = _common(chosen, rejected)
        chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
    if isinstance(prompt, list):
        left |= {"chosen": chosen, "rejected": rejected}
        answer = [{"role": "assistant", "content": completion}]
        ending = completion if isinstance(completion, list) else answer if completion else []
        return [_conversation(left, prompt + ending)]
    pair = Pair(
        system=_text(left, "system"),
        instruction=_as_text(prompt, "prompt"),
        output=_as_text(completion if chosen is None else chosen, "completion"),
        rejected=_as_text(rejected, "rejected output"),
    )
    _split_input(left, pair)
    return [pair]


def _packed_turns(left: dict[str, Any], *, in_cells: bool) -> dict[str, Any]:
    """Read the conversations that stand in a row as JSON text, where they are meant as such.

    A cell of a table cannot hold them otherwise. In other files prompt and answers must all be
    conversations: a single text like that is what somebody asked or answered.
    """
    names = [n for n in ("prompt", "completion", "chosen", "rejected") if left.get(n)]
    found = {name: turns_in(left[name]) for name in names}
    if all(found.values()) or (in_cells and found.get("prompt")):
        return {name: turns for name, turns in found.items() if turns}
    return {}


def _common(chosen: list[Any], rejected: Any) -> list[Any]:
    """Give the turns with which both conversations begin."""
    if not isinstance(rejected, list):
        raise RowRefused("The rejected conversation is missing.")
    pairs = zip(chosen, rejected, strict=False)
    length = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(chosen), len(rejected)))
    return chosen[:length]


def _conversation(left: dict[str, Any], value: Any) -> Pair:
    """Turn a conversation into earlier turns, the last thing said, and its answer or answers."""
    turns = _turns(left, unpacked(value))
    pair = Pair(system=_text(left, "system"))
    if left.get(FIRST_TURN) == "system":
        del left[FIRST_TURN]
    elif turns and turns[0][0] == "system":
        pair.system = "\n\n".join(dict.fromkeys(filter(None, (pair.system, turns.pop(0)[1]))))
    pair.output, pair.rejected = _answer(left, "chosen"), _answer(left, "rejected")
    if not pair.output and turns and turns[-1][0] in ("assistant", "tool_call"):
        role, pair.output = turns.pop()
        if role == "tool_call":
            left["answer_role"] = role
    _place(pair, turns)
    _split_input(left, pair)
    return pair


def _place(pair: Pair, turns: list[tuple[str, str]]) -> None:
    """Part the turns before the answer: earlier ones, the instruction, those of tools after it."""
    last = max((n for n, (role, _) in enumerate(turns) if role == "user"), default=-1)
    if last < 0:
        raise RowRefused("Nobody asks anything in the conversation.")
    between = [{"role": role, "content": text} for role, text in turns[last + 1 :]]
    if not (pair.output or pair.rejected):
        raise RowRefused("The last turn of the conversation has no answer.")
    pair.instruction = turns[last][1]
    pair.messages = [{"role": role, "content": text} for role, text in turns[:last]]
    pair.messages += [dict(HERE), *between] if between else []


def _split_input(left: dict[str, Any], pair: Pair) -> None:
    """Part the input from the instruction again, where one of our exports joined them."""
    given = left.get("input")
    if isinstance(given, str) and given and pair.instruction.endswith(f"\n\n{given}"):
        pair.instruction = pair.instruction.removesuffix(f"\n\n{given}")
        pair.input = left.pop("input")


def _turns(left: dict[str, Any], value: Any) -> list[tuple[str, str]]:
    """Read turns of either spelling; what they hold besides is kept by their position.

    Positions count from the first turn that is not the system's.
    """
    if not isinstance(value, list) or not value:
        raise RowRefused("The conversation is empty.")
    turns, besides = [], {}
    for position, turn in enumerate(value):
        role, text, rest = _turn(turn, position)
        turns.append((role, text))
        if rest:
            besides[str(position - (turns[0][0] == "system"))] = rest
    if besides:
        left["turn_fields"] = besides
    return turns


def _turn(turn: Any, position: int) -> tuple[str, str, dict[str, Any]]:
    where = f"Turn {position + 1}"
    if not isinstance(turn, dict):
        raise RowRefused(f"{where} is not an object with a speaker and a text.")
    rest = {name: value for name, value in turn.items() if value is not None}
    name = rest.pop("from", None) or rest.pop("role", None)
    role = ROLES.get(name.strip().lower()) if isinstance(name, str) else None
    if role is None:
        raise RowRefused(f"{where} is said by “{_short(name)}”, who is no known speaker.")
    text = rest.pop("value", None) if "value" in rest else rest.pop("content", None)
    if role == "assistant" and not text and (calls := rest.pop("tool_calls", None)):
        return "tool_call", _calls(calls), rest
    if not isinstance(text, str):
        raise RowRefused(f"{where} has no text.")
    return role, text, rest


def _calls(calls: Any) -> str:
    """Give tool calls as the text that ShareGPT has for them: {"name": …, "arguments": …}."""
    if not isinstance(calls, list):
        calls = [calls]
    functions = [call.get("function", call) if isinstance(call, dict) else call for call in calls]
    return dumps(functions[0] if len(functions) == 1 else functions)


def _answer(left: dict[str, Any], name: str) -> str:
    """Take an answer that stands beside the conversation: text, a turn, or a list of one turn."""
    value = left.pop(name, None)
    if isinstance(value, list):
        if len(value) > 1:
            raise RowRefused(f"The {name} answer has more than one turn.")
        value = value[0] if value else ""
    if isinstance(value, dict):
        turn = value if {"from", "role"} & set(value) else {**value, "role": "assistant"}
        _, text, rest = _turn(turn, 0)
        if rest:
            left[f"{name}_fields"] = rest
        return text
    return _as_text(value, f"{name} answer")


def _mapped(left: dict[str, Any], mapping: Mapping[str, str]) -> list[Pair]:
    """Read a row by hand-mapped columns; a conversation without an instruction holds it."""
    taken = {name: left.pop(column, None) for name, column in mapping.items() if name in FIELDS}
    turns = unpacked(taken.get("messages"))
    turns = [t for turn in turns for t in _exchange(turn)] if isinstance(turns, list) else []
    texts = {n: _as_text(taken.get(n), NAMES[n]) for n in FIELDS if n not in ("messages", "tags")}
    if turns and not mapping.get("instruction"):
        named = {"system": "system", "chosen": "output", "rejected": "rejected"}
        besides = {name: left.pop(name) for name in named if name in left}
        left |= {name: texts[field] for name, field in named.items()}
        pair = _conversation(left, turns)
        left |= besides
    else:
        spoken = _turns(left, turns) if turns else []
        pair = Pair(messages=[{"role": role, "content": text} for role, text in spoken])
        for name, text in texts.items():
            setattr(pair, name, text)
    pair.tags = _tags(taken)
    if "tags" in taken and taken["tags"]:
        left[mapping["tags"]] = taken["tags"]
    return [pair]


def _exchange(value: Any) -> list[Any]:
    """Spell [question, answer] as two turns; a turn stays one."""
    if _is_exchange(value):
        return [{"role": "user", "content": value[0]}, {"role": "assistant", "content": value[1]}]
    return [value]


def _text(left: dict[str, Any], name: str) -> str:
    return _as_text(left.pop(name, None), NAMES[name])


def _as_text(value: Any, name: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    kind = {bool: "true or false", list: "a list", dict: "an object"}.get(type(value), "no text")
    raise RowRefused(f"The {name} is {kind}, not text.")


def _tags(left: dict[str, Any]) -> list[str]:
    """Take the tags, where `tags` is a list of short words or such a list in one cell."""
    value = unpacked(left.get("tags"))
    if isinstance(value, str):
        value = [part.strip() for part in re.split("[,;]", value) if part.strip()]
    if not isinstance(value, list) or not all(
        isinstance(tag, str) and 0 < len(tag) <= MAX_TAG for tag in value
    ):
        return []
    del left["tags"]
    return list(dict.fromkeys(value))


def _judge(pair: Pair) -> None:
    """A row with a verdict (KTO): what is called wrong is a rejected answer."""
    verdict = pair.extra.get("label", pair.extra.get("kto_tag"))
    if verdict is False and pair.output and not pair.rejected:
        pair.output, pair.rejected = "", pair.output


def _check(pair: Pair) -> None:
    """Refuse what makes no pair or cannot be stored. Raises RowRefused."""
    if not pair.instruction.strip():
        raise RowRefused("The instruction is empty.")
    if not pair.output.strip() and not pair.rejected.strip():
        raise RowRefused("The output is empty.")
    texts = {name: getattr(pair, name) for name in NAMES if isinstance(getattr(pair, name), str)}
    for name, text in texts.items():
        _check_text(text, f"The {NAMES[name]}")
    for position, turn in enumerate(pair.messages):
        _check_text(turn["content"], f"Earlier turn {position + 1}")
    for value in (*pair.tags, pair.extra, pair.provenance):
        _check_value(value)


def _check_text(text: str, where: str) -> None:
    if "\0" in text:
        raise RowRefused(f"{where} holds a NUL character, which cannot be stored.")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise RowRefused(f"{where} holds half a character, which cannot be stored.") from None


def _check_value(value: Any) -> None:
    if isinstance(value, str):
        _check_text(value, "A further column")
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            _check_text(str(name), "The name of a column")
            _check_value(inner)
    elif isinstance(value, list):
        for inner in value:
            _check_value(inner)
    elif isinstance(value, float) and not math.isfinite(value):
        raise RowRefused("A further column holds a number that is too large to be stored.")


def _short(value: Any) -> str:
    return str(value)[:LONGEST_NAME]


_READERS: dict[str, Callable[[dict[str, Any]], list[Pair]]] = {
    ALPACA: _alpaca,
    SHAREGPT: _sharegpt,
    MESSAGES: _messages,
    PROMPT_COMPLETION: _prompt,
}
