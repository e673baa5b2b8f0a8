"""Agreement, checked against values worked out by hand."""

import pytest

from finetune.agreement import Outcome, cohens_kappa, in_twos, in_words, outcome


def said(yes_yes: int, yes_no: int, no_yes: int, no_no: int) -> list[tuple[str, str]]:
    return (
        [("y", "y")] * yes_yes
        + [("y", "n")] * yes_no
        + [("n", "y")] * no_yes
        + [("n", "n")] * no_no
    )


@pytest.mark.parametrize(
    ("table", "kappa"),
    [
        # Observed 35/50, by chance 0.5·0.6 + 0.5·0.4 = 0.5: (0.7 - 0.5) / 0.5.
        ((20, 5, 10, 15), 0.4),
        # Observed 60/100, by chance 0.6·0.7 + 0.4·0.3 = 0.54: 0.06 / 0.46.
        ((45, 15, 25, 15), 0.06 / 0.46),
        # The same share of agreement, other margins: 0.6·0.3 + 0.4·0.7 = 0.46: 0.14 / 0.54.
        ((25, 35, 5, 35), 0.14 / 0.54),
        ((10, 0, 0, 10), 1.0),
        ((0, 10, 10, 0), -1.0),
        ((5, 5, 5, 5), 0.0),
    ],
)
def test_kappa_is_what_a_pencil_gives(table: tuple[int, int, int, int], kappa: float) -> None:
    assert cohens_kappa(said(*table)) == pytest.approx(kappa)


def test_kappa_says_nothing_without_judgements_or_with_only_one_kind() -> None:
    assert cohens_kappa([]) is None
    assert cohens_kappa(said(9, 0, 0, 0)) is None


def test_judgements_are_compared_by_two_people_at_a_time() -> None:
    judgements = [("p", 2, "a"), ("p", 1, "b"), ("p", 3, "b"), ("q", 1, "a"), ("q", 2, "a")]
    assert in_twos(judgements) == {
        (1, 2): [("b", "a"), ("a", "a")],
        (1, 3): [("b", "b")],
        (2, 3): [("a", "b")],
    }


@pytest.mark.parametrize(
    ("approvals", "rejections", "wanted", "decided"),
    [
        (0, 0, 1, Outcome.OPEN),
        (1, 0, 1, Outcome.APPROVED),
        (0, 1, 1, Outcome.REJECTED),
        (1, 0, 2, Outcome.OPEN),
        (0, 1, 2, Outcome.OPEN),
        (2, 0, 2, Outcome.APPROVED),
        (0, 2, 2, Outcome.REJECTED),
        (1, 1, 2, Outcome.DISPUTED),
        (2, 1, 2, Outcome.APPROVED),
        (1, 2, 2, Outcome.REJECTED),
        (2, 1, 3, Outcome.DISPUTED),
        (2, 2, 3, Outcome.DISPUTED),
        (3, 1, 3, Outcome.APPROVED),
    ],
)
def test_people_who_agree_decide_and_else_one_more(
    approvals: int, rejections: int, wanted: int, decided: Outcome
) -> None:
    assert outcome(approvals, rejections, wanted) == decided


def test_a_kappa_has_a_word() -> None:
    assert [in_words(k) for k in (-0.1, 0.1, 0.3, 0.5, 0.7, 0.9)] == [
        "none", "slight", "fair", "moderate", "substantial", "almost perfect",
    ]  # fmt: skip
