"""The formats that rows of pairs come in, and how to tell which one it is. Pure.

reading.py turns rows into pairs and writing.py pairs into rows.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

ALPACA, SHAREGPT, MESSAGES = "alpaca", "sharegpt", "messages"
PROMPT_COMPLETION, COLUMNS = "prompt_completion", "columns"
# What a column can be mapped to, and the names by which columns are guessed.
FIELDS = {
    "instruction": ("instruction", "question", "query", "prompt", "user", "text", "human"),
    "input": ("input", "context", "passage"),
    "output": ("output", "answer", "response", "completion", "chosen", "target", "assistant"),
    "rejected": ("rejected", "rejected_output", "rejected_response"),
    "system": ("system", "system_prompt"),
    "messages": ("messages", "history"),
    "tags": ("tags", "labels"),
}
NAMES = {
    "instruction": "instruction",
    "input": "input",
    "output": "output",
    "rejected": "rejected output",
    "system": "system prompt",
    "messages": "earlier turns",
    "tags": "tags",
}
# One name for a speaker, whatever the format calls it.
ROLES = {
    "human": "user", "user": "user", "prompter": "user",
    "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant", "bot": "assistant",
    "model": "assistant", "ai": "assistant", "system": "system", "developer": "system",
    "function_call": "tool_call", "tool_call": "tool_call",
    "observation": "tool", "tool": "tool", "function": "tool", "ipython": "tool",
}  # fmt: skip
SHAREGPT_ROLES = {"user": "human", "assistant": "gpt", "tool_call": "function_call",
                  "tool": "observation", "system": "system"}  # fmt: skip
# Stands in `messages` where the instruction is said, when turns (of tools) come between it and
# the output. Without one the instruction follows all of them.
HERE = {"role": "instruction", "content": ""}
MAX_TAG = 50
VERDICTS = ("label", "kto_tag")
# A column "provenance" of a file that holds no facts of ours; those have the name to themselves.
OTHER_PROVENANCE = "provenance (other)"
# Beside a conversation whose first turn is the system's, but not the pair's system prompt.
FIRST_TURN = "first_turn"


@dataclass(slots=True)
class Pair:
    """What a row says. Fields as those of models.InstructionPair; `provenance` as the row has it."""

    system: str = ""
    messages: list[dict[str, str]] = field(default_factory=list)
    instruction: str = ""
    input: str = ""
    output: str = ""
    rejected: str = ""
    tags: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)


# Columns of CSV and Parquet that say for people what `provenance` says for programs.
READABLE = (
    "state", "origin", "language", "author", "reviewer", "reviewed_at", "documents",
)  # fmt: skip
TABLE = {
    "system": "text", "messages": "turns", "instruction": "text", "input": "text",
    "output": "text", "rejected": "text", "tags": "texts", **dict.fromkeys(READABLE, "text"),
    "provenance": "text", "extra": "text",
}  # fmt: skip


def detect(rows: Sequence[Mapping[str, Any]]) -> str:
    """Name the format that most of the rows have."""
    found = [_format_of(row) for row in rows]
    return max(set(found), key=lambda name: (found.count(name), name)) if found else COLUMNS


def _format_of(row: Mapping[str, Any]) -> str:
    if "instruction" in row and {"output", "chosen", "instances"} & set(row):
        return ALPACA
    if _is_list(row.get("conversations")):
        return SHAREGPT
    if _is_list(row.get("messages")):
        return MESSAGES
    if "prompt" in row and {"completion", "chosen"} & set(row):
        return PROMPT_COMPLETION
    if isinstance(row.get("chosen"), list) and isinstance(row.get("rejected"), list):
        return PROMPT_COMPLETION
    return COLUMNS


def _is_list(value: Any) -> bool:
    return isinstance(value, list) or isinstance(value, str) and value.lstrip().startswith("[")


def guess_mapping(columns: Sequence[str]) -> dict[str, str]:
    """Guess which column gives which field, {"instruction": "question", …}."""
    by_name = {re.sub(r"[\s-]+", "_", column.strip().lower()): column for column in columns}
    mapping: dict[str, str] = {}
    for name, guesses in FIELDS.items():
        column = next((by_name[guess] for guess in guesses if guess in by_name), None)
        if column is not None and column not in mapping.values():
            mapping[name] = column
    return mapping


def unpacked(value: Any) -> Any:
    """Read JSON in a cell; anything else stays as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def turns_in(value: Any) -> list[dict[str, Any]]:
    """Read a conversation that stands in a text as JSON; empty where the text holds none."""
    turns = unpacked(value) if isinstance(value, str) else None
    if not isinstance(turns, list):
        return []
    are_turns = all(isinstance(turn, dict) and {"role", "from"} & set(turn) for turn in turns)
    return turns if are_turns else []


# A spreadsheet takes a cell that begins so for a formula.
_FORMULA = tuple("=+-@\t\r\n＝＋－＠")  # noqa: RUF001
_QUOTED = tuple(f"'{sign}" for sign in (*_FORMULA, "'"))


def quoted_cell(text: str) -> str:
    """Write a cell so that a spreadsheet shows it and never computes it."""
    return f"'{text}" if text.startswith((*_FORMULA, "'")) else text


def unquoted_cell(text: str) -> str:
    return text[1:] if text.startswith(_QUOTED) else text


def dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
