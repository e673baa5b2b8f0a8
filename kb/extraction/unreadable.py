"""Why a file could not be read, in words for the person who uploaded it."""

from typing import Any

SENTENCES = {
    "empty": "The file is empty. Check the original and upload it again.",
    "encrypted": (
        "The {kind} is protected by a password. Remove the password and upload the file again."
    ),
    "damaged": (
        "The {kind} is damaged or incomplete and cannot be read. "
        "Open it in the program that made it, save it again and upload the new file."
    ),
    "mismatch": ("The file is named {suffix} but holds {found}. {advice} and upload it again."),
    "unsupported": "{found} cannot be read here. {advice} and upload that file.",
    "no_text": "{reason} {advice}",
    "too_large": "The {kind} is too large: {size}, and the limit is {limit}. {advice}.",
    "too_many_pages": (
        "The {kind} has {count:,} pages, and the limit is {limit:,}. "
        "Split it into smaller files and upload those."
    ),
    "bomb": (
        "The {kind} unpacks to far more data than a document should hold, so it was not opened. "
        "Save it again from the program that made it and upload the new file."
    ),
    "timeout": (
        "Reading the {kind} took longer than {seconds} seconds, so it was stopped. "
        "Save it again from the program that made it, or split it, and upload the result."
    ),
    "memory": (
        "Reading the {kind} needed more memory than a document may use, so it was stopped. "
        "Split it into smaller files and upload those."
    ),
}

LONGEST_DETAIL = 200  # characters; details come from the child process and are not trusted


class DocumentUnreadable(Exception):
    """A file cannot be read. Its text is a plain sentence: what happened and what to do.

    `code` is a stable key of SENTENCES, for programs; the sentence may be reworded.
    """

    def __init__(self, sentence: str, code: str = "damaged") -> None:
        super().__init__(sentence)
        self.code = code


class Unreadable(Exception):
    """The same inside the child process: a code and what its sentence has to name."""

    def __init__(self, code: str, **details: str | int) -> None:
        super().__init__(code)
        self.code = code
        self.details = details


def in_words(code: str, kind: str, details: dict[str, Any]) -> DocumentUnreadable:
    """Word a code. `kind` is the file as people call it, such as "PDF". Unknown codes: "damaged"."""
    known = {name: _tame(value) for name, value in details.items()}
    try:
        sentence = SENTENCES[code].format(**{"kind": kind} | known)
    except (KeyError, ValueError):
        code, sentence = "damaged", SENTENCES["damaged"].format(kind=kind)
    return DocumentUnreadable(sentence, code)


def _tame(value: Any) -> str | int:
    if isinstance(value, int):
        return value
    return "".join(c for c in str(value) if c.isprintable())[:LONGEST_DETAIL]
