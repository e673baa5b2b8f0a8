"""Compare ways to cut text into passages by what a vector search over them brings back.

`script/bench chunking [FOLDER] [--save]`: FOLDER holds questions_df.csv, whose 472 questions
name their exact excerpts, and corpora/*.md (github.com/brandonstarxel/chunking_evaluation). All
corpora are searched at once by plain cosine. About a minute a row on two cores; no database.

Recall: the share of an excerpt's tokens that the retrieved passages hold. Precision: the share of
the retrieved tokens that belong to an excerpt, a token retrieved twice counted twice. IoU: the
tokens in both over the tokens in either. Each is the mean over the questions, in percent.
"""

import argparse
import csv
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer

from benchmarks import installation
from kb import chunking
from kb.chunking import Chunking
from kb.embedders.minilm import MiniLMEmbedder, packaged_model_dir
from kb.pages import Block, BlockKind, Page

DEFAULT_FOLDER = (
    Path(__file__).resolve().parents[2] / "shared" / "data" / "retrieval" / "chunking_evaluation"
)
TOP = 5
BUDGET_TOKENS = 1000  # about what five passages of the default size hold

Span = tuple[int, int]
Cut = tuple[int, int, str]  # start, end, and what is embedded
Cutter = Callable[[str, str], list[Cut]]  # of a corpus's name and text


class Shares(NamedTuple):
    """Means over the questions, in percent."""

    recall: float
    precision: float
    iou: float


@dataclass(frozen=True)
class Row:
    """What one way of cutting brings back: with the best `TOP` passages, and with `BUDGET_TOKENS`."""

    name: str
    passages: int
    mean_tokens: float
    embedded_tokens: int
    top: Shares
    budget: Shares
    seconds: float


@dataclass(frozen=True)
class Corpora:
    """Texts by name, questions with the corpus and spans of their excerpts, and token positions.

    `tokens[name][i]` counts the tokens that begin before character i.
    """

    texts: dict[str, str]
    questions: list[tuple[str, str, list[Span]]]
    tokens: dict[str, np.ndarray]


def load(folder: Path) -> Corpora:
    texts = {path.stem: path.read_text() for path in sorted((folder / "corpora").glob("*.md"))}
    with (folder / "questions_df.csv").open() as file:
        questions = [
            (
                row["question"],
                row["corpus_id"],
                [(r["start_index"], r["end_index"]) for r in json.loads(row["references"])],
            )
            for row in csv.DictReader(file)
        ]
    return Corpora(texts, questions, {name: token_positions(text) for name, text in texts.items()})


def token_positions(text: str) -> np.ndarray:
    starts = np.zeros(len(text) + 1, np.int64)
    for start, _ in token_spans(text):
        starts[start + 1 :][:1] = 1
    return np.cumsum(starts)


def token_spans(text: str) -> list[Span]:
    """Give the span of every token of a text of any length, special ones left out."""
    tokenizer = Tokenizer.from_file(str(packaged_model_dir() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return list(tokenizer.encode(text, add_special_tokens=False).offsets)


# --- Ways to cut ------------------------------------------------------------------------------


def page(text: str) -> Page:
    """Find the blocks of these corpora: a line is a paragraph, lines with bars are a table."""
    blocks: list[Block] = []
    for match in re.finditer(r".+", text):
        line = match.group()
        heading = re.fullmatch(r" ?((?:= )+).*\1? ?", line) or re.match(r"(#{1,6}) ", line)
        if not line.strip():
            continue
        if heading:
            level = len(heading[1].replace(" ", ""))
            blocks.append(Block(BlockKind.HEADING, match.start(), match.end(), level))
        elif " | " in line and blocks and blocks[-1].kind is BlockKind.TABLE:
            if blocks[-1].end + 1 == match.start():
                blocks[-1] = Block(BlockKind.TABLE, blocks[-1].start, match.end())
                continue
            blocks.append(Block(BlockKind.TABLE, match.start(), match.end()))
        else:
            kind = BlockKind.TABLE if " | " in line else BlockKind.TEXT
            blocks.append(Block(kind, match.start(), match.end()))
    return Page(1, text, tuple(blocks))


def passages(embedder: MiniLMEmbedder, settings: Chunking) -> Cutter:
    """Cut as the product does; the corpus's name stands for the title."""

    def cut(name: str, text: str) -> list[Cut]:
        title = name.replace("_", " ")
        found = chunking.split(
            [page(text)], count_tokens=embedder.count_tokens, title=title, settings=settings
        )
        return [
            (p.start, p.end, chunking.embedding_text(title, p.heading_path, p.text)) for p in found
        ]

    return cut


def windows(size: int, overlap: int) -> Cutter:
    """Cut every `size` tokens, whatever stands there."""

    def cut(name: str, text: str) -> list[Cut]:
        spans = token_spans(text)
        cuts = []
        for first in range(0, len(spans), size - overlap):
            start, end = spans[first][0], spans[min(first + size, len(spans)) - 1][1]
            cuts.append((start, end, text[start:end]))
            if first + size >= len(spans):
                break
        return cuts

    return cut


def recursive(characters: int, overlap: int) -> Cutter:
    """Cut at empty lines, else lines, else spaces, and pack to a number of characters."""

    def cut(name: str, text: str) -> list[Cut]:
        pieces = list(_pieces(text, (0, len(text)), ["\n\n", "\n", " "], characters))
        cuts, first = [], 0
        while first < len(pieces):
            last = first
            while last + 1 < len(pieces) and pieces[last + 1][1] - pieces[first][0] <= characters:
                last += 1
            start, end = pieces[first][0], pieces[last][1]
            cuts.append((start, end, text[start:end]))
            following = last + 1
            while following > first + 1 and end - pieces[following - 1][0] <= overlap:
                following -= 1
            first = following
        return cuts

    return cut


def _pieces(text: str, span: Span, separators: Sequence[str], longest: int) -> Iterator[Span]:
    start, end = span
    if end - start <= longest or not separators:
        yield span
        return
    while start < end:
        found = text.find(separators[0], start, end)
        stop = end if found < 0 else found + len(separators[0])
        yield from _pieces(text, (start, stop), separators[1:], longest)
        start = stop


# --- Measuring --------------------------------------------------------------------------------


def measure(
    name: str,
    cut: Cutter,
    corpora: Corpora,
    embedder: MiniLMEmbedder,
    questions: np.ndarray,
) -> Row:
    """Cut, embed and search; `questions` are the questions' vectors, (N, D)."""
    began = time.perf_counter()
    cuts = [(corpus, *made) for corpus, text in corpora.texts.items() for made in cut(corpus, text)]
    texts = [made[3] for made in cuts]
    counts = embedder.count_tokens(texts)
    # What is too long is cut off, as every other tool does silently; the product's never is.
    vectors = embedder.embed_passages(
        [
            text if count <= embedder.max_tokens else first_tokens(text, embedder.max_tokens - 2)
            for text, count in zip(texts, counts, strict=True)
        ]
    )
    spans = [(corpus, start, end) for corpus, start, end, _ in cuts]
    order = np.argsort(-questions @ vectors.T, axis=1, kind="stable")[:, :200]
    top, budget = [], []
    for (_, corpus, excerpts), ranking in zip(corpora.questions, order, strict=True):
        ranked = [spans[i] for i in ranking]
        top.append(scores(corpora, corpus, excerpts, ranked[:TOP]))
        budget.append(scores(corpora, corpus, excerpts, within_budget(corpora, ranked)))
    return Row(
        name=name,
        passages=len(cuts),
        mean_tokens=round(float(np.mean([tokens_in(corpora, *span) for span in spans])), 1),
        embedded_tokens=int(sum(counts)),
        top=mean_of(top),
        budget=mean_of(budget),
        seconds=round(time.perf_counter() - began, 1),
    )


def mean_of(questions: Sequence[Shares]) -> Shares:
    return Shares(*(round(100 * float(value), 2) for value in np.mean(questions, axis=0)))


def first_tokens(text: str, count: int) -> str:
    return text[: token_spans(text)[count - 1][1]]


def tokens_in(corpora: Corpora, corpus: str, start: int, end: int) -> int:
    positions = corpora.tokens[corpus]
    return int(positions[end] - positions[start])


def within_budget(
    corpora: Corpora, ranked: Iterable[tuple[str, int, int]]
) -> list[tuple[str, int, int]]:
    """Take the best passages until their tokens reach the budget, the last one in part."""
    taken, left = [], BUDGET_TOKENS
    for corpus, start, end in ranked:
        size = tokens_in(corpora, corpus, start, end)
        if size > left:
            positions = corpora.tokens[corpus]
            end = int(np.searchsorted(positions, positions[start] + left + 1)) - 1
        taken.append((corpus, start, max(start, end)))
        left -= size
        if left <= 0:
            break
    return taken


def scores(
    corpora: Corpora, corpus: str, excerpts: list[Span], retrieved: list[tuple[str, int, int]]
) -> Shares:
    """Score one question, 0 to 1."""
    marks = np.zeros(len(corpora.texts[corpus]) + 1, bool)
    for start, end in excerpts:
        marks[start:end] = True
    begins = np.diff(corpora.tokens[corpus], append=corpora.tokens[corpus][-1]) > 0
    wanted = int((marks & begins).sum())
    found = np.zeros_like(marks)
    hit_tokens = all_tokens = 0
    for other, start, end in retrieved:
        all_tokens += tokens_in(corpora, other, start, end)
        if other == corpus:
            found[start:end] = True
            hit_tokens += int((marks[start:end] & begins[start:end]).sum())
    both = int((marks & found & begins).sum())
    return Shares(
        recall=both / wanted,
        precision=hit_tokens / max(all_tokens, 1),
        iou=both / (all_tokens + wanted - both),
    )


HEAD = (
    f"{'':38} passages tokens | best {TOP}: recall precision  IoU"
    f" | {BUDGET_TOKENS} tokens: recall precision  IoU"
)


def show(row: Row) -> str:
    return (
        f"{row.name:38} {row.passages:8} {row.mean_tokens:6.0f}"
        f" | {row.top.recall:14.1f} {row.top.precision:9.1f} {row.top.iou:4.1f}"
        f" | {row.budget.recall:19.1f} {row.budget.precision:9.1f} {row.budget.iou:4.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="script/bench chunking")
    parser.add_argument("folder", type=Path, nargs="?", default=DEFAULT_FOLDER)
    parser.add_argument("--save", action="store_true", help="write results/chunking.json")
    arguments = parser.parse_args()
    embedder = MiniLMEmbedder(installation.graph())
    corpora = load(arguments.folder)
    questions = np.stack([embedder.embed_query(text) for text, _, _ in corpora.questions])
    rows = []
    print(HEAD)
    for name, cut in ways_to_cut(embedder).items():
        rows.append(measure(name, cut, corpora, embedder, questions))
        print(show(rows[-1]), flush=True)
    if arguments.save:
        named = [
            asdict(row) | {"top": row.top._asdict(), "budget": row.budget._asdict()} for row in rows
        ]
        how = {"questions": len(corpora.questions), "best": TOP, "budget_tokens": BUDGET_TOKENS}
        print(f"Saved in {installation.save('chunking', how | {'ways': named})}")


def ways_to_cut(embedder: MiniLMEmbedder) -> dict[str, Cutter]:
    return {
        "Tacit, the default": passages(embedder, chunking.DEFAULT),
        "Tacit, 128 tokens": passages(embedder, Chunking(target_tokens=128)),
        "Tacit, 256 tokens": passages(embedder, Chunking(target_tokens=256)),
        "Tacit, overlap of 40": passages(embedder, Chunking(overlap_tokens=40)),
        "windows of 200 tokens": windows(200, 0),
        "windows of 200 tokens, 100 shared": windows(200, 100),
        "windows of 254 tokens": windows(254, 0),
        "recursive, 800 characters": recursive(800, 0),
        "recursive, 1000 characters, 200 shared": recursive(1000, 200),
    }


if __name__ == "__main__":
    main()
