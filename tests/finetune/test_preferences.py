import pytest

from finetune import preferences, triage
from finetune.models import InstructionPair, TriageItem
from kb.models import Collection, Document, Message, User
from tests.conftest import AddDocument
from tests.finetune.rated import answer, ask, rate

pytestmark = pytest.mark.django_db


@pytest.fixture
def ice(add_document: AddDocument) -> Document:
    return add_document("ice.md", "# Ice\n\nThe glacier melts in late summer.\n")


@pytest.fixture
def river(add_document: AddDocument) -> Document:
    return add_document("river.md", "# River\n\nThe river freezes in January.\n")


@pytest.fixture
def question(alice: User) -> Message:
    return ask(alice)


def pairs() -> list[InstructionPair]:
    triage.collect()
    return list(InstructionPair.objects.filter(origin="preference").order_by("pk"))


def test_right_beside_wrong_becomes_a_preference_pair(question: Message, ice: Document) -> None:
    wrong = answer(question, "In winter. [1]", ice)
    right = answer(question, "In late summer. [1]", ice)
    rate(wrong, -1)
    rate(right, 1)

    (pair,) = pairs()

    assert (pair.instruction, pair.output) == (question.text, "In late summer. [1]")
    assert pair.rejected == "In winter. [1]"
    assert pair.state == InstructionPair.State.SUGGESTED
    assert (pair.message, pair.dataset.name) == (right, preferences.DATASET)
    source = pair.sources.get()
    assert (source.document, source.version) == (ice, ice.current_version)
    assert ice.current_version.text[source.start : source.end] == source.text
    assert pairs() == [pair]


def test_an_answer_asked_for_again_and_rated_right_is_preferred(
    question: Message, ice: Document
) -> None:
    answer(question, "In spring. [1]", ice)
    answer(question, "In winter. [1]", ice)
    rate(answer(question, "In late summer. [1]", ice), 1)

    assert [pair.rejected for pair in pairs()] == ["In winter. [1]"]


def test_the_rating_that_comes_last_completes_the_pair(question: Message, ice: Document) -> None:
    right = answer(question, "In late summer. [1]", ice)
    rate(right, 1)
    assert pairs() == []
    rate(answer(question, "In winter. [1]", ice), -1)

    (pair,) = pairs()
    assert pair.message == right


@pytest.mark.parametrize("rating", [None, -1])
def test_without_a_word_for_one_of_them_nothing_is_preferred(
    question: Message, ice: Document, rating: int | None
) -> None:
    first = answer(question, "In spring. [1]", ice)
    answer(question, "In winter. [1]", ice)
    if rating:
        rate(first, rating)

    assert pairs() == []


def test_two_right_answers_are_no_choice(question: Message, ice: Document) -> None:
    rate(answer(question, "In spring. [1]", ice), 1)
    rate(answer(question, "In late summer. [1]", ice), 1)

    assert pairs() == []


@pytest.mark.parametrize("state", ["failed", "stopped", "pending"])
def test_a_broken_answer_is_not_turned_down(question: Message, ice: Document, state: str) -> None:
    answer(question, "In win", ice, state=state)
    rate(answer(question, "In late summer. [1]", ice), 1)

    assert pairs() == []


def test_answers_that_say_the_same_are_no_choice(question: Message, ice: Document) -> None:
    rate(answer(question, "In late summer. [1]", ice), -1)
    rate(answer(question, "In  late summer. [1]", ice), 1)

    assert pairs() == []


def test_markers_name_the_same_passages_in_both_answers(
    question: Message, ice: Document, river: Document
) -> None:
    rate(answer(question, "It freezes. [1] It melts. [2]", river, ice, cites=(1, 2)), -1)
    rate(answer(question, "It melts in late summer. [2]", river, ice, cites=(2,)), 1)
    rate(answer(question, "Never. [1]", river), -1)

    both, other = sorted(pairs(), key=lambda pair: -len(pair.rejected))
    assert (both.output, both.rejected) == (
        "It melts in late summer. [2]",
        "It freezes. [1] It melts. [2]",
    )
    assert [s.document for s in both.sources.order_by("marker")] == [river, ice]
    assert other.rejected == "Never. [1]"


def test_to_say_that_nothing_is_there_can_be_the_better_answer(
    question: Message, ice: Document
) -> None:
    rate(answer(question, "In winter. [1]", ice), -1)
    rate(answer(question, "The documents do not contain an answer to this question.", ice, cites=(),
                found_nothing=True), 1)  # fmt: skip

    (pair,) = pairs()
    assert pair.sources.get().is_distractor


def test_a_pair_deleted_by_a_curator_does_not_come_back(question: Message, ice: Document) -> None:
    rate(answer(question, "In winter. [1]", ice), -1)
    rate(answer(question, "In late summer. [1]", ice), 1)
    pairs()[0].delete()

    assert pairs() == []
    assert TriageItem.objects.count() == 2


@pytest.fixture
def merger(add_document: AddDocument, alice: User) -> Document:
    """A document of a collection that alice may read and bob may not."""
    closed = Collection.objects.create(name="Closed")
    closed.grant(alice, "owner")
    return add_document("merger.md", "# Merger\n\nThe merger is on Friday.\n", to=closed)


def test_both_answers_keep_their_passages(
    question: Message, ice: Document, river: Document, merger: Document
) -> None:
    rate(answer(question, "It is cold [1]. The merger is on Friday [2].", river, merger,
                cites=(1, 2)), -1)  # fmt: skip
    rate(answer(question, "In late summer. [1]", ice), 1)

    (pair,) = pairs()

    assert pair.output == "In late summer. [1]"
    assert pair.rejected == "It is cold [2]. The merger is on Friday [3]."
    sources = pair.sources.order_by("marker")
    assert [s.document for s in sources] == [ice, river, merger]
    assert not any(source.is_distractor for source in sources)


@pytest.mark.parametrize("cites", [(1,), ()])
def test_a_turned_down_answer_shows_nothing_of_a_closed_collection(
    question: Message,
    ice: Document,
    merger: Document,
    alice: User,
    bob: User,
    cites: tuple[int, ...],
) -> None:
    ice.collection.grant(bob, "curator")
    mark = " [1]" if cites else ""
    rate(answer(question, f"The merger is on Friday{mark}.", merger, cites=cites), -1)
    rate(answer(question, "In late summer. [1]", ice), 1)

    (pair,) = pairs()

    assert "merger" in pair.rejected
    assert InstructionPair.objects.visible_to(alice).get() == pair
    assert not InstructionPair.objects.visible_to(bob).exists()


def test_a_chosen_answer_shows_nothing_of_a_closed_collection_that_it_does_not_cite(
    question: Message, ice: Document, merger: Document, bob: User
) -> None:
    ice.collection.grant(bob, "curator")
    rate(answer(question, "In winter. [1]", ice), -1)
    rate(answer(question, "Late in summer [1]. The merger is on Friday.", ice, merger), 1)

    (pair,) = pairs()

    assert [s.is_distractor for s in pair.sources.order_by("marker")] == [False, True]
    assert not InstructionPair.objects.visible_to(bob).exists()
