import pytest

from finetune import curation, triage
from finetune.models import (
    AuditEvent,
    Dataset,
    InstructionPair,
    KnowledgeGap,
    RetrievalQuestion,
    TriageItem,
)
from finetune.triage import TriageRefused
from kb.models import Collection, Conversation, Document, Message, User
from kb.prompts import NOT_IN_DOCUMENTS
from tests.conftest import AddDocument
from tests.finetune.rated import QUESTION, answer, ask, rate

pytestmark = pytest.mark.django_db
Category, Signal = TriageItem.Category, TriageItem.Signal


@pytest.fixture
def ice(add_document: AddDocument) -> Document:
    return add_document(
        "ice.md", "# Ice\n\nThe glacier melts in late summer. Its tongue is long.\n"
    )


@pytest.fixture
def river(add_document: AddDocument) -> Document:
    return add_document("river.md", "# River\n\nThe river freezes in January.\n")


@pytest.fixture
def question(alice: User) -> Message:
    return ask(alice)


def item_of(message: Message, value: int = -1, **rating: str) -> TriageItem:
    rate(message, value, **rating)
    triage.collect()
    return TriageItem.objects.get(message=message)


def test_only_what_a_person_rated_comes_in(question: Message, ice: Document) -> None:
    answer(question, "In winter. [1]", ice)
    assert triage.collect() == 0
    rated = answer(question, "In spring. [1]", ice)
    rate(rated, -1, reason="It is wrong")

    assert triage.collect() == 1
    assert triage.collect() == 0
    item = TriageItem.objects.get()
    assert (item.message, item.question, item.reason) == (rated, QUESTION, "It is wrong")
    assert (item.signal, item.collection) == (Signal.DOWN, ice.collection)


def test_a_changed_rating_replaces_its_item(question: Message, ice: Document) -> None:
    message = answer(question, "In winter. [1]", ice)
    assert item_of(message).signal == Signal.DOWN
    assert item_of(message, corrected="In late summer.").signal == Signal.CORRECTED
    assert item_of(message, 1).signal == Signal.UP
    assert item_of(message, -1).signal == Signal.DOWN
    assert TriageItem.objects.count() == 1


def test_a_rating_taken_back_takes_its_item_away(question: Message, ice: Document) -> None:
    message = answer(question, "In winter. [1]", ice)
    item_of(message)
    message.feedback.all().delete()
    triage.collect()

    assert not TriageItem.objects.exists()


def test_curators_see_an_item_and_readers_do_not(
    question: Message, ice: Document, alice: User, bob: User, charlie: User
) -> None:
    item = item_of(answer(question, "In winter. [1]", ice))

    assert TriageItem.objects.visible_to(alice).get() == item
    assert not TriageItem.objects.visible_to(bob)
    assert not TriageItem.objects.visible_to(charlie)


def test_an_answer_with_a_passage_that_a_curator_may_not_read_is_hidden(
    add_document: AddDocument, ice: Document, alice: User, bob: User
) -> None:
    closed = Collection.objects.create(name="Closed")
    closed.grant(bob, "owner")
    other = add_document("other.md", "# Other\n\nSomething else entirely.\n", to=closed)
    item = item_of(answer(ask(bob), "In winter. [1]", ice, other))

    assert item.collection == ice.collection
    assert not TriageItem.objects.visible_to(alice)
    message = answer(ask(bob), NOT_IN_DOCUMENTS, ice, other, cites=(), found_nothing=True)
    nothing = item_of(message)
    assert TriageItem.objects.visible_to(alice).get() == nothing
    assert [one.document for one in triage.passages_of(nothing, alice)] == [ice]


@pytest.mark.parametrize("is_rated_first", [True, False])
def test_an_answer_stays_hidden_when_a_collection_of_its_passages_is_deleted(
    add_document: AddDocument, ice: Document, alice: User, bob: User, is_rated_first: bool
) -> None:
    closed = Collection.objects.create(name="Closed")
    closed.grant(bob, "owner")
    other = add_document("other.md", "# Other\n\nSomething else entirely.\n", to=closed)
    message = answer(ask(bob), "In winter. [1]", ice, other)
    if is_rated_first:
        item_of(message)
    other.delete()
    closed.delete()
    item = item_of(message)

    assert item.has_lost_sources
    assert not TriageItem.objects.visible_to(alice)
    alice.is_superuser = True
    assert TriageItem.objects.visible_to(alice).get() == item
    pair = triage.draft_pair(item, alice, Dataset.objects.create(collection=item.collection))
    alice.is_superuser = False
    assert not InstructionPair.objects.visible_to(alice).filter(pk=pair.pk)
    nothing = answer(ask(bob), NOT_IN_DOCUMENTS, ice, cites=(), found_nothing=True)
    nothing.citations.update(collection=None)
    assert item_of(nothing) in TriageItem.objects.visible_to(alice)


def test_an_answer_without_passages_belongs_to_what_was_asked(
    question: Message, collection: Collection, alice: User, charlie: User
) -> None:
    other = Collection.objects.create(name="Another")
    other.grant(alice, "reader")
    question.conversation.collections.add(other)
    assert item_of(answer(question, NOT_IN_DOCUMENTS, found_nothing=True)).collection == other
    rate(answer(ask(charlie), NOT_IN_DOCUMENTS, found_nothing=True), -1)
    assert triage.collect() == 0


@pytest.mark.parametrize(
    ("corrected", "guess"),
    [
        ("It melts in late summer.", Category.WRONG_ANSWER),
        ("The river freezes in January.", Category.NOT_FOUND),
        ("Penguins bake bread on Tuesdays.", Category.NO_DOCUMENT),
    ],
)
def test_a_correction_says_what_went_wrong(
    question: Message, ice: Document, river: Document, corrected: str, guess: str
) -> None:
    assert item_of(answer(question, "In winter. [1]", ice), corrected=corrected).guess == guess


def test_without_a_correction_scores_and_support_say_it(question: Message, ice: Document) -> None:
    good, bad = {"supported": True}, {"supported": False}

    def guess(text: str, *support: dict[str, bool], score: float, **fields: object) -> str:
        trace = {"answerable": {"answerable": score >= 0.45, "score": score}}
        message = answer(
            ask(question.conversation.user), text, ice, trace=trace, support=list(support), **fields
        )
        return item_of(message).guess

    assert guess("Wrong.", bad, bad, good, score=0.9) == Category.WRONG_ANSWER
    assert guess("Off.", good, score=0.5) == Category.NOT_FOUND
    assert guess("Hm.", good, score=0.9) == Category.WRONG_ANSWER
    assert guess(NOT_IN_DOCUMENTS, score=0.2, found_nothing=True) == Category.NO_DOCUMENT
    assert guess(NOT_IN_DOCUMENTS, score=0.8, found_nothing=True) == Category.WRONG_ANSWER


def test_a_correction_becomes_a_pair_with_its_cited_passages(
    question: Message, ice: Document, river: Document, dataset: Dataset, alice: User
) -> None:
    message = answer(question, "In winter. [2]", river, ice, cites=(2,))
    item = item_of(message, corrected="The glacier melts in late summer.")

    pair = triage.draft_pair(item, alice, dataset)

    assert (pair.instruction, pair.origin, pair.state) == (QUESTION, "answer", "suggested")
    assert pair.output == "The glacier melts in late summer. [1]"
    assert pair.rejected == "In winter. [1]"
    assert (pair.message, pair.author) == (message, alice)
    assert pair.support == 1
    source = pair.sources.get()
    assert (source.document, source.version_number, source.score) == (ice, 1, 0.9)
    assert ice.current_version.text[source.start : source.end] == source.text
    item.refresh_from_db()
    assert (item.state, item.category, item.pair) == ("done", Category.WRONG_ANSWER, pair)
    event = AuditEvent.objects.get(subject_kind="triageitem")
    assert (event.action, event.detail["pair"]) == ("triaged", pair.pk)


def test_the_curator_may_word_it_and_add_the_right_passage(
    question: Message, ice: Document, river: Document, dataset: Dataset, alice: User
) -> None:
    item = item_of(answer(question, "In winter. [1]", river))

    pair = triage.draft_pair(
        item, alice, dataset, output="It melts in late summer.", chunk=ice.chunks.get()
    )

    assert (pair.output, pair.rejected) == ("It melts in late summer. [1]", "In winter. [2]")
    assert [s.document for s in pair.sources.order_by("marker")] == [ice, river]
    item.refresh_from_db()
    assert item.category == Category.NOT_FOUND


def test_a_wrong_answer_alone_says_what_not_to_answer(
    question: Message, ice: Document, dataset: Dataset, alice: User
) -> None:
    pair = triage.draft_pair(item_of(answer(question, "In winter. [1]", ice)), alice, dataset)

    assert (pair.output, pair.rejected) == ("", "In winter. [1]")


def test_a_correction_that_only_adds_or_leaves_out_markers_rejects_nothing(
    question: Message, ice: Document, dataset: Dataset, alice: User
) -> None:
    text = "The glacier melts in late summer."
    item = item_of(answer(question, f"{text} [1]", ice), corrected=text)

    pair = triage.draft_pair(item, alice, dataset)
    assert (pair.output, pair.rejected) == (f"{text} [1]", "")


def test_an_answer_rated_right_becomes_a_pair_when_a_curator_wants_it(
    question: Message, ice: Document, dataset: Dataset, alice: User
) -> None:
    item = item_of(answer(question, "The glacier melts in late summer. [1]", ice), 1)
    assert not TriageItem.objects.to_sort()

    pair = triage.draft_pair(item, alice, dataset)

    assert (pair.output, pair.rejected) == ("The glacier melts in late summer. [1]", "")


def test_a_pair_is_as_closed_as_the_passages_of_its_answer(
    question: Message, ice: Document, alice: User, bob: User, add_document: AddDocument
) -> None:
    closed = Collection.objects.create(name="Closed")
    closed.grant(alice, "owner")
    ice.collection.grant(bob, "curator")
    merger = add_document("merger.md", "# Merger\n\nThe merger is on Friday.\n", to=closed)
    # It repeats what it was offered and does not say from where.
    message = answer(question, "In winter [1]. The merger is on Friday.", ice, merger)
    item = item_of(message, corrected="It melts in late summer.")

    pair = triage.draft_pair(item, alice, Dataset.objects.create(collection=item.collection))

    assert [s.is_distractor for s in pair.sources.order_by("marker")] == [False, True]
    assert not InstructionPair.objects.visible_to(bob).exists()


def test_a_right_not_in_the_documents_becomes_an_abstention(
    question: Message, ice: Document, dataset: Dataset, alice: User
) -> None:
    message = answer(question, NOT_IN_DOCUMENTS, ice, cites=(), found_nothing=True)

    pair = triage.draft_pair(item_of(message, 1), alice, dataset)

    assert (pair.origin, pair.output, pair.rejected) == ("abstention", NOT_IN_DOCUMENTS, "")
    assert pair.sources.get().is_distractor
    assert "refusal" not in pair.flags


def test_the_right_passage_is_kept_to_measure_search_by(
    question: Message, ice: Document, river: Document, alice: User
) -> None:
    item = item_of(answer(question, "In winter. [1]", river))
    chunk = ice.chunks.get()

    saved = triage.save_question(item, alice, chunk)

    assert (saved.question, saved.document, saved.version) == (QUESTION, ice, ice.current_version)
    assert (saved.start, saved.end, saved.text) == (chunk.start, chunk.end, chunk.text)
    item.refresh_from_db()
    assert (item.state, item.category) == ("done", Category.NOT_FOUND)


def test_a_follow_up_is_kept_with_what_it_was_searched_by(
    alice: User, ice: Document, river: Document
) -> None:
    trace = {"queries": ["When does it freeze? river"], "answerable": {"answerable": True}}
    item = item_of(answer(ask(alice, "When does it freeze?"), "Never. [1]", ice, trace=trace))

    assert triage.save_question(item, alice, river.chunks.get()).question == trace["queries"][0]
    triage.undo(alice)
    assert triage.list_gap(item, alice).title == trace["queries"][0]


def test_nothing_is_sorted_twice(
    question: Message, ice: Document, dataset: Dataset, alice: User
) -> None:
    item = item_of(answer(question, "In winter. [1]", ice))
    triage.dismiss(item, alice)

    with pytest.raises(TriageRefused, match="sorted this"):
        triage.draft_pair(item, alice, dataset)
    assert not InstructionPair.objects.exists()


def test_a_pair_goes_into_a_data_set_of_the_collection(
    question: Message, ice: Document, alice: User
) -> None:
    foreign = Dataset.objects.create(
        collection=Collection.objects.create(name="Other"), name="Foreign"
    )
    with pytest.raises(TriageRefused, match="data set of the collection"):
        triage.draft_pair(item_of(answer(question, "In winter. [1]", ice)), alice, foreign)


def test_undo_takes_back_what_the_last_decision_made(
    question: Message, ice: Document, dataset: Dataset, alice: User, bob: User
) -> None:
    first = item_of(answer(question, "In winter. [1]", ice))
    second = item_of(answer(ask(alice), "In spring. [1]", ice))
    third = item_of(answer(ask(alice, "Who pays for the boat?"), "Nobody. [1]", ice))
    triage.draft_pair(first, alice, dataset)
    triage.save_question(second, alice, ice.chunks.get())
    triage.list_gap(third, alice)
    assert KnowledgeGap.objects.count() == 1
    assert triage.undo(bob) is None

    assert triage.undo(alice) == third
    assert not KnowledgeGap.objects.exists()
    assert triage.undo(alice) == second
    assert not RetrievalQuestion.objects.exists()
    assert triage.undo(alice) == first
    assert not InstructionPair.objects.exists()
    assert triage.undo(alice) is None
    assert TriageItem.objects.to_sort().count() == 3
    triage.draft_pair(first, alice, dataset)


def test_a_judged_pair_is_not_taken_back(
    question: Message, ice: Document, dataset: Dataset, alice: User
) -> None:
    item = item_of(answer(question, "In winter. [1]", ice), corrected="In late summer.")
    curation.approve(triage.draft_pair(item, alice, dataset), alice)

    with pytest.raises(TriageRefused, match="judged"):
        triage.undo(alice)
    assert InstructionPair.objects.approved().exists()


def test_an_item_goes_with_its_conversation(question: Message, ice: Document) -> None:
    item_of(answer(question, "In winter. [1]", ice))
    Conversation.objects.all().delete()

    assert not TriageItem.objects.exists()
