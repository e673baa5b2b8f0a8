from finetune.markers import carried_share, cite, cited, renumber, source

GLACIER = source(1, "The glacier melts in late summer. Its tongue is four kilometres long.")
RIVER = source(3, "The river freezes in January and carries trout.")


def test_each_sentence_gets_the_marker_of_the_passage_that_carries_it() -> None:
    text = "The glacier melts in late summer. The river freezes in January. Penguins bake bread."

    assert cite(text, [GLACIER, RIVER]) == (
        "The glacier melts in late summer. [1] The river freezes in January. [3]"
        " Penguins bake bread."
    )


def test_what_is_cited_already_or_claims_nothing_stays() -> None:
    text = "Yes.\n\nThe glacier melts in late summer [3]."

    assert cite(text, [GLACIER, RIVER]) == text
    assert cite("The glacier melts in late summer.", []) == "The glacier melts in late summer."


def test_markers_are_renumbered_and_unknown_ones_taken_out() -> None:
    assert renumber("Ice melts [3]. It floods [1, 2].", {3: 1}) == "Ice melts [1]. It floods."
    assert renumber("Both [1][2].", {1: 2, 2: 1}) == "Both [2][1]."
    assert renumber("Since [2024] `a[1]`", {1: 5}) == "Since [2024] `a[1]`"


def test_markers_of_all_texts_are_named() -> None:
    assert cited("A [1]. B [2, 4].", "C [7].") == {1, 2, 4, 7}


def test_the_share_of_sentences_that_passages_carry() -> None:
    half = "The glacier melts in late summer. Penguins bake bread daily."

    assert carried_share(half, [GLACIER]) == 0.5
    assert carried_share("The glacier melts in late summer [9].", [GLACIER]) == 1
    assert carried_share("Hello.", [GLACIER]) == 0
    assert carried_share(half, []) == 0
