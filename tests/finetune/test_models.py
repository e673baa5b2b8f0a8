"""Who sees which pairs, and what the database keeps from changing."""

import pytest
from django.db import IntegrityError, transaction

from finetune.models import (
    AuditEvent,
    Dataset,
    DatasetSnapshot,
    InstructionPair,
    PairSource,
    SnapshotRow,
)
from kb.models import Collection, Job, User

pytestmark = pytest.mark.django_db


def source_in(collection: Collection | None, pair: InstructionPair) -> PairSource:
    return PairSource.objects.create(
        pair=pair,
        marker=1,
        collection=collection,
        document_name="a.md",
        document_key=1,
        title="A",
        start=0,
        end=3,
        text="abc",
    )


def test_curators_see_pairs_and_readers_do_not(
    pair: InstructionPair, alice: User, bob: User, charlie: User
) -> None:
    assert InstructionPair.objects.visible_to(alice).get() == pair
    assert not InstructionPair.objects.visible_to(bob)
    assert not InstructionPair.objects.visible_to(charlie)


def test_a_pair_with_a_source_that_a_curator_may_not_read_is_hidden(
    pair: InstructionPair, alice: User
) -> None:
    source = source_in(Collection.objects.create(name="Closed"), pair)
    assert not InstructionPair.objects.visible_to(alice)
    source.delete()
    source_in(None, pair)
    assert not InstructionPair.objects.visible_to(alice)


def test_the_audit_log_only_grows(pair: InstructionPair, alice: User) -> None:
    event = AuditEvent.objects.record(alice, "created", pair, pair.collection)
    assert AuditEvent.objects.visible_to(alice).get() == event
    with pytest.raises(IntegrityError, match="append only"), transaction.atomic():
        AuditEvent.objects.update(action="rejected")
    with pytest.raises(IntegrityError, match="append only"), transaction.atomic():
        AuditEvent.objects.filter(pk=event.pk).delete()
    User.objects.get(pk=alice.pk).delete()
    event.refresh_from_db()
    assert (event.user, event.username) == (None, "alice")


@pytest.fixture
def snapshot(dataset: Dataset, pair: InstructionPair) -> DatasetSnapshot:
    made = DatasetSnapshot.objects.create(
        dataset=dataset, number=1, job=Job.objects.create(kind=Job.Kind.FREEZE), state="ready"
    )
    SnapshotRow.objects.create(
        snapshot=made,
        position=1,
        split="train",
        pair=pair,
        content_hash="",
        line="{}",
        token_count=1,
    )
    return made


def test_a_frozen_snapshot_never_changes(snapshot: DatasetSnapshot) -> None:
    with pytest.raises(IntegrityError, match="never changes"), transaction.atomic():
        DatasetSnapshot.objects.update(sha256="f" * 64)
    with pytest.raises(IntegrityError, match="never changes"), transaction.atomic():
        SnapshotRow.objects.update(split="test")


@pytest.mark.django_db(transaction=True)
def test_rows_of_a_snapshot_go_only_with_it(snapshot: DatasetSnapshot) -> None:
    with pytest.raises(IntegrityError, match="never changes"):
        SnapshotRow.objects.all().delete()
    snapshot.delete()
    assert not SnapshotRow.objects.exists()


def test_a_snapshot_outlives_its_pairs(snapshot: DatasetSnapshot, pair: InstructionPair) -> None:
    key = pair.pk
    pair.delete()
    assert snapshot.rows.get().pair_id == key


def test_a_snapshot_is_shown_to_who_may_read_its_whole_audience(
    snapshot: DatasetSnapshot, alice: User
) -> None:
    snapshot.audience.add(snapshot.dataset.collection)
    assert DatasetSnapshot.objects.visible_to(alice).get() == snapshot
    snapshot.audience.add(Collection.objects.create(name="Closed"))
    assert not DatasetSnapshot.objects.visible_to(alice)
