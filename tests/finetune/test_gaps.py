from datetime import timedelta

import pytest
from django.core.files.base import ContentFile
from django.utils import timezone

from finetune import gaps, triage
from finetune.gaps import GapRefused
from finetune.models import AuditEvent, GapQuestion, KnowledgeGap, TriageItem
from kb.models import Collection, User
from kb.prompts import NOT_IN_DOCUMENTS
from tests.conftest import AddDocument, work_off
from tests.finetune.rated import answer, ask, rate

pytestmark = pytest.mark.django_db
BOAT = "Who pays for the boat to the island?"


@pytest.fixture(autouse=True)
def documents(add_document: AddDocument) -> None:
    add_document("ice.md", "# Ice\n\nThe glacier melts in late summer. Its tongue is long.\n")


def gap_of(user: User, question: str) -> KnowledgeGap:
    message = answer(ask(user, question), NOT_IN_DOCUMENTS, found_nothing=True)
    rate(message, -1)
    triage.collect()
    return named(triage.list_gap(TriageItem.objects.get(message=message), user), user)


def named(gap: KnowledgeGap, user: User) -> KnowledgeGap:
    return KnowledgeGap.objects.named_for(user).get(pk=gap.pk)


def test_questions_that_mean_the_same_are_one_gap(alice: User) -> None:
    gap = gap_of(alice, BOAT)

    assert gap.title == BOAT
    assert gap_of(alice, "Who pays for the boat to the island, and when?") == gap
    assert gap_of(alice, "Which shoes are allowed on the ice?") != gap
    assert gap.questions.count() == 2


def test_a_closed_gap_takes_no_more_questions(alice: User) -> None:
    gap = gap_of(alice, BOAT)
    gaps.close(gap, alice)

    assert gap_of(alice, BOAT) != gap
    gaps.reopen(gap, alice)
    assert gap.state == KnowledgeGap.State.OPEN


def test_gaps_of_different_collections_stay_apart(alice: User) -> None:
    gap = gap_of(alice, BOAT)
    other = Collection.objects.create(name="Elsewhere")
    other.grant(alice, "owner")
    question = ask(alice, BOAT)
    question.conversation.collections.add(other)
    rate(answer(question, NOT_IN_DOCUMENTS, found_nothing=True), -1)
    triage.collect()

    item = TriageItem.objects.get(collection=other)
    assert triage.list_gap(item, alice) != gap


def test_a_vector_of_another_model_is_left_aside(alice: User) -> None:
    gap = gap_of(alice, BOAT)
    GapQuestion.objects.update(vector=[1.0, 0.0])

    assert gap_of(alice, BOAT) != gap


def test_gaps_are_merged_and_split_by_hand(alice: User) -> None:
    one, other = gap_of(alice, BOAT), gap_of(alice, "Which shoes are allowed on the ice?")
    gaps.change(other, alice, title=other.title, note="Ask the guide.", assigned_to=None)

    merged = gaps.merge(other, one, alice)
    assert [q.text for q in merged.questions.order_by("pk")][1].startswith("Which shoes")
    assert merged.note == "Ask the guide."
    assert KnowledgeGap.objects.get() == merged

    made = gaps.split(merged.questions.order_by("pk")[1], alice)
    assert made.title == "Which shoes are allowed on the ice?"
    with pytest.raises(GapRefused, match="only question"):
        gaps.split(made.questions.get(), alice)
    with pytest.raises(GapRefused, match="another gap"):
        gaps.merge(made, made, alice)
    events = AuditEvent.objects.filter(subject_kind="knowledgegap").order_by("pk")
    assert [event.detail["what"] for event in events] == ["changed", "merged", "split"]


def test_a_gap_is_assigned_to_somebody_who_reads_the_collection(
    alice: User, bob: User, charlie: User
) -> None:
    gap = gap_of(alice, BOAT)

    gaps.change(gap, alice, title="The boat", note="", assigned_to=bob)
    assert (gap.state, gap.assigned_to) == (KnowledgeGap.State.ASSIGNED, bob)
    with pytest.raises(GapRefused, match="reads this collection"):
        gaps.change(gap, alice, title="The boat", note="", assigned_to=charlie)
    with pytest.raises(GapRefused, match="title"):
        gaps.change(gap, alice, title=" ", note="", assigned_to=None)
    gap.collection.is_public = True
    assert charlie in gaps.may_see_to(gap)


def test_curators_and_who_added_near_documents_could_answer(
    alice: User, bob: User, charlie: User, collection: Collection
) -> None:
    collection.grant(charlie, "curator")
    collection.add_document(
        ContentFile(b"# Boats\n\nThe boat leaves at nine.\n"), name="boats.md", added_by=bob
    )
    work_off()
    gap = gap_of(alice, BOAT)
    people = gaps.who_could_answer(gap, gaps.near_passages(gap, alice))

    assert {p.user: p.is_curator for p in people} == {alice: True, bob: False, charlie: True}
    assert next(p for p in people if p.user == bob).documents == ["Boats"]


def test_a_later_document_that_answers_suggests_to_close(
    alice: User, add_document: AddDocument
) -> None:
    gap = gap_of(alice, "When does the glacier melt in late summer?")
    assert gaps.answered_by(gap, gaps.near_passages(gap, alice)) is None
    assert not gaps.has_news(gap)
    boat = gap_of(alice, BOAT)

    add_document("boat.md", "# Boat to the island\n\nThe ministry pays for the boat.\n")

    hit = gaps.answered_by(boat, gaps.near_passages(boat, alice))
    assert hit is not None
    assert hit.name == "boat.md"
    assert gaps.has_news(boat)
    assert gaps.answered_by(gap, gaps.near_passages(gap, alice)) is None


def test_a_gap_knows_when_it_was_first_and_last_asked(alice: User) -> None:
    gap = gap_of(alice, BOAT)
    gap_of(alice, BOAT)
    early = timezone.now() - timedelta(days=3)
    first = gap.questions.order_by("pk")[0]
    GapQuestion.objects.filter(pk=first.pk).update(created_at=early)

    assert gaps.asked_between(gap) == (early, gap.questions.order_by("pk")[1].created_at)


def test_only_curators_see_gaps(alice: User, bob: User) -> None:
    gap = gap_of(alice, BOAT)

    assert KnowledgeGap.objects.visible_to(alice).get() == gap
    assert not KnowledgeGap.objects.visible_to(bob)
