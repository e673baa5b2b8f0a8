"""The chunker against its promises, on made texts and, where they are at hand, on real ones."""

import hashlib
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kb import chunking, extraction
from kb.chunking import Chunking, Passage, embedding_text, text_hash
from kb.embedders.hashing import HashingEmbedder
from kb.embedders.minilm import MiniLMEmbedder
from kb.pages import Block, BlockKind, Page, document_text

LONGEST_PAGE = (
    "docs/18f_handbook/pages/travel-and-leave/travel-and-leave-policies/travel-guide-faq.md"
)
Piece = tuple[BlockKind, int, str]
count_tokens = HashingEmbedder().count_tokens
WORDS = [
    "glacier",
    "ice",
    "melts",
    "river",
    "valley",
    "stone",
    "summer",
    "late",
    "winter",
    "snow",
    "runs",
    "down",
    "field",
    "moraine",
]


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> MiniLMEmbedder:
    """Counts tokens; the graph is never written for that."""
    return MiniLMEmbedder(tmp_path_factory.mktemp("models") / "minilm.onnx")


def heading(level: int, text: str) -> Piece:
    return BlockKind.HEADING, level, text


def text(content: str, kind: BlockKind = BlockKind.TEXT) -> Piece:
    return kind, 0, content


def page(*pieces: Piece, number: int = 1) -> Page:
    content, blocks = "", []
    for kind, level, piece in pieces:
        content += "\n\n" if content else ""
        blocks.append(Block(kind, len(content), len(content) + len(piece), level))
        content += piece
    return Page(number, content, tuple(blocks))


def split(*pieces: Piece, title: str = "", **options: int) -> list[Passage]:
    made = chunking.split(
        [page(*pieces)], count_tokens=count_tokens, title=title, settings=Chunking(**options)
    )
    check([page(*pieces)], made, title, Chunking(**options).max_tokens)
    return made


def check(
    pages: Sequence[Page],
    passages: Sequence[Passage],
    title: str,
    max_tokens: int,
    count: Callable[[Sequence[str]], list[int]] = count_tokens,
) -> None:
    """Hold passages to what is promised for all of them."""
    document = document_text(pages)
    embedded = [embedding_text(title, p.heading_path, p.text) for p in passages]
    assert [p.token_count for p in passages] == count(embedded)
    assert all(p.token_count <= max_tokens for p in passages)
    for p in passages:
        assert p.text.endswith(document[p.start : p.end])
        assert p.text == p.text.strip() != ""
        assert 1 <= p.page_first <= p.page_last <= len(pages)


def sentence(generator: random.Random, words: int) -> str:
    return " ".join(generator.choices(WORDS, k=words)).capitalize() + "."


def paragraph(generator: random.Random, tokens: int) -> str:
    lengths = [12] * max(1, tokens // 13)
    return " ".join(sentence(generator, n) for n in lengths)


def hashes(passages: Sequence[Passage], title: str = "") -> set[str]:
    return {text_hash(embedding_text(title, p.heading_path, p.text)) for p in passages}


# --- Where passages begin and end -------------------------------------------------------------


def test_passages_never_cross_a_heading_and_carry_its_path():
    passages = split(
        text("Before any heading."),
        heading(1, "Travel"),
        text("Book early."),
        heading(2, "Trains"),
        text("Second class."),
        heading(2, "Planes"),
        text("Economy."),
        heading(1, "Leave"),
        text("Ask first."),
    )

    assert [(p.heading_path, p.text) for p in passages] == [
        ((), "Before any heading."),
        (("Travel",), "Book early."),
        (("Travel", "Trains"), "Second class."),
        (("Travel", "Planes"), "Economy."),
        (("Leave",), "Ask first."),
    ]


def test_a_level_that_is_left_out_does_not_confuse_the_path():
    passages = split(heading(4, "Deep"), text("One."), heading(2, "High"), text("Two."))

    assert [p.heading_path for p in passages] == [("Deep",), ("High",)]


def test_short_neighbours_in_a_section_share_a_passage():
    (passage,) = split(heading(1, "Rules"), text("One."), text("Two."), text("Three."))

    assert passage.text == "One.\n\nTwo.\n\nThree."


def test_paragraphs_that_fit_stay_whole():
    generator = random.Random(1)
    pieces = [paragraph(generator, 90) for _ in range(9)]

    passages = split(*(text(piece) for piece in pieces))

    assert [part for p in passages for part in p.text.split("\n\n")] == pieces


def test_a_long_paragraph_is_cut_between_sentences():
    passages = split(text(paragraph(random.Random(2), 900)))

    assert len(passages) > 4
    assert all(p.text.endswith(".") and p.text[0].isupper() for p in passages)


def test_items_of_a_long_list_stay_whole_with_what_is_inside_them():
    items = [f"- item {n} {'word ' * 30}\n  - inner {n} {'word ' * 10}".strip() for n in range(12)]

    passages = split(text("\n".join(items), BlockKind.LIST))

    assert len(passages) > 2
    assert "\n".join(p.text for p in passages).split("\n- ") == "\n".join(items).split("\n- ")
    assert all(p.text.startswith("- item") for p in passages)


def test_what_introduces_a_list_stays_with_it():
    generator = random.Random(3)
    bullets = "\n".join(f"- {sentence(generator, 6)}" for _ in range(20))

    passages = split(
        text(paragraph(generator, 150)),
        text("You need the following:"),
        text(bullets, BlockKind.LIST),
        text(paragraph(generator, 150)),
    )

    assert any(p.text.startswith("You need the following:\n\n- ") for p in passages)


def test_code_is_cut_between_its_lines():
    code = "\n".join(f"    total[{n}] = price[{n}] * count[{n}]" for n in range(80))

    passages = split(text(code, BlockKind.CODE))

    assert "\n    ".join(p.text for p in passages) == code.strip()


# --- Tables -----------------------------------------------------------------------------------


def table(rows: int, columns: str = "| City | People | Since |") -> str:
    lines = [columns, "|---|---|---|"]
    lines += [f"| Town {n} | {n * 1371} | {1200 + n} |" for n in range(rows)]
    return "\n".join(lines)


def test_a_table_that_fits_stays_whole():
    (passage,) = split(text("Our towns:"), text(table(5), BlockKind.TABLE))

    assert passage.text == "Our towns:\n\n" + table(5)


def test_every_part_of_a_long_table_begins_with_its_header():
    content = table(200)
    passages = split(text(content, BlockKind.TABLE))

    header = "| City | People | Since |\n|---|---|---|\n"
    assert all(p.text.startswith(header + "| Town ") for p in passages)
    assert "\n".join(p.text.removeprefix(header) for p in passages) == content.removeprefix(header)
    assert passages[0].text == content[passages[0].start : passages[0].end]
    assert passages[1].text == header + content[passages[1].start : passages[1].end]


def test_a_table_is_not_joined_to_the_parts_of_another():
    passages = split(
        text(table(60, "| A | B | C |"), BlockKind.TABLE),
        text(table(60, "| D | E | F |"), BlockKind.TABLE),
    )

    assert not any("| A |" in p.text and "| D |" in p.text for p in passages)


def test_a_header_too_wide_to_repeat_is_kept_once():
    header = "| " + " | ".join(f"column {n}" for n in range(60)) + " |"
    rows = "\n".join("| " + " | ".join(["1"] * 60) + " |" for _ in range(5))

    passages = split(text(f"{header}\n{'|---' * 60}|\n{rows}", BlockKind.TABLE))

    assert "".join(p.text for p in passages).count("column 7 ") == 1


def test_a_row_longer_than_the_model_reads_is_cut_between_its_cells():
    long_row = "| " + " | ".join("some words in a cell" for _ in range(120)) + " |"

    passages = split(text(table(3) + "\n" + long_row, BlockKind.TABLE))

    assert sum(p.text.count("some words in a cell") for p in passages) == 120


# --- Headings without text, and nothing at all --------------------------------------------------


def test_a_heading_above_deeper_ones_is_found_through_their_path():
    passages = split(heading(1, "Travel"), heading(2, "Trains"), text("Second class."))

    assert [(p.heading_path, p.text) for p in passages] == [(("Travel", "Trains"), "Second class.")]


def test_headings_with_nothing_below_them_are_a_passage_together():
    passages = split(
        heading(1, "Steps"),
        heading(2, "Open the door"),
        heading(2, "Go in"),
        heading(1, "Notes"),
        text("None."),
    )

    assert [(p.heading_path, p.text) for p in passages] == [
        (("Steps",), "Open the door\n\nGo in"),
        (("Notes",), "None."),
    ]


def test_a_document_of_headings_only_is_one_passage():
    (passage,) = split(heading(1, "One"), heading(2, "Two"), heading(1, "Three"))

    assert passage.text == "One\n\nTwo\n\nThree"
    assert passage.heading_path == ()


def test_a_heading_as_long_as_a_paragraph_is_one():
    (passage,) = split(heading(2, "All of this is in bold. " * 20), text("And this is not."))

    assert passage.heading_path == ()
    assert passage.text.endswith("And this is not.")


@pytest.mark.parametrize("pages", [[], [Page(1, "", ())], [Page(1, " \n ", ()), Page(2, "", ())]])
def test_nothing_gives_no_passage(pages):
    assert chunking.split(pages, count_tokens=count_tokens) == []


def test_a_page_without_blocks_is_one_block():
    (passage,) = chunking.split([Page(1, "  Some words. ", ())], count_tokens=count_tokens)

    assert (passage.text, passage.start, passage.end) == ("Some words.", 2, 13)


# --- Pages, offsets, size -----------------------------------------------------------------------


def test_a_passage_names_the_pages_that_it_runs_over():
    pages = [
        page(heading(1, "Ice"), text("Glaciers melt."), number=1),
        Page(2, "", ()),
        page(text("They freeze too."), heading(1, "Stone"), text("Stone stays."), number=3),
    ]

    passages = chunking.split(pages, count_tokens=count_tokens)

    assert [(p.text, p.page_first, p.page_last) for p in passages] == [
        ("Glaciers melt.\n\n\n\nThey freeze too.", 1, 3),
        ("Stone stays.", 3, 3),
    ]


def test_passages_hold_all_text_but_headings_once_and_in_order():
    generator = random.Random(4)
    pieces = [
        heading(1 + n % 3, f"Heading {n}") if n % 7 == 0 else text(paragraph(generator, n * 11))
        for n in range(1, 40)
    ]

    passages = split(*pieces)

    words = " ".join(piece for kind, _, piece in pieces if kind is BlockKind.TEXT).split()
    assert " ".join(p.text for p in passages).split() == words
    assert all(a.end <= b.start for a, b in zip(passages, passages[1:], strict=False))


def test_the_limit_holds_below_any_title_and_path():
    names = [
        "x" * 180,
        "A very long heading about many things " * 5,
        "東京都の鉄道" * 30,
        "1-2-3 " * 30,
    ]
    generator = random.Random(5)
    for name in names:
        for title in ("", name, "short"):
            passages = split(
                heading(1, name[:200]),
                heading(2, name[:190]),
                text(paragraph(generator, 700)),
                title=title,
            )
            assert len(passages) > 2


def test_a_limit_without_room_below_the_headings_is_refused():
    pieces = page(heading(1, "q z x j " * 24), text("Words."))

    with pytest.raises(ValueError, match="no room"):
        chunking.split(
            [pieces],
            count_tokens=lambda texts: [2 * len(t) for t in texts],
            settings=Chunking(target_tokens=100, max_tokens=128),
        )


def test_a_tokenizer_whose_counts_do_not_add_up_is_obeyed():
    def count(texts: Sequence[str]) -> list[int]:
        return [2 + len(t.split()) + t.count("\n\n") * 60 for t in texts]

    pieces = [text(" ".join(["word"] * 50)) for _ in range(40)]

    passages = chunking.split([page(*pieces)], count_tokens=count)

    check([page(*pieces)], passages, "", 256, count)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("one word", "a" * 100_000),
        ("words", "lorem ipsum dolor " * 5_500),
        ("Japanese", "これは文章です。氷河が解ける。" * 6_600),
        ("Japanese without stops", "氷河が解ける" * 16_600),
        ("lines", "\n".join(f"x = {n}" for n in range(10_000))),
        ("stops", "a.b " * 25_000),
        ("underscores", "a_" * 50_000 + " b. C"),
        ("accents", "e\u0301" * 50_000),
    ],
)
def test_text_of_any_kind_is_cut_to_size_and_loses_nothing(minilm, name, content):
    passages = chunking.split([Page(1, content, ())], count_tokens=minilm.count_tokens, title=name)

    check([Page(1, content, ())], passages, name, 256, minilm.count_tokens)
    gaps = [content[a.end : b.start] for a, b in zip(passages, passages[1:], strict=False)]
    assert passages[0].start == 0
    assert passages[-1].end == len(content.rstrip())
    assert not "".join(gaps).strip()
    assert max(len(p.text) for p in passages) <= 256 * chunking.CHARACTERS_PER_TOKEN


def test_a_megabyte_takes_seconds(minilm):
    paragraphs = [paragraph(random.Random(n), 40) for n in range(100)]
    content = "\n\n".join(f"{n}. {paragraphs[n % 100]}" for n in range(4_500))
    assert len(content) > 1_000_000
    blocks = page(*(text(piece) for piece in content.split("\n\n")))

    began = time.process_time()
    passages = chunking.split([blocks], count_tokens=minilm.count_tokens)

    assert time.process_time() - began < 30, "3 s on an idle core"
    assert len(passages) > 1_000


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(BlockKind),
            st.integers(1, 6),
            st.one_of(
                st.text(max_size=400),
                st.integers(1, 400).map(lambda n: "word " * n),
                st.integers(1, 90).map(table),
            ).filter(lambda content: content.strip()),
        ),
        max_size=12,
    ),
    st.integers(16, 256),
    st.integers(0, 8),
)
def test_any_blocks_give_passages_that_keep_every_promise(blocks, target, overlap):
    made = [(kind, level if kind is BlockKind.HEADING else 0, c) for kind, level, c in blocks]

    passages = split(*made, title="A title", target_tokens=target, overlap_tokens=overlap)

    document, blocks = page(*made).text, page(*made).blocks
    held = {i for p in passages for i in range(p.start, p.end)}
    for block in blocks:
        if block.kind is not BlockKind.HEADING:
            lost = [i for i in range(block.start, block.end) if i not in held]
            assert not "".join(document[i] for i in lost).strip()
    ends = [p.end for p in passages]
    assert ends == sorted(ends)


# --- Overlap and settings -----------------------------------------------------------------------


def test_an_overlap_repeats_whole_sentences_of_the_passage_before():
    content = paragraph(random.Random(6), 900)

    passages = split(text(content), overlap_tokens=60)

    document = page(text(content)).text
    for before, passage in zip(passages, passages[1:], strict=False):
        assert before.start < passage.start < before.end
        assert document[passage.start - 2] == "."
        assert passage.text == document[passage.start : passage.end]


def test_an_overlap_never_reaches_over_a_heading():
    generator = random.Random(7)
    passages = split(
        text(paragraph(generator, 150)),
        heading(1, "Next"),
        text(paragraph(generator, 150)),
        overlap_tokens=60,
    )

    assert passages[0].end <= passages[1].start


@pytest.mark.parametrize(
    "options",
    [{"max_tokens": 127}, {"target_tokens": 15}, {"target_tokens": 257}, {"overlap_tokens": 101}],
)
def test_settings_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="must be"):
        Chunking(**options)


def test_a_model_that_reads_less_gets_smaller_passages():
    assert chunking.chunking_for(512) == chunking.DEFAULT
    assert chunking.chunking_for(128).max_tokens == 128


# --- What is embedded ---------------------------------------------------------------------------


def test_title_and_headings_come_before_the_text():
    assert (
        embedding_text("Handbook", ("Travel", "Trains"), "Book early.")
        == "Handbook > Travel > Trains\nBook early."
    )
    assert embedding_text("", (), "Book early.") == "Book early."
    assert embedding_text("Handbook", ("HANDBOOK", "Leave"), "x") == "Handbook > Leave\nx"


def test_a_long_path_loses_its_beginning_and_a_long_title_its_end():
    path = tuple(f"a heading of some length, number {n}" for n in range(12))

    first_line = embedding_text("word " * 60, path, "x").split("\n")[0]

    assert first_line.startswith("word word")
    assert "… > …" in first_line
    assert first_line.endswith("number 11")
    assert count_tokens([first_line])[0] < 70


def test_the_hash_is_that_of_the_text():
    assert text_hash("ice") == hashlib.sha256(b"ice").hexdigest()
    assert text_hash("ä") == hashlib.sha256("ä".encode()).hexdigest()


# --- Boundaries that stay -----------------------------------------------------------------------


def hashes_of(pieces: Sequence[Piece]) -> set[str]:
    return hashes(chunking.split([page(*pieces)], count_tokens=count_tokens))


def replaced(pieces: Sequence[Piece], index: int, replacement: str) -> list[Piece]:
    return [*pieces[:index], text(replacement), *pieces[index + 1 :]]


def flat_section(seed: int) -> list[Piece]:
    generator = random.Random(seed)
    return [text(paragraph(generator, generator.choice([13, 26, 39, 65, 91]))) for _ in range(300)]


def test_one_changed_paragraph_of_300_without_a_heading_changes_hardly_more_than_its_passage():
    before, generator = flat_section(8), random.Random(9)
    old = hashes_of(before)
    counts = []
    for index in generator.sample(range(300), 100):
        after = replaced(before, index, paragraph(generator, generator.choice([20, 60])))
        counts.append(len(hashes_of(after) - old))

    assert sum(count <= 3 for count in counts) >= 97
    assert max(counts) <= 5
    assert sum(counts) / len(counts) < 2


FLAT = flat_section(10)
FLAT_HASHES = hashes_of(FLAT)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 299), st.integers(1, 8), st.integers(0, 10_000))
def test_no_single_edit_moves_boundaries_far_away(index, sentences, seed):
    after = replaced(FLAT, index, paragraph(random.Random(seed), sentences * 13))

    assert len(hashes_of(after) - FLAT_HASHES) <= 5


@pytest.mark.parametrize("where", [0, 150, 300])
def test_an_inserted_or_removed_paragraph_changes_its_surroundings_only(where):
    inserted = [*FLAT[:where], text("Something new stands here."), *FLAT[where:]]

    assert len(hashes_of(inserted) - FLAT_HASHES) <= 4
    assert len(FLAT_HASHES - hashes_of(inserted)) <= 4


@pytest.mark.data
def test_one_changed_paragraph_of_the_longest_handbook_page_changes_at_most_three(
    shared_data: Path, minilm: MiniLMEmbedder
):
    path = shared_data / LONGEST_PAGE
    (read,) = extraction.extract(path, path.name).pages
    before: list[Piece] = [(b.kind, b.level, read.text[b.start : b.end]) for b in read.blocks]
    known: dict[str, int] = {}

    def count(texts: Sequence[str]) -> list[int]:
        new = [t for t in texts if t not in known]
        known.update(zip(new, minilm.count_tokens(new), strict=True))
        return [known[t] for t in texts]

    def embedded(pieces: Sequence[Piece]) -> set[str]:
        return hashes(chunking.split([page(*pieces)], count_tokens=count, title="FAQ"), "FAQ")

    old, generator = embedded(before), random.Random(12)
    for index, (kind, _, content) in enumerate(before):
        if kind is not BlockKind.HEADING:
            words = content.split()
            replacement = " ".join(generator.choices(words, k=generator.randint(1, len(words))))
            after = replaced(before, index, replacement)
            assert len(embedded(after) - old) <= 3


@pytest.mark.data
def test_the_handbook_is_cut_without_a_token_over_the_limit(
    shared_data: Path, minilm: MiniLMEmbedder
):
    for path in sorted((shared_data / "docs/18f_handbook/pages/tools").glob("*.md"))[:5]:
        read = extraction.extract(path, path.name)
        passages = chunking.split(
            read.pages, count_tokens=minilm.count_tokens, title=read.title or path.stem
        )
        check(read.pages, passages, read.title or path.stem, 256, minilm.count_tokens)
