from kb import reading
from kb.reading import Said, Stretch, Tint


def stretch(text: str, kind: str = "text", start: int = 0, level: int = 0) -> Stretch:
    return Stretch(text, start, ((kind, start, start + len(text), level),))


def test_a_passage_is_marked_within_its_block() -> None:
    html = reading.draw(stretch("The glacier melts in summer.", start=100), [(104, 111)])

    assert html == "<p>The <mark>glacier</mark> melts in summer.</p>"


def test_every_character_of_a_file_is_text() -> None:
    html = reading.draw(stretch("<script>alert('1')</script>"), [(0, 8)])

    assert "<script" not in html
    assert "<mark>&lt;script&gt;</mark>" in html


def test_a_mark_over_two_blocks_is_cut_at_their_edges() -> None:
    text = "One.\n\nTwo."
    drawn = reading.draw(Stretch(text, 0, (("text", 0, 4, 0), ("text", 6, 10, 0))), [(0, 10)])

    assert drawn == "<p><mark>One.</mark></p>\n<p><mark>Two.</mark></p>"


def test_headings_stay_below_those_of_the_page() -> None:
    assert reading.draw(stretch("Top", "heading", level=1)) == "<h3>Top</h3>"


def test_a_heading_level_that_a_file_left_out_leaves_no_hole() -> None:
    text = "Top\n\nLow"
    html = reading.draw(Stretch(text, 0, (("heading", 0, 3, 1), ("heading", 5, 8, 6))))

    assert html == "<h3>Top</h3>\n<h4>Low</h4>"


def test_a_table_keeps_its_header_and_marks_in_cells() -> None:
    text = "| Year | Ice \\| snow |\n| --- | --- |\n| 1990 | 12 |"
    at = text.index("1990")
    html = reading.draw(stretch(text, "table"), [(at, at + 4)])

    assert "<th>Ice | snow</th>" in html
    assert "<td><mark>1990</mark></td><td>12</td>" in html


def test_a_part_of_a_table_without_its_header_is_still_a_table() -> None:
    html = reading.draw(stretch("| 1990 | 12 |\n| 1991 | 13 |", "table"))

    assert "<thead>" not in html
    assert html.count("<tr>") == 2


def test_list_items_lose_their_dash_and_keep_their_number_and_depth() -> None:
    html = reading.draw(stretch("- ice\n  - blue ice\n1. first\n   goes on", "list"))

    assert '<li class="level-0">ice</li>' in html
    assert '<li class="level-1">blue ice</li>' in html
    assert '<li class="level-0 numbered">1. first<br>goes on</li>' in html


def test_code_keeps_its_lines() -> None:
    drawn = reading.draw(stretch("a\n  b", "code"))
    assert drawn == '<pre tabindex="0"><code>a\n  b</code></pre>'


def test_passages_of_a_document_are_tinted_in_turn() -> None:
    html = reading.draw(stretch("One two"), [Tint(0, 3, 0), Tint(4, 7, 1)])

    assert 'class="tint even" data-passage="0">One</span>' in html
    assert 'class="tint odd" data-passage="1">two</span>' in html


def test_the_sentence_an_answer_took_is_found_again() -> None:
    passage = "Ice is cold. The glacier melts in late summer. Rivers flow to the sea."
    taken = reading.sentences_taken(["The glacier melts in late summer. [1]"], passage)

    assert [passage[start:end] for start, end in taken] == ["The glacier melts in late summer."]


def test_a_claim_that_is_not_in_the_passage_takes_nothing() -> None:
    assert reading.sentences_taken(["Cheese ripens on the moon."], "Ice is cold.") == []


def test_the_words_taken_stand_out_of_their_passage() -> None:
    marks = reading.marks_of((0, 9), [(2, 4)])

    assert marks == [(0, 2), Said(2, 4), (4, 9)]
    html = reading.draw(stretch("abcdefghi"), marks)
    assert html == '<p><mark>ab</mark><mark class="said">cd</mark><mark>efghi</mark></p>'


def test_a_window_keeps_whole_lines_of_long_blocks() -> None:
    text = "\n".join(f"- line {n}" for n in range(100))
    blocks = [("list", 0, len(text), 0)]
    start = text.index("line 50")
    ((kind, first, last, _),) = reading.cut(blocks, start, start + 4, text, 0)

    assert (kind, text[first:last]) == ("list", "- line 50")


def test_blocks_outside_the_window_are_left_out() -> None:
    text = "One.\n\nTwo."
    blocks = [("text", 0, 4, 0), ("text", 6, 10, 0)]

    assert reading.cut(blocks, 6, 8, text, 0) == (("text", 6, 10, 0),)
