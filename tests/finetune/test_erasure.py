"""What learned from a document or a person is found, turned stale and marked."""

import pytest

from finetune import activation, erasure
from finetune.models import (
    Adapter,
    ArenaVote,
    AuditEvent,
    Dataset,
    Evaluation,
    EvaluationItem,
    InstructionPair,
    TrainingRun,
)
from kb.models import Collection, Job, User
from tests.conftest import AddDocument
from tests.finetune import rated
from tests.finetune.test_snapshots import freeze, write_pair

pytestmark = pytest.mark.django_db


def register(run: TrainingRun, name: str) -> Adapter:
    adapter = Adapter.objects.create(run=run, name=name, audience_size=1)
    adapter.audience.add(run.snapshot.dataset.collection)
    return adapter


@pytest.fixture
def learned(dataset: Dataset, collection: Collection, alice: User) -> Adapter:
    """An adapter of two documents, 7 and 8; everything is in the train part."""
    for number in range(6):
        write_pair(
            dataset, f"When does ice {number} melt?", f"Ice {number} melts in month {number}.",
            sources=[(collection, 7 if number % 2 else 8)],
        )  # fmt: skip
    snapshot = freeze(dataset, alice, train_share=1.0, validation_share=0.0)
    run = TrainingRun.objects.create(snapshot=snapshot, name="First", state="succeeded")
    return register(run, "glacier-v1-0000000a")


def test_a_document_is_traced_to_pairs_snapshots_and_adapters(
    learned: Adapter, dataset: Dataset, alice: User
) -> None:
    [subject] = erasure.find_documents(alice, "7")
    found = erasure.trace(subject, alice)
    assert found.pairs.count() == 3
    assert list(found.snapshots) == [learned.run.snapshot]
    assert list(found.adapters) == [learned]
    assert list(found.datasets) == [dataset]
    assert found.speaking == []


def test_documents_of_one_name_are_told_apart(learned: Adapter, alice: User) -> None:
    found = erasure.find_documents(alice, "a.md")
    assert [(subject.key, subject.name) for subject in found] == [(8, "a.md"), (7, "a.md")]


def test_one_action_turns_pairs_stale_and_closes_the_gate(
    learned: Adapter, dataset: Dataset, collection: Collection, alice: User
) -> None:
    write_pair(dataset, "Not judged yet?", "No.", state="suggested", sources=[(collection, 7)])
    [subject] = erasure.find_documents(alice, "7")

    done = erasure.erase(subject, alice, reason="The author asked.")

    assert done == erasure.Erased(4, [learned.name])
    stale = InstructionPair.objects.filter(state="stale")
    assert stale.count() == 4
    assert {pair.stale_reason for pair in stale} == {"“a.md” must be forgotten."}
    assert InstructionPair.objects.approved().count() == 3
    learned.refresh_from_db()
    assert "It learned from “a.md”" in learned.erasure_note
    assert learned.erasure_note in activation.gate(learned)
    event = AuditEvent.objects.get(action="erased")
    assert (event.user, event.detail["reason"]) == (alice, "The author asked.")
    assert event.detail["adapters"] == [learned.name]
    again = erasure.erase(subject, alice, reason="Again.")
    assert again == erasure.Erased(0, [])
    learned.refresh_from_db()
    assert learned.erasure_note.count("a.md") == 1


def test_the_words_go_from_evaluations_and_the_arena_and_the_scores_stay(
    learned: Adapter, alice: User
) -> None:
    job = Job.objects.create(kind=Job.Kind.EVALUATE, state=Job.State.DONE)
    made = Evaluation.objects.create(adapter=learned, job=job, state="done")
    rows = learned.run.snapshot.rows
    erased, kept = rows.get(pair__instruction="When does ice 1 melt?"), rows.first()
    deleted = rows.get(pair__instruction="When does ice 3 melt?").pair
    for place, pair in enumerate((erased.pair, deleted, kept.pair)):
        EvaluationItem.objects.create(
            evaluation=made, cell="base", position=place, pair_id=pair.pk,
            question=pair.instruction, expected=pair.output, output="No idea.", scores={"f1": 0.5},
        )  # fmt: skip
        for verdict in ("left", ""):
            ArenaVote.objects.create(
                adapter=learned, question=pair.instruction, left="No idea.", right="In June.",
                adapter_is_left=True, verdict=verdict, voter=alice,
            )  # fmt: skip
    InstructionPair.objects.filter(pk=deleted.pk).delete()
    [subject] = erasure.find_documents(alice, "7")

    erasure.erase(subject, alice, reason="The author asked.")

    words = made.items.order_by("position").values_list("question", "expected", "output")
    assert list(words[:2]) == [("", "", "")] * 2
    assert words[2] == ("When does ice 0 melt?", "Ice 0 melts in month 0.", "No idea.")
    assert {item.scores["f1"] for item in made.items.all()} == {0.5}
    votes = ArenaVote.objects.order_by("pk").values_list("verdict", "question")
    assert list(votes) == [
        ("left", ""), ("left", ""), ("left", "When does ice 0 melt?"), ("", "When does ice 0 melt?"),
    ]  # fmt: skip


def test_what_was_only_asked_in_the_test_was_not_learned(
    learned: Adapter, dataset: Dataset, alice: User
) -> None:
    asked = freeze(dataset, alice, train_share=0.0, validation_share=0.0)
    run = TrainingRun.objects.create(snapshot=asked, name="Second", state="succeeded")
    register(run, "glacier-v2-0000000b")
    [subject] = erasure.find_documents(alice, "7")
    found = erasure.trace(subject, alice)
    assert set(found.snapshots) == {asked, learned.run.snapshot}
    assert list(found.adapters) == [learned]


def test_distractors_were_learned_from_too(
    dataset: Dataset, collection: Collection, alice: User
) -> None:
    write_pair(dataset, "When?", "In August.", sources=[(collection, 7), (collection, -9)])
    snapshot = freeze(dataset, alice, train_share=1.0, validation_share=0.0)
    run = TrainingRun.objects.create(snapshot=snapshot, name="First", state="succeeded")
    adapter = register(run, "glacier-v1-0000000a")
    [subject] = erasure.find_documents(alice, "9")
    assert list(erasure.trace(subject, alice).adapters) == [adapter]


def test_a_person_is_traced_by_what_they_typed_and_asked(
    dataset: Dataset, alice: User, bob: User, add_document: AddDocument
) -> None:
    document = add_document("glacier.md", "# Glacier\n\nThe glacier melts in August.")
    answer = rated.answer(rated.ask(bob), "In August. [1]", document)
    write_pair(dataset, "Typed by Bob?", "Yes.", author=bob)
    write_pair(dataset, "Asked by Bob?", "In August.", message=answer)
    write_pair(dataset, "Typed by Alice?", "Yes.", author=alice)
    snapshot = freeze(dataset, alice, train_share=1.0, validation_share=0.0)
    run = TrainingRun.objects.create(snapshot=snapshot, name="First", state="succeeded")
    adapter = register(run, "glacier-v1-0000000a")

    [subject] = erasure.find_people(alice, "bob")

    found = erasure.trace(subject, alice)
    assert found.pairs.count() == 2
    assert list(found.adapters) == [adapter]
    assert erasure.erase(subject, alice, reason="").pairs == 2
    adapter.refresh_from_db()
    assert "what bob wrote" in adapter.erasure_note


def test_nobody_learns_of_what_is_not_theirs(
    learned: Adapter, alice: User, bob: User, charlie: User
) -> None:
    for person in (bob, charlie):
        assert erasure.find_documents(person, "7") == []
        assert erasure.find_documents(person, "a.md") == []
        assert erasure.find_people(person, "alice") == []
    [subject] = erasure.find_documents(alice, "7")
    found = erasure.trace(subject, bob)
    assert found.is_empty
    assert not found.adapters
    assert not found.datasets
    assert erasure.find_people(alice, "charlie") == []
    assert erasure.find_people(alice, "nobody") == []
