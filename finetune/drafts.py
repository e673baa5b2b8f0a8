"""A question with its answer out of passages: asked for, read strictly, held against the passages.

Pure. Where there is no model server, a heading becomes the question and the sentences below it the
answer, word for word.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from finetune.markers import carried_share, cited
from kb import languages
from kb.generators.extractive import pick, render
from kb.prompts import NOT_IN_DOCUMENTS, Source, Turn, build_drafting_messages

# Share of an answer's sentences that its passages must carry.
SUPPORTED = 0.5
MAX_QUESTION, MAX_ANSWER = 600, 4_000
NOT_READ = "What the model wrote was not in the form asked for."
NOTHING_ASKED = "The model found nothing to ask."
NO_CITATION = "The answer names no passage."
FOREIGN_CITATION = "The answer names a passage that was not given."
UNSUPPORTED = "The passage does not carry the answer."
POINTS_AT_TEXT = "The question speaks of “the passage”, which nobody who asks has before them."
TOO_LONG = "The question or the answer is too long."
NO_HEADING = "The passage has no heading to ask about."


class BadDraft(Exception):
    """A draft that is thrown away; the message is a sentence that says why."""


class Style(StrEnum):
    FACTUAL = "factual"
    HOW_TO = "how_to"
    COMPARISON = "comparison"
    YES_NO = "yes_no"
    FOLLOW_UP = "follow_up"


WISHES = {
    Style.FACTUAL: "Write one question about a fact that the sources state, and its answer.",
    Style.HOW_TO: "Write one question about how to do something that the sources explain,"
    " and the answer with its steps in order.",
    Style.COMPARISON: "Write one question that compares two things of the sources, and the answer"
    " that names what they share and how they differ.",
    Style.YES_NO: "Write one question that is answered by yes or no, and the answer: yes or no"
    " first, then the reason.",
    Style.FOLLOW_UP: "Write a question with its answer, then a second question that goes on from"
    " the first one as in a conversation, with its answer.",
}
# Without a model server nothing is compared or concluded, only quoted.
EXTRACTIVE_STYLES = (Style.FACTUAL, Style.HOW_TO, Style.FOLLOW_UP)
_ONE = '{"question": "…", "answer": "… [1]"}'
_SEVERAL = '{"turns": [{"question": "…", "answer": "… [1]"}, {"question": "…", "answer": "… [1]"}]}'


@dataclass(frozen=True, slots=True)
class Exchange:
    question: str
    answer: str


# --- By a model ----------------------------------------------------------------------------------


def request(style: Style, sources: Sequence[Source]) -> list[Turn]:
    """Word the request for a draft."""
    form = _SEVERAL if style == Style.FOLLOW_UP else _ONE
    return build_drafting_messages(WISHES[style], form, sources)


_FENCED = re.compile(r"\A```(?:json)?\s*\n(.*)\n```\Z", re.DOTALL)


def read(text: str, style: Style) -> list[Exchange]:
    """Read what the model wrote: one JSON object of the form asked for, in a code fence or bare.

    Raises BadDraft for anything else, such as a word before it or a field too many.
    """
    fenced = _FENCED.match(text.strip())
    try:
        value = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError) as error:
        raise BadDraft(NOT_READ) from error
    if value == {}:
        raise BadDraft(NOTHING_ASKED)
    if style != Style.FOLLOW_UP:
        return [_exchange(value)]
    turns = value["turns"] if isinstance(value, dict) and set(value) == {"turns"} else None
    if not isinstance(turns, list) or not 2 <= len(turns) <= 4:
        raise BadDraft(NOT_READ)
    return [_exchange(turn) for turn in turns]


def _exchange(value: object) -> Exchange:
    if not isinstance(value, dict) or set(value) != {"question", "answer"}:
        raise BadDraft(NOT_READ)
    question, answer = value["question"], value["answer"]
    if not (isinstance(question, str) and isinstance(answer, str)):
        raise BadDraft(NOT_READ)
    question, answer = question.replace("\0", "").strip(), answer.replace("\0", "").strip()
    if not question or not answer:
        raise BadDraft(NOT_READ)
    return Exchange(" ".join(question.split()), answer)


_POINTING = re.compile(
    r"\b(?:this|the|that|given|above|provided) (?:passages?|texts?|excerpts?|sources?|contexts?"
    r"|paragraphs?|snippets?)\b|\b(?:der|dieser|diesem|im|laut) (?:Text|Abschnitt|Quelle|Textstelle)\b"
    r"|\b(?:ce|le|du) (?:texte|passage|extrait)\b|\b(?:este|el|del) (?:texto|pasaje|fragmento)\b",
    re.IGNORECASE,
)


def check(exchanges: Sequence[Exchange], sources: Sequence[Source]) -> None:
    """Hold a draft against its passages. Raises BadDraft."""
    given = {one.marker for one in sources}
    for exchange in exchanges:
        markers = cited(exchange.answer)
        if exchange.answer == NOT_IN_DOCUMENTS:
            raise BadDraft(NOTHING_ASKED)
        if len(exchange.question) > MAX_QUESTION or len(exchange.answer) > MAX_ANSWER:
            raise BadDraft(TOO_LONG)
        if _POINTING.search(exchange.question):
            raise BadDraft(POINTS_AT_TEXT)
        if not markers:
            raise BadDraft(NO_CITATION)
        if markers - given:
            raise BadDraft(FOREIGN_CITATION)
        named = [one for one in sources if one.marker in markers]
        if carried_share(exchange.answer, named) < SUPPORTED:
            raise BadDraft(UNSUPPORTED)


# --- Without a model -----------------------------------------------------------------------------

# What is asked about a heading, by language: under a short title, under a long one, as the next
# question. A long title in each question would make all of a document's look alike.
_ABOUT = {
    "english": (
        "What does “{title}” say about “{heading}”?",
        "What is there to know about “{heading}”?",
        "And about “{heading}”?",
    ),
    "german": (
        "Was steht in „{title}“ über „{heading}“?",
        "Was ist über „{heading}“ zu wissen?",
        "Und über „{heading}“?",
    ),
    "french": (
        "Que dit « {title} » sur « {heading} » ?",
        "Que faut-il savoir sur « {heading} » ?",
        "Et sur « {heading} » ?",
    ),
    "spanish": (
        "¿Qué dice «{title}» sobre «{heading}»?",
        "¿Qué hay que saber sobre «{heading}»?",
        "¿Y sobre «{heading}»?",
    ),
}
_BARE = ("{title}: {heading}?", "{heading}?", "{heading}?")
_SHORT_TITLE = 3  # words
_HOW_TO = re.compile(r"how to (\S.*)", re.IGNORECASE)
_DOING = re.compile(r"[A-Z]?[a-z]{3,}ing [a-z].*")
_NUMBERING = re.compile(r"^\s*(?:(?:\d+\.)*\d+[.)]?|[IVX]+[.)])\s+|[#*_`]+")
_SENTENCES = 3


def extract(style: Style, sources: Sequence[Source]) -> list[Exchange]:
    """Make a draft of headings and the sentences below them, quoted. Raises BadDraft.

    A follow-up takes two passages of one document, the others one.
    """
    used = sources if style == Style.FOLLOW_UP else sources[:1]
    if style == Style.FOLLOW_UP and len({_heading(one) for one in used}) < 2:
        raise BadDraft(NO_HEADING)
    return [_quoted(one, style, follows=bool(number)) for number, one in enumerate(used)]


def _quoted(one: Source, style: Style, *, follows: bool) -> Exchange:
    question = _ask_about(one, style, follows=follows)
    answer = "".join(render(pick(question, [one], limit=_SENTENCES)))
    if not answer:
        raise BadDraft(UNSUPPORTED)
    return Exchange(question, answer)


def _heading(one: Source) -> str:
    """Give the innermost heading above a passage, without number and markup; "" for none."""
    last = one.heading_path[-1] if one.heading_path else ""
    return " ".join(_NUMBERING.sub("", last).split()).strip(" :.-–")


def _ask_about(one: Source, style: Style, *, follows: bool) -> str:
    heading = _heading(one)
    if not heading or heading.casefold() == one.title.casefold():
        raise BadDraft(NO_HEADING)
    if heading.endswith("?"):
        return heading
    language = languages.detect(one.text)
    if style == Style.HOW_TO:
        if language == "english" and (found := _HOW_TO.match(heading)):
            return f"How do I {found[1]}?"
        if language == "english" and _DOING.fullmatch(heading):
            return f"How do I go about {heading[0].lower()}{heading[1:]}?"
        raise BadDraft(NO_HEADING)
    short, long, later = _ABOUT.get(language, _BARE)
    first = short if len(one.title.split()) <= _SHORT_TITLE else long
    return (later if follows else first).format(title=one.title, heading=heading)
