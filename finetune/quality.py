"""Measure an instruction pair: what it says, how often it repeats itself, what to look at. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from unicodedata import normalize

from finetune import minhash, personal_data
from kb import citations, languages
from kb.prompts import NOT_IN_DOCUMENTS, Source

# A reviewer is asked to look at what is beyond these.
MIN_INSTRUCTION_WORDS, MAX_WORDS, MAX_REPETITION = 2, 2000, 0.3
# Enough to tell a language by; more costs more than it says.
_LANGUAGE_SAMPLE = 300


@dataclass(frozen=True, slots=True)
class Quality:
    """The quality columns of an InstructionPair, under the same names; see there."""

    language: str
    content_hash: str
    bands: list[int]
    word_count: int
    output_words: int
    repetition: float
    support: float | None
    flags: list[str]
    findings: list[list[str | int]]


def measure(
    *,
    system: str = "",
    messages: Sequence[Mapping[str, str]] = (),
    instruction: str,
    input: str = "",
    output: str = "",
    rejected: str = "",
    sources: Sequence[str] = (),
) -> Quality:
    """Compute every quality column of a pair; `sources` are its passages, by their markers."""
    words = minhash.words_of(messages, instruction, input, output)
    hashes = [minhash.shingles(part, salt=salt) for salt, part in enumerate(words)]
    word_count, output_words = sum(map(len, words)), len(words[2])
    asked = languages.detect(f"{instruction}\n{input}"[:_LANGUAGE_SAMPLE], "")
    answered = languages.detect(output[:_LANGUAGE_SAMPLE], "")
    repetition = _repetition(hashes[2])
    support, unsupported = _support(output, sources)
    texts = {"system": system, "instruction": instruction, "input": input, "output": output}
    texts["rejected"] = rejected
    findings: list[list[str | int]] = [
        [kind, field, start, end]
        for field, text in texts.items()
        for kind, start, end in _look(text)
    ]
    findings += [["refusal", "output", start, end] for start, end in _refusals(output)]
    findings += [["unsupported", "output", start, end] for start, end in unsupported]
    flags = {flag for finding in findings if (flag := flag_of(str(finding[0])))}
    flags.update(
        flag
        for flag, holds in {
            "repetition": repetition > MAX_REPETITION,
            "language": asked
            and answered
            and asked != answered
            and not _asks_to_translate(instruction),
            "short": len(words[0]) < MIN_INSTRUCTION_WORDS or not (output_words or rejected),
            "long": word_count > MAX_WORDS,
        }.items()
        if holds
    )
    return Quality(
        language=answered or asked,
        content_hash=content_hash(
            system=system, messages=messages, instruction=instruction, input=input, output=output,
            rejected=rejected,
        ),
        bands=minhash.bands(*hashes),
        word_count=word_count,
        output_words=output_words,
        repetition=repetition,
        support=support,
        flags=sorted(flags),
        findings=findings,
    )  # fmt: skip


def content_hash(
    *,
    system: str = "",
    messages: Sequence[Mapping[str, str]] = (),
    instruction: str,
    input: str = "",
    output: str = "",
    rejected: str = "",
) -> str:
    """Name what a pair says: exact duplicates have one SHA-256.

    White space counts as one space and letters in Unicode's NFC; case and punctuation matter.
    """
    turns = (part for turn in messages for part in (turn.get("role", ""), turn.get("content", "")))
    parts = (system, instruction, input, output, rejected, *turns)
    # The separator is white space itself, so no part can hold it.
    joined = "\x1f".join(" ".join(normalize("NFC", part).split()) for part in parts)
    return sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()


def flag_of(kind: str) -> str:
    """Name the flag that a kind of finding raises; "" for none."""
    if kind in personal_data.SECRETS:
        return "secret"
    if kind in personal_data.WEAK:
        return ""
    return kind if kind in _OWN_KINDS else "personal_data"


_OWN_KINDS = frozenset({"refusal", "template", "encoding", "unsupported"})


def _repetition(hashes: minhash.Hashes) -> float:
    """Give the share of word groups that stood before: "a b c a b c a b c" has most of them."""
    inner = hashes[2:-2].tolist()  # the outer ones hold an end of the text
    return round(1 - len(set(inner)) / len(inner), 4) if inner else 0.0


def _support(output: str, sources: Sequence[str]) -> tuple[float | None, list[tuple[int, int]]]:
    """Give the share of sentences that the passages hold, and the spans of the others."""
    if not (sources and output.strip()):
        return None, []
    offered = [
        Source(marker, "", (), 1, text, score=0.0) for marker, text in enumerate(sources, start=1)
    ]
    judged = citations.check_support(output, offered)
    missing = [(sentence.start, sentence.end) for sentence in judged if not sentence.supported]
    return (round(1 - len(missing) / len(judged), 4) if judged else None), missing


def _look(text: str) -> Iterator[tuple[str, int, int]]:
    if not text:
        return
    yield from personal_data.find(text)
    if any(map(text.__contains__, _TEMPLATE_MARKS)):
        yield from (("template", *found.span()) for found in _TEMPLATE.finditer(text))
    yield from (("encoding", *span) for span in _broken_encoding(text))


_TEMPLATE_MARKS = ("{{", "{%", "<", "[", "##", "orem ipsum")
# What templates, chat formats and drafting tools leave behind.
_TEMPLATE = re.compile(
    r"\{\{[^{}\n]{1,60}\}\}|\{%[^%\n]{1,80}%\}|<\|[^<>|\n]{1,40}\|>|\[/?INST\]|<</?SYS>>"
    r"|</?(?:s|bos|eos|unk|pad)>|<(?:start|end)_of_turn>|^#{2,3} (?:Instruction|Input|Response):"
    r"|\[(?:[Yy]our|[Ii]nsert|INSERT|YOUR|[Ee]nter)\b[^\[\]\n]{1,50}\]|<(?:your|insert)\b[^<>\n]{1,50}>"
    r"|\blorem ipsum\b",
    re.MULTILINE,
)
# In lower case. A pattern that starts with its letters is found ten times as fast as one that
# ignores case or looks behind first.
_REFUSAL = re.compile(
    r"as an? (?:ai|artificial intelligence|(?:large )?language model)\b"
    r"|i(?:'m| am) (?:just |only )?an ai\b|i(?:'m| am) (?:sorry|afraid),? (?:but )?(?:that )?(?:i|we) "
    r"|i (?:cannot|can't|can not|(?:am )?(?:not able|unable) to|won't|must decline to)"
    r" (?:help|assist|provide|answer|fulfil|comply|do that|create|generate|write|engage|support)"
    r"|i'm (?:not able|unable) to (?:help|assist|provide|answer|fulfil|comply)"
    r"|als (?:eine )?ki\b|ich kann (?:ihnen |dir )?(?:dabei |damit )?(?:leider )?nicht"
    r"|en tant (?:qu'ia|que modèle)|je (?:ne peux pas|suis désolé)"
    r"|como (?:una? )?(?:ia|modelo de lenguaje)\b|lo siento, (?:pero )?no puedo"
    r"|作为(?:一个|一名)?(?:ai|人工智能|语言模型)|(?:抱歉|对不起).{0,6}(?:无法|不能)|申し訳.{0,12}(?:できません|お答え)"
)
# A refusal opens an answer; later on the words are mostly a story's.
_REFUSAL_WITHIN = 200


def _refusals(output: str) -> list[tuple[int, int]]:
    if output.strip() == NOT_IN_DOCUMENTS:
        return []
    opening = output[:_REFUSAL_WITHIN].lower().replace("’", "'")
    return [found.span() for found in _REFUSAL.finditer(opening)]


_LOST = re.compile("[\ufffd\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ud800-\udfff]+")
# Characters that UTF-8 read as Windows-1252 turns into.
_MISREAD = re.compile(
    "[\u00c2-\u00f4][\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc"
    "\u2013-\u203a\u20ac\u2122]{1,3}"
)


def _broken_encoding(text: str) -> Iterator[tuple[int, int]]:
    """Find lost characters, and UTF-8 that was read as Windows-1252: "cafÃ©"."""
    yield from (found.span() for found in _LOST.finditer(text))
    if not text.isascii():
        yield from (found.span() for found in _MISREAD.finditer(text) if _was_misread(found[0]))


def _was_misread(run: str) -> bool:
    for encoding in ("cp1252", "latin-1"):
        try:
            run.encode(encoding).decode("utf-8")
        except UnicodeError:
            continue
        return True
    return False


_TRANSLATES = re.compile(
    r"translat|übersetz|traduc|traduis|vertaal|翻译|翻譯|翻訳|переве|\bin (?:english|german|french|"
    r"spanish|italian|chinese|japanese|latin|portuguese|russian)\b",
    re.IGNORECASE,
)


def _asks_to_translate(instruction: str) -> bool:
    return bool(_TRANSLATES.search(instruction))
