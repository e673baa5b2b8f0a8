"""Marks and differences as HTML."""

from finetune.rendering import Mark, Piece, difference, differences, marked, supporting


def test_marks_are_drawn_in_order_and_text_is_escaped() -> None:
    assert marked("a <b> c", [Mark(6, 7, "said"), Mark(2, 5, "finding", 'say "b"')]) == (
        'a <mark class="finding" title="say &quot;b&quot;">&lt;b&gt;</mark>'
        ' <mark class="said" title="">c</mark>'
    )


def test_overlapping_marks_do_not_repeat_text() -> None:
    drawn = marked("abcdef", [Mark(0, 4, "x"), Mark(2, 6, "y"), Mark(3, 4, "z"), Mark(5, 99, "w")])
    assert drawn == '<mark class="x" title="">abcd</mark><mark class="y" title="">ef</mark>'


def test_a_difference_is_by_words() -> None:
    assert differences("melts in July.", "melts in August.") == [
        Piece("same", "melts in "), Piece("gone", "July"), Piece("new", "August"), Piece("same", "."),
    ]  # fmt: skip
    assert difference("a <i>", "a <b>") == "a &lt;<del>i</del><ins>b</ins>&gt;"
    assert differences("", "") == []


def test_long_texts_are_compared_by_lines() -> None:
    old = "\n".join(f"line {number} is here" for number in range(2000))
    pieces = differences(old, old.replace("line 7 is", "line 7 was"))
    assert [piece.kind for piece in pieces] == ["same", "gone", "new", "same"]
    assert pieces[1].text == "line 7 is here\n"


def test_what_the_output_took_is_marked_by_its_marker() -> None:
    passage = "The glacier melts in August. The vault opens at nine."
    output = "The glacier melts in August [1]. The vault opens at nine [2]."
    assert [passage[m.start : m.end] for m in supporting(output, 1, passage)] == [
        "The glacier melts in August."
    ]
    assert [passage[m.start : m.end] for m in supporting(output, 2, passage)] == [
        "The vault opens at nine."
    ]
    assert supporting("Nothing of it is here [1].", 1, passage) == []
