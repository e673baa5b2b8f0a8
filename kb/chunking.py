"""Cut a document's text into passages that are embedded, found and cited. Pure.

A document is first taken apart at its headings into sections, and these into atoms: blocks that fit
the model, else their list items, table rows or sentences, and words only where a sentence is longer
than the model reads. Neighbouring atoms of a section are then merged, the weakest boundary first
and equal ones in an order that their own text decides. So a changed paragraph moves only the
boundaries beside it: in a section of 300 paragraphs, packing from the start made up to 27 passages
new, this at most 5 and 1.5 on average.
"""

import hashlib
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from kb.atoms import Atom, Span, Strength, block_atoms, divide, divide_table
from kb.pages import BlockKind, Page, document_text, page_offsets
from kb.sentences import split_sentences

CountTokens = Callable[[Sequence[str]], list[int]]

CHARACTERS_PER_TOKEN = 8  # at most: a model may read 100 letters without a space as one token
PREFIX_TOKENS = 48  # for title and headings before each passage, estimated
TITLE_TOKENS = 20
SMALLEST_ROOM = 16
TINY_TOKENS = 24  # less than this joins its neighbour even where that passes the target


@dataclass(frozen=True, slots=True)
class Chunking:
    """How passages are cut, in tokens of the embedding model; chosen by benchmarks/chunking.py.

    `target_tokens`: paragraphs are merged up to this size, 16 to `max_tokens`.
    `max_tokens`: no passage is longer, its title, headings and special tokens included: 128 to
    what the model reads.
    `overlap_tokens`: how much of the passage before is repeated, in whole sentences: 0 to half of
    `target_tokens`.
    """

    target_tokens: int = 200
    max_tokens: int = 256
    overlap_tokens: int = 0

    def __post_init__(self) -> None:
        if self.max_tokens < 128:
            raise ValueError("max_tokens must be at least 128.")
        if not 16 <= self.target_tokens <= self.max_tokens:
            raise ValueError("target_tokens must be from 16 to max_tokens.")
        if not 0 <= self.overlap_tokens <= self.target_tokens // 2:
            raise ValueError("overlap_tokens must be from 0 to half of target_tokens.")


DEFAULT = Chunking()


def chunking_for(max_tokens: int) -> Chunking:
    """Give the default for a model that reads `max_tokens`, 128 or more; most read over 256."""
    longest = min(DEFAULT.max_tokens, max_tokens)
    return replace(DEFAULT, max_tokens=longest, target_tokens=min(DEFAULT.target_tokens, longest))


@dataclass(frozen=True, slots=True)
class Passage:
    """A stretch of one section of a document.

    `start`, `end`: [start, end) in `document_text`. `text` is what stands there; only the later
    parts of a long table begin with the table's header rows, repeated. `token_count` is that of
    `embedding_text`, special tokens included.
    """

    text: str
    start: int
    end: int
    page_first: int
    page_last: int
    heading_path: tuple[str, ...]
    token_count: int


def split(
    pages: Sequence[Page],
    *,
    count_tokens: CountTokens,
    title: str = "",
    settings: Chunking = DEFAULT,
) -> list[Passage]:
    """Cut pages into passages, in their order; together they hold all text except headings.

    A heading without any text below it is in no passage's path, so it is a passage itself,
    together with neighbours of its kind. `count_tokens`: the embedder's, special tokens included.
    """
    document = _Document(document_text(pages), title, count_tokens, settings)
    sections = document.with_rooms(list(_sections(pages, document.text)))
    parts = [part for section in document.divided(sections) for part in document.merged(section)]
    parts, counts = document.fitted(parts)
    if settings.overlap_tokens:
        parts = document.overlapped(parts)
        counts = document.token_counts(parts)
    offsets, numbers = page_offsets(pages), [page.number for page in pages]

    def page_at(position: int) -> int:
        return numbers[bisect_right(offsets, position) - 1]

    passages = []
    for part, token_count in zip(parts, counts, strict=True):
        start, end = document.span_of(part)
        first, last = page_at(start), page_at(end - 1)
        content = document.text_of(part)
        passages.append(Passage(content, start, end, first, last, part.heading_path, token_count))
    return passages


def embedding_text(title: str, heading_path: Sequence[str], text: str) -> str:
    """Give what is embedded and indexed for a passage: title, headings, and its text.

    ("Handbook", ["Travel", "Trains"], "Book early.") gives "Handbook > Travel > Trains" and, on
    the next line, "Book early." Long titles lose their end and long paths their beginning, so that
    about 48 of the model's tokens go to them; the passage's own heading stays the longest.
    """
    prefix = _prefix(title, heading_path)
    return f"{prefix}\n{text}" if prefix else text


def text_hash(embedded_text: str) -> str:
    """Name an embedded text: SHA-256 in hexadecimal digits."""
    return hashlib.sha256(embedded_text.encode()).hexdigest()


def _prefix(title: str, heading_path: Sequence[str]) -> str:
    title = " ".join(title.split())
    names = [name for name in heading_path if name.casefold() != title.casefold()]
    title = _shortened(title, TITLE_TOKENS)
    left = PREFIX_TOKENS - _estimated_tokens(title)
    kept: list[str] = []
    for name in reversed(names):
        size = _estimated_tokens(name) + 1
        if size > left and kept:
            kept.insert(0, "…")
            break
        kept.insert(0, _shortened(name, left - 1))
        left -= size
    return " > ".join([title, *kept] if title else kept)


_WORD = re.compile(r"[A-Za-z]+|\d+|\S")


def _word_tokens(word: str) -> float:
    """Guess a word's tokens in any model: near the truth for names, and never far below it."""
    if word.isascii() and word.isalpha():
        return max(1.0, (len(word) + 1) / 3.75)
    return max(1.0, len(word) / 2)


def _estimated_tokens(text: str) -> float:
    return sum(_word_tokens(match.group()) for match in _WORD.finditer(text))


def _shortened(text: str, tokens: float) -> str:
    """Cut the end off, with an ellipsis, where the text is estimated above `tokens`."""
    for match in _WORD.finditer(text):
        tokens -= _word_tokens(match.group())
        if tokens < 0:
            return text[: match.start()].rstrip() + "…"
    return text


@dataclass(frozen=True, slots=True)
class _Part:
    """Neighbouring atoms below one heading: first a section, in the end a passage.

    `room`: the tokens of text that fit the model beside title, headings and special tokens.
    `overlap_start`: where the repeated text of the part before begins.
    """

    heading_path: tuple[str, ...]
    atoms: tuple[Atom, ...]
    room: int = 0
    overlap_start: int | None = None

    @property
    def start(self) -> int:
        return self.atoms[0].start if self.overlap_start is None else self.overlap_start

    @property
    def end(self) -> int:
        return self.atoms[-1].end

    @property
    def size(self) -> int:
        return sum(atom.size for atom in self.atoms) + self.atoms[0].header_size


@dataclass(slots=True)
class _Outline:
    """A heading and the blocks up to the next; before the first one there is no heading."""

    level: int
    heading: Atom | None
    path: tuple[str, ...]
    body: list[Atom] = field(default_factory=list)


def _sections(pages: Sequence[Page], text: str) -> list[_Part]:
    """Collect the blocks below each heading; see `split` for headings without any."""
    outlines = _outlines(pages, text)
    if not any(outline.body for outline in outlines):
        headings = tuple(outline.heading for outline in outlines if outline.heading)
        return [_Part((), headings)] if headings else []
    sections: list[_Part] = []
    bare: _Part | None = None  # the last section, if it is made of headings
    for i, outline in enumerate(outlines):
        if outline.body:
            sections.append(_Part(outline.path, tuple(outline.body)))
            bare = None
        elif outline.heading and not (
            i + 1 < len(outlines) and outlines[i + 1].level > outline.level
        ):
            above = outline.path[:-1]
            if bare and bare.heading_path == above:
                bare = replace(bare, atoms=(*bare.atoms, outline.heading))
                sections[-1] = bare
            else:
                bare = _Part(above, (outline.heading,))
                sections.append(bare)
    return sections


def _outlines(pages: Sequence[Page], text: str) -> list[_Outline]:
    """Take a document apart at its headings."""
    outlines = [_Outline(0, None, ())]
    above: list[tuple[int, str]] = []
    for level, atom in block_atoms(pages, text):
        if not level:
            outlines[-1].body.append(atom)
            continue
        while above and above[-1][0] >= level:
            above.pop()
        above.append((level, " ".join(text[atom.start : atom.end].lstrip("#").split())))
        outlines.append(_Outline(level, atom, tuple(name for _, name in above)))
    return outlines


@dataclass(frozen=True, slots=True)
class _Document:
    """The text that is cut, and what its pieces must fit."""

    text: str
    title: str
    count_tokens: CountTokens
    settings: Chunking

    def sizes(self, spans: Sequence[Span]) -> list[int]:
        """Count the tokens of stretches of the text, less the special ones.

        Tokens stand for at most `CHARACTERS_PER_TOKEN` characters; what is too long already by
        that is not given to the tokenizer, which would take seconds for each million characters.
        """
        sizes = [-(-(end - start) // CHARACTERS_PER_TOKEN) for start, end in spans]
        counted = [i for i, size in enumerate(sizes) if size <= self.settings.max_tokens]
        special, *counts = self.count_tokens(["a", *(self.text[slice(*spans[i])] for i in counted)])
        for i, count in zip(counted, counts, strict=True):
            sizes[i] = max(sizes[i], count - (special - 1))
        return sizes

    def with_rooms(self, sections: Sequence[_Part]) -> list[_Part]:
        """Find out how much each section's title and headings leave for text."""
        counts = self.count_tokens(
            [embedding_text(self.title, section.heading_path, "a") for section in sections]
        )
        rooms = [self.settings.max_tokens - count + 1 for count in counts]
        if min(rooms, default=SMALLEST_ROOM) < SMALLEST_ROOM:
            raise ValueError("max_tokens leaves no room beside title and headings.")
        return [replace(part, room=room) for part, room in zip(sections, rooms, strict=True)]

    def divided(self, sections: Sequence[_Part]) -> list[_Part]:
        """Cut every atom that does not fit its section's room, as finely as it takes."""
        sections = self.sized(sections)
        while True:
            smaller = [replace(section, atoms=tuple(self.smaller(section))) for section in sections]
            if smaller == sections:
                return smaller
            sections = self.sized(smaller)

    def sized(self, sections: Sequence[_Part]) -> list[_Part]:
        """Count what is not counted yet, all of it at once."""
        new = [a for section in sections for a in section.atoms if not a.size]
        sizes = iter(self.sizes([(atom.start, atom.end) for atom in new]))
        return [
            replace(
                section,
                atoms=tuple(a if a.size else replace(a, size=next(sizes)) for a in section.atoms),
            )
            for section in sections
        ]

    def smaller(self, section: _Part) -> Iterator[Atom]:
        """Yield a section's atoms, those that do not fit cut once; rows keep a small header."""
        for atom in section.atoms:
            if atom.size + atom.header_size <= section.room:
                yield atom
                continue
            rows = divide_table(atom, self.text) if atom.kind is BlockKind.TABLE else []
            header_size = self.sizes([rows[0].header])[0] if rows and rows[0].header else 0
            if rows and header_size <= section.room // 2:
                yield from (replace(row, header_size=header_size) for row in rows)
            else:
                yield from divide(atom, self.text)

    def merged(self, section: _Part) -> Iterator[_Part]:
        """Put neighbours together that fit one passage; see the module's docstring."""
        atoms = section.atoms
        sizes = [atom.size for atom in atoms]
        firsts = list(range(len(atoms)))  # a step towards the first atom of each one's group
        order = sorted(
            range(1, len(atoms)), key=lambda i: (atoms[i].strength, self.label(atoms[i]))
        )
        for tiny_only in (False, True):
            for i in order:
                if firsts[i] != i:
                    continue
                first = _first_of_group(firsts, i - 1)
                if self.may_join(section, first, i, sizes, tiny_only):
                    sizes[first] += sizes[i]
                    firsts[i] = first
        starts = [i for i, first in enumerate(firsts) if first == i]
        for start, end in pairwise([*starts, len(atoms)]):
            yield replace(section, atoms=atoms[start:end])

    def may_join(
        self, section: _Part, left: int, right: int, sizes: Sequence[int], tiny_only: bool
    ) -> bool:
        """Tell whether the groups that begin at two atoms are one passage."""
        atom = section.atoms[right]
        if section.atoms[left].header != atom.header:
            return False
        limit = section.room - atom.header_size
        if tiny_only:
            if min(sizes[left], sizes[right]) >= TINY_TOKENS:
                return False
        elif not atom.header and atom.strength is not Strength.INTRODUCED:
            limit = min(limit, self.settings.target_tokens)
        return sizes[left] + sizes[right] <= limit

    def label(self, atom: Atom) -> bytes:
        """Give the atom's place in the order of merging: by chance, but always the same."""
        return hashlib.blake2b(self.text[atom.start : atom.end].encode(), digest_size=8).digest()

    def fitted(self, parts: list[_Part]) -> tuple[list[_Part], list[int]]:
        """Halve the passages that are too long for the model after all; gives their counts too.

        Tokens do not add up exactly in every tokenizer.
        """
        while True:
            counts = self.token_counts(parts)
            smaller = [
                piece
                for part, count in zip(parts, counts, strict=True)
                for piece in ([part] if count <= self.settings.max_tokens else self.halves(part))
            ]
            if len(smaller) == len(parts):
                return parts, counts
            parts = smaller

    def halves(self, part: _Part) -> list[_Part]:
        """Cut a passage at its strongest boundary, or its only atom in the middle."""
        atoms = part.atoms
        if len(atoms) == 1:
            return [replace(part, atoms=(atom,)) for atom in divide(atoms[0], self.text)]
        cut = max(range(1, len(atoms)), key=lambda i: (atoms[i].strength, self.label(atoms[i])))
        return [replace(part, atoms=atoms[:cut]), replace(part, atoms=atoms[cut:])]

    def overlapped(self, parts: list[_Part]) -> list[_Part]:
        """Let each passage repeat the last sentences of the one before it in its section."""
        extended = [parts[0]] if parts else []
        for before, part in pairwise(parts):
            starts = self.repeatable(before, part)
            room = min(self.settings.overlap_tokens, part.room - part.size)
            sizes = self.sizes([(start, before.end) for start in starts])
            start = next((s for s, size in zip(starts, sizes, strict=True) if size <= room), None)
            extended.append(replace(part, overlap_start=start))
        counts = self.token_counts(extended)
        return [
            longer if count <= self.settings.max_tokens else part
            for part, longer, count in zip(parts, extended, counts, strict=True)
        ]

    def repeatable(self, before: _Part, part: _Part) -> list[int]:
        """Find the sentence starts of a passage that the next one may begin with."""
        if before.atoms[-1].header or part.atoms[0].header:
            return []
        if self.text[before.end : part.start].strip():  # a heading
            return []
        sentences = split_sentences(self.text[before.start : before.end])
        return [before.start + sentence.start for sentence in sentences[1:]]

    def token_counts(self, parts: Sequence[_Part]) -> list[int]:
        """Count what is embedded for each passage, special tokens included."""
        return self.count_tokens(
            [embedding_text(self.title, part.heading_path, self.text_of(part)) for part in parts]
        )

    def span_of(self, part: _Part) -> Span:
        """Give a passage's span; the first rows of a table begin with its header."""
        header = part.atoms[0].header
        if header and not self.text[header[1] : part.atoms[0].start].strip():
            return header[0], part.atoms[-1].end
        return part.start, part.end

    def text_of(self, part: _Part) -> str:
        """Give a passage's text, the table's header repeated before its later rows."""
        start, end = self.span_of(part)
        header = part.atoms[0].header
        if header and header[0] < start:
            return f"{self.text[slice(*header)]}\n{self.text[start:end]}"
        return self.text[start:end]


def _first_of_group(firsts: list[int], i: int) -> int:
    """Follow the steps to a group's first atom, and shorten the way for the next time."""
    while firsts[i] != i:
        firsts[i] = firsts[firsts[i]]
        i = firsts[i]
    return i
