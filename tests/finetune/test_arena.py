"""Blind votes: what is shown, what counts, and how a judge compares with people."""

import pytest

from finetune import arena, evaluation
from finetune.models import Adapter, ArenaVote, Dataset
from kb.models import User
from tests.finetune.answered import adapter_of, answered

pytestmark = pytest.mark.django_db


@pytest.fixture
def adapter(dataset: Dataset) -> Adapter:
    found = adapter_of(dataset)
    made = answered(found)
    for base, own in evaluation.both_answers(made):
        own.scores["judge"] = "base" if base.position == 0 else "adapter"
        own.save()
    return found


def vote_for(shown: ArenaVote, winner: str, voter: User) -> None:
    side = "left" if shown.adapter_is_left == (winner == "adapter") else "right"
    assert arena.vote(shown.pk, winner if winner in ("tie", "neither") else side, voter)


def test_each_question_is_shown_once_and_a_shown_one_comes_again(
    adapter: Adapter, bob: User
) -> None:
    first = arena.draw(adapter, bob)
    assert first is not None
    assert arena.draw(adapter, bob) == first
    seen = set()
    while shown := arena.draw(adapter, bob):
        seen.add(shown.question)
        own = shown.left if shown.adapter_is_left else shown.right
        assert "is red" in own
        vote_for(shown, "adapter", bob)
    assert len(seen) == 8
    tally = arena.tally(adapter)
    assert (tally.adapter, tally.base, tally.total) == (8, 0, 8)
    assert (tally.preferred.value, tally.preferred.high) == (1, 1)
    assert tally.preferred.low == pytest.approx(0.6756, abs=1e-3)


def test_sides_are_drawn(adapter: Adapter, bob: User, alice: User, charlie: User) -> None:
    sides = []
    for voter in (alice, bob, charlie):
        while shown := arena.draw(adapter, voter):
            sides.append(shown.adapter_is_left)
            vote_for(shown, "tie", voter)
    assert 2 <= sum(sides) <= 22  # of 24: outside once in 87,000 runs


def test_a_vote_counts_once_and_only_from_whom_it_was_shown_to(
    adapter: Adapter, alice: User, bob: User
) -> None:
    shown = arena.draw(adapter, bob)
    assert shown is not None
    assert arena.vote(shown.pk, "left", alice) is None
    assert arena.vote(shown.pk, "best", bob) is None
    assert arena.vote(shown.pk, "left", bob) is not None
    assert arena.vote(shown.pk, "right", bob) is None


def test_the_judge_is_held_against_people(adapter: Adapter, bob: User) -> None:
    """People and judge agree on all but one of eight."""
    while shown := arena.draw(adapter, bob):
        vote_for(shown, "adapter", bob)
    votes = list(ArenaVote.objects.values_list("verdict", "judge_verdict"))
    assert sum(verdict == judge for verdict, judge in votes) == 7
    tally = arena.tally(adapter)
    assert tally.judged == 8
    assert tally.kappa is not None
    assert tally.kappa < 1


def test_without_an_evaluation_there_is_nothing_to_show(dataset: Dataset, bob: User) -> None:
    assert arena.draw(adapter_of(dataset), bob) is None
    assert arena.tally(adapter_of(dataset, "notes-v2-0000000b")).kappa is None
