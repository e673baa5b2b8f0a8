"""Judging pairs: one at a time, by as many people as the data set wants, and taking it back."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from finetune import curation
from finetune.curation import CurationRefused
from finetune.models import AuditEvent, Dataset, InstructionPair, PairSource, Review
from kb.models import Chunk, Collection, Document, User

pytestmark = pytest.mark.django_db
State = InstructionPair.State
CONTENT = {"instruction": "When does the glacier melt?", "output": "In August [1]."}


@pytest.fixture
def curators(collection: Collection, alice: User) -> list[User]:
    """Alice and two more who curate the collection."""
    people = [alice]
    for name in ("dora", "emil"):
        person = User.objects.create_user(name, f"{name}@example.org", "x")
        collection.grant(person, "curator")
        people.append(person)
    return people


def actions(pair: InstructionPair) -> list[str]:
    events = AuditEvent.objects.filter(subject_kind="instructionpair", subject_id=pair.pk)
    return list(events.order_by("pk").values_list("action", flat=True))


# --- Writing ---


def test_a_pair_is_written_with_its_sources_and_measured(
    dataset: Dataset, alice: User, add_document: Callable[..., Document]
) -> None:
    add_document("ice.md", "# Ice\n\nThe glacier melts in August.")
    chunk = Chunk.objects.select_related("document", "version").get()
    made = curation.create_pair(
        alice, dataset, origin="typed", content=CONTENT,
        sources=[curation.source_of_chunk(chunk, 1)],
    )  # fmt: skip
    source = made.sources.get()
    assert (source.text, source.document_key) == (chunk.text, chunk.document_id)
    assert (made.state, made.author, made.collection) == ("suggested", alice, dataset.collection)
    assert made.support == 1.0
    assert made.word_count > 5
    assert made.content_hash
    assert actions(made) == ["created"]


def test_the_same_origin_makes_one_pair(dataset: Dataset, alice: User) -> None:
    made = [
        curation.create_pair(alice, dataset, origin="answer", content=CONTENT, origin_key="m1")
        for _ in range(2)
    ]
    assert made[0] == made[1]


def test_a_pair_needs_words_and_readable_passages(
    dataset: Dataset, alice: User, add_document: Callable[..., Document]
) -> None:
    with pytest.raises(CurationRefused, match="instruction"):
        curation.create_pair(alice, dataset, origin="typed", content={"output": "x"})
    with pytest.raises(CurationRefused, match="output"):
        curation.create_pair(alice, dataset, origin="typed", content={"instruction": "x"})
    closed = Collection.objects.create(name="Closed")
    add_document("secret.md", "The vault opens at nine.", to=closed)
    chunk = Chunk.objects.select_related("document", "version").get()
    with pytest.raises(CurationRefused, match="may not read"):
        curation.create_pair(
            alice, dataset, origin="typed", content=CONTENT,
            sources=[curation.source_of_chunk(chunk, 1)],
        )  # fmt: skip


# --- Judging ---


def test_one_judgement_decides_where_one_is_wanted(pair: InstructionPair, alice: User) -> None:
    approved = curation.approve(pair, alice, seconds=4.5)
    assert (approved.state, approved.reviewer) == ("approved", alice)
    review = approved.reviews.get()
    assert (review.verdict, review.seconds, review.was_edited) == ("approve", 4.5, False)
    assert actions(pair) == ["approved"]
    with pytest.raises(CurationRefused, match="decided"):
        curation.reject(pair, alice, "no")


def test_a_rejection_needs_a_reason(pair: InstructionPair, alice: User) -> None:
    with pytest.raises(CurationRefused, match="why"):
        curation.reject(pair, alice, "  ")
    rejected = curation.reject(pair, alice, "wrong")
    assert (rejected.state, rejected.reject_reason) == ("rejected", "wrong")


def test_an_edit_keeps_what_stood_before_and_is_measured_again(
    pair: InstructionPair, alice: User
) -> None:
    old_hash = pair.content_hash
    approved = curation.approve(pair, alice, content={"output": "In September."})
    review = approved.reviews.get()
    assert (review.before["output"], review.after["output"]) == ("In August.", "In September.")
    assert review.was_edited
    assert approved.content_hash != old_hash


def test_two_who_agree_decide_where_two_are_wanted(
    pair: InstructionPair, curators: list[User]
) -> None:
    Dataset.objects.update(reviews_wanted=2)
    alice, dora, _ = curators
    assert curation.approve(pair, alice).state == "suggested"
    with pytest.raises(CurationRefused, match="already"):
        curation.approve(pair, alice)
    assert curation.approve(pair, dora).state == "approved"


def test_a_third_person_decides_a_dispute(pair: InstructionPair, curators: list[User]) -> None:
    Dataset.objects.update(reviews_wanted=2)
    alice, dora, emil = curators
    curation.approve(pair, alice)
    disputed = curation.reject(pair, dora, "wrong")
    assert (disputed.state, disputed.is_disputed) == ("suggested", True)
    assert curation.claim_next(pair.dataset, alice) is None
    assert curation.claim_next(pair.dataset, emil) == pair
    decided = curation.reject(pair, emil, "not in the passage")
    assert (decided.state, decided.is_disputed, decided.reviewer) == ("rejected", False, emil)


def test_an_edit_voids_what_others_said_of_the_text_before(
    pair: InstructionPair, curators: list[User]
) -> None:
    Dataset.objects.update(reviews_wanted=2)
    alice, dora, _ = curators
    curation.approve(pair, alice)
    edited = curation.approve(pair, dora, content={"output": "In late August."})
    assert edited.state == "suggested"
    assert curation.claim_next(pair.dataset, alice) == pair
    assert curation.approve(pair, alice).state == "approved"


# --- Taking back ---


def test_undo_takes_back_the_last_judgement_with_its_edit(
    pair: InstructionPair, curators: list[User]
) -> None:
    Dataset.objects.update(reviews_wanted=2)
    alice, dora, _ = curators
    curation.approve(pair, alice)
    curation.approve(pair, dora, content={"output": "In late August."})
    taken_back = curation.undo(dora, pair.dataset)
    assert taken_back is not None
    assert (taken_back.output, taken_back.state) == ("In August.", "suggested")
    assert taken_back.claimed_by == dora
    # What Alice said of the first text stands again.
    assert curation.approve(pair, dora).state == "approved"
    assert actions(pair) == ["approved", "approved", "undone", "approved"]


def test_undo_opens_a_decided_pair_and_then_has_nothing_left(
    pair: InstructionPair, alice: User
) -> None:
    curation.reject(pair, alice, "wrong")
    taken_back = curation.undo(alice, pair.dataset)
    assert taken_back is not None
    assert (taken_back.state, taken_back.reviewer, taken_back.reject_reason) == (
        "suggested", None, "",
    )  # fmt: skip
    assert curation.undo(alice, pair.dataset) is None


def test_nobody_undoes_for_others_or_what_was_opened_again(
    pair: InstructionPair, curators: list[User]
) -> None:
    alice, dora, _ = curators
    curation.approve(pair, alice)
    assert curation.undo(dora, pair.dataset) is None
    curation.reopen(pair, dora)
    assert curation.undo(alice, pair.dataset) is None


# --- Editing, opening again, deleting ---


def test_editing_a_decided_pair_opens_it(pair: InstructionPair, alice: User) -> None:
    curation.approve(pair, alice)
    edited = curation.edit(pair, alice, {"output": "In July."})
    assert (edited.state, edited.round) == ("suggested", 2)
    event = AuditEvent.objects.filter(action="edited").get()
    assert event.detail == {"before": {"output": "In August."}, "after": {"output": "In July."}}
    assert curation.approve(pair, alice).state == "approved"


def test_tags_change_without_a_new_judgement(pair: InstructionPair, alice: User) -> None:
    curation.approve(pair, alice)
    assert curation.edit(pair, alice, {"tags": ["ice"]}).state == "approved"
    assert curation.tag(pair, alice, ["ice", "snow"]).tags == ["ice", "snow"]


def test_deleting_leaves_a_line_in_the_log(pair: InstructionPair, alice: User) -> None:
    key = pair.pk
    curation.delete(pair, alice)
    event = AuditEvent.objects.get(action="deleted")
    assert (event.subject_id, event.detail["snapshots"]) == (key, [])


# --- Claiming ---


def more(pair: InstructionPair, count: int) -> list[InstructionPair]:
    rows: list[dict[str, Any]] = [
        {"instruction": f"Question {number}?", "priority": number} for number in range(count)
    ]
    return InstructionPair.objects.bulk_create(
        InstructionPair(
            dataset=pair.dataset, collection=pair.collection, origin="typed", output="Yes.",
            content_hash=str(row["priority"]), **row,
        )
        for row in rows
    )  # fmt: skip


def test_the_most_urgent_comes_first_and_to_one_person_only(
    pair: InstructionPair, curators: list[User]
) -> None:
    made = more(pair, 3)
    alice, dora, _ = curators
    assert curation.claim_next(pair.dataset, alice) == made[2]
    assert curation.claim_next(pair.dataset, dora) == made[1]
    with pytest.raises(CurationRefused, match="Somebody else"):
        curation.approve(made[2], dora)
    assert not curation.claim(made[2], dora)
    curation.release(dora, [made[2].pk])
    assert not curation.claim(made[2], dora)
    curation.release(alice, [made[2].pk])
    assert curation.claim_next(pair.dataset, dora) == made[2]


def test_a_claim_runs_out(pair: InstructionPair, curators: list[User]) -> None:
    alice, dora, _ = curators
    assert curation.claim_next(pair.dataset, alice) == pair
    assert curation.claim_next(pair.dataset, dora) is None
    InstructionPair.objects.update(claimed_until=timezone.now() - timedelta(seconds=1))
    assert curation.claim_next(pair.dataset, dora) == pair


def test_similar_words_come_next(pair: InstructionPair, alice: User, dataset: Dataset) -> None:
    asked = ["When does the glacier melt in summer?", "Who keeps the vault?", "How deep is it?"]
    made = [
        curation.create_pair(
            alice, dataset, origin="typed",
            content={"instruction": text, "output": "Nobody has measured the ice so far."},
        )
        for text in asked
    ]  # fmt: skip
    InstructionPair.objects.filter(pk=made[1].pk).update(bands=[1, 2, 3], priority=9)
    InstructionPair.objects.filter(pk=made[2].pk).update(bands=[7, 8, 9])
    like = made[0]
    like.bands = [7, 8, 1]
    assert curation.claim_next(dataset, alice, like=like) == made[2]
    assert curation.claim_next(dataset, alice, like=like) == made[1]
    assert curation.claim_next(dataset, alice, like=like) is None


@pytest.mark.django_db(transaction=True)
def test_many_at_once_never_get_the_same_pair(pair: InstructionPair, curators: list[User]) -> None:
    more(pair, 59)
    got: list[int] = []

    def take(person: User) -> None:
        try:
            while claimed := curation.claim_next(pair.dataset, person):
                got.append(claimed.pk)
        finally:
            connection.close()

    threads = [threading.Thread(target=take, args=(person,)) for person in curators * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == len(set(got)) == 60


def test_a_pair_whose_source_is_closed_is_never_handed_out(
    pair: InstructionPair, alice: User
) -> None:
    PairSource.objects.create(
        pair=pair, marker=1, collection=Collection.objects.create(name="Closed"),
        document_name="a", document_key=1, title="A", start=0, end=1, text="a",
    )  # fmt: skip
    assert curation.claim_next(pair.dataset, alice) is None
    assert Review.objects.count() == 0
