"""What was stored before is put right when a newer version starts."""

from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from finetune import preferences, triage
from finetune.models import (
    Adapter,
    AuditEvent,
    DatasetSnapshot,
    InstructionPair,
    PairSource,
    Review,
    SnapshotRow,
    TriageItem,
)
from kb.models import Collection, Document, Message, User
from tests.conftest import AddDocument
from tests.finetune.activating import deployed, make_adapter, speaker
from tests.finetune.rated import answer, ask, rate

pytestmark = pytest.mark.django_db
NAME = "0013_sources_of_answers"


@cache
def apps() -> Any:
    """Give the models as the migration knows them."""
    return MigrationExecutor(connection).loader.project_state([("finetune", NAME)]).apps


def migrate() -> None:
    module = import_module(f"finetune.migrations.{NAME}")
    with connection.schema_editor() as editor:
        module.add_sources(apps(), editor)
        editor.execute(module.LOST)


@pytest.fixture
def question(alice: User) -> Message:
    return ask(alice)


@pytest.fixture
def ice(add_document: AddDocument, bob: User) -> Document:
    document = add_document("ice.md", "# Ice\n\nThe glacier melts in late summer.\n")
    document.collection.grant(bob, "curator")
    return document


@pytest.fixture
def merger(add_document: AddDocument, alice: User) -> Document:
    """A document of a collection that alice may read and bob may not."""
    closed = Collection.objects.create(name="Closed")
    closed.grant(alice, "owner")
    return add_document("merger.md", "# Merger\n\nThe merger is on Friday.\n", to=closed)


def collected() -> InstructionPair:
    """Give the preference pair of the ratings."""
    triage.collect()
    return InstructionPair.objects.get(origin="preference")


@pytest.fixture
def pair(question: Message, ice: Document, merger: Document) -> InstructionPair:
    """A pair whose turned down answer drew on a closed collection, and which does not say so."""
    rate(answer(question, "The merger is on Friday.", merger, cites=()), -1)
    rate(answer(question, "In late summer. [1]", ice), 1)
    made = collected()
    made.sources.filter(document=merger).delete()
    return made


def seen_by(user: User) -> list[InstructionPair]:
    return list(InstructionPair.objects.visible_to(user))


def test_a_pair_is_closed_with_the_collections_that_its_answers_drew_on(
    pair: InstructionPair, merger: Document, alice: User, bob: User
) -> None:
    (known,) = pair.sources.values()
    assert seen_by(bob) == [pair], "as it was stored"

    migrate()

    assert (seen_by(alice), seen_by(bob)) == ([pair], [])
    first, added = pair.sources.order_by("marker")
    assert PairSource.objects.filter(pk=first.pk).values().get() == known
    assert (added.marker, added.is_distractor) == (2, True)
    assert (added.document, added.document_key) == (merger, merger.pk)
    assert (added.version, added.version_number) == (merger.current_version, 1)
    assert added.text == merger.current_version.text[added.start : added.end]
    assert added.audience == {"public": False, "users": [alice.pk], "groups": []}
    pair.refresh_from_db()
    assert pair.state == "suggested", "its rows say all"
    migrate()
    assert pair.sources.count() == 2, "once is enough"


def test_the_answer_that_was_chosen_counts_as_well(
    question: Message, ice: Document, merger: Document, bob: User
) -> None:
    rate(answer(question, "In winter. [1]", ice), -1)
    rate(answer(question, "Late in summer [1]. The merger is on Friday.", ice, merger), 1)
    pair = collected()
    pair.sources.filter(document=merger).delete()
    assert seen_by(bob) == [pair]
    migrate()
    assert seen_by(bob) == []


def test_a_pair_of_a_rated_answer_is_closed_as_well(
    question: Message, ice: Document, merger: Document, alice: User, bob: User
) -> None:
    rate(answer(question, "In winter [1]. The merger is on Friday.", ice, merger), -1)
    triage.collect()
    dataset = preferences.dataset_for(ice.collection)
    pair = triage.draft_pair(TriageItem.objects.get(), alice, dataset, output="In late summer. [1]")
    pair.sources.filter(document=merger).delete()
    assert seen_by(bob) == [pair]
    migrate()
    assert (seen_by(alice), seen_by(bob)) == ([pair], [])


@pytest.fixture
def adapter(pair: InstructionPair, tmp_path: Path) -> Adapter:
    """One that learned from the pair."""
    made = make_adapter(pair.dataset, "notes-v1-0000000a", data_dir=tmp_path)
    SnapshotRow.objects.create(
        snapshot=made.run.snapshot,
        pair=pair,
        position=1,
        split="train",
        content_hash="a",
        line="{}",
        token_count=9,
    )
    return made


def test_what_learned_from_such_a_pair_answers_only_who_may_read_it(
    adapter: Adapter, merger: Document, alice: User, bob: User
) -> None:
    deployed(adapter, alice)
    assert speaker(bob) == adapter.name, "as it was stored"

    migrate()

    assert (speaker(alice), speaker(bob)) == (adapter.name, "")
    assert not Adapter.objects.visible_to(bob).exists()
    assert Adapter.objects.visible_to(alice).get().audience_size == 2
    assert not DatasetSnapshot.objects.visible_to(bob).exists()
    told = AuditEvent.objects.get(action="edited", subject_kind="adapter", subject_id=adapter.pk)
    assert told.detail["closed_with"] == [merger.collection_id]
    migrate()
    assert Adapter.objects.get().audience_size == 2


def test_what_learned_from_a_deleted_collection_answers_administrators_only(
    adapter: Adapter, merger: Document, alice: User
) -> None:
    deployed(adapter, alice)
    closed = merger.collection
    merger.delete()
    closed.delete()
    migrate()
    assert speaker(alice) == ""
    assert not DatasetSnapshot.objects.visible_to(alice).exists()
    User.objects.filter(pk=alice.pk).update(is_superuser=True)
    assert speaker(User.objects.get(pk=alice.pk)) == adapter.name


def test_what_was_deleted_since_leaves_a_pair_to_administrators(
    pair: InstructionPair, merger: Document, alice: User
) -> None:
    closed = merger.collection
    merger.delete()
    closed.delete()
    assert seen_by(alice) == [pair], "as it was stored"
    migrate()
    assert seen_by(alice) == []
    lost = pair.sources.get(collection=None)
    assert (lost.title, lost.document_key) == ("Merger", 0)


def test_a_pair_whose_sources_are_known_stays_as_it_is(
    question: Message, ice: Document, bob: User
) -> None:
    rate(answer(question, "In winter. [1]", ice), -1)
    rate(answer(question, "In late summer. [1]", ice), 1)
    pair = collected()
    before = list(pair.sources.values())
    migrate()
    assert list(pair.sources.values()) == before
    assert seen_by(bob) == [pair]
    pair.refresh_from_db()
    assert pair.state == "suggested"


@pytest.mark.parametrize("which", ["chosen", "turned_down"])
def test_a_pair_of_an_answer_that_is_gone_is_looked_at_again(
    pair: InstructionPair, alice: User, which: str
) -> None:
    Review.objects.create(pair=pair, reviewer=alice, verdict="approve", state_before="suggested")
    InstructionPair.objects.update(state="approved", reviewer=alice)
    turned_down = pair.origin_key.partition(">")[2]
    Message.objects.get(pk=pair.message_id if which == "chosen" else turned_down).delete()

    migrate()

    pair.refresh_from_db()
    assert (pair.state, pair.round, pair.reviewer) == ("stale", 2, None)
    assert "nobody can say any more which passages" in pair.stale_reason
    assert Review.objects.get().is_void
    told = AuditEvent.objects.get(action="stale")
    assert (told.username, told.subject_id, told.collection) == ("", pair.pk, pair.collection)
    assert told.detail["reason"] == pair.stale_reason
    assert pair in list(InstructionPair.objects.awaiting(alice)), "who approved it may look again"
    migrate()
    assert AuditEvent.objects.filter(action="stale").count() == 1


def test_what_a_person_rejected_is_not_opened_again(pair: InstructionPair) -> None:
    InstructionPair.objects.update(state="rejected")
    Message.objects.all().delete()
    migrate()
    pair.refresh_from_db()
    assert pair.state == "rejected"
