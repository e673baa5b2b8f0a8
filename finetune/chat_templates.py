"""Chat templates of base models, with one day for all. No Django, no torch.

Some templates, as those of Llama 3.2, write the day of the request into the prompt. Training,
reference, evaluation and every server must render the same tokens, also next month: so each of
them takes the template from here.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

ON_ONE_DAY = "{% macro strftime_now(format) %}01 Jan 2026{% endmacro %}"
CONFIG, TEMPLATE = "tokenizer_config.json", "chat_template.jinja"
# The text of a file of the base by its name; None where there is no such file.
ReadFile = Callable[[str], str | None]


def on_one_day(template: Any) -> Any:
    """Let a template write always the same day; one that writes none stays as it is.

    `template`: as a tokenizer has it: a text, several by their names, or None.
    """
    if isinstance(template, dict):
        return {name: on_one_day(text) for name, text in template.items()}
    if not template or "strftime_now" not in template or template.startswith(ON_ONE_DAY):
        return template
    return ON_ONE_DAY + template


def fingerprint(template: Any) -> str:
    """Give the SHA-256 that manifests keep of a template: of what the base wrote, without the day."""
    text = template if isinstance(template, str) else json.dumps(template, sort_keys=True)
    return hashlib.sha256(text.removeprefix(ON_ONE_DAY).encode()).hexdigest()


def template_of(read: ReadFile) -> str | None:
    """Give the template of a base, on one day; None where it has none."""
    template = read(TEMPLATE) or json.loads(read(CONFIG) or "{}").get("chat_template")
    if isinstance(template, list):
        template = {each["name"]: each["template"] for each in template}.get("default")
    found: str | None = on_one_day(template)
    return found


def config_with_template(read: ReadFile) -> dict[str, Any] | None:
    """Give the base's tokenizer_config.json with its template inside, where TGI looks for it."""
    template = template_of(read)
    return {**json.loads(read(CONFIG) or "{}"), "chat_template": template} if template else None


def files_in(folder: Path) -> ReadFile:
    """Read the files of a base that lies in a folder."""

    def read(name: str) -> str | None:
        path = folder / name
        return path.read_text(encoding="utf-8") if path.is_file() else None

    return read
