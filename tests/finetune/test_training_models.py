"""Who sees which adapters."""

import pytest

from finetune.models import Adapter, Dataset, DatasetSnapshot, TrainingRun
from kb.models import Collection, Job, User
from kb.models.documents import CollectionInUse
from tests.conftest import AddDocument

pytestmark = pytest.mark.django_db


@pytest.fixture
def adapter(dataset: Dataset, collection: Collection) -> Adapter:
    snapshot = DatasetSnapshot.objects.create(
        dataset=dataset, number=1, job=Job.objects.create(kind=Job.Kind.FREEZE), state="ready"
    )
    snapshot.audience.add(collection)
    run = TrainingRun.objects.create(snapshot=snapshot, name="First")
    made = Adapter.objects.create(run=run, name="first-v1-00000000", audience_size=1)
    made.audience.add(collection)
    return made


def test_who_may_read_what_an_adapter_learned_from_sees_it(
    adapter: Adapter, alice: User, bob: User, charlie: User
) -> None:
    assert Adapter.objects.visible_to(alice).get() == adapter
    assert Adapter.objects.visible_to(bob).get() == adapter
    assert not Adapter.objects.visible_to(charlie)


def test_owners_manage_adapters_and_readers_do_not(
    adapter: Adapter, alice: User, bob: User
) -> None:
    assert Adapter.objects.managed_by(alice).get() == adapter
    assert not Adapter.objects.managed_by(bob)


def test_an_adapter_of_a_collection_that_is_gone_is_the_administrators(
    adapter: Adapter, bob: User
) -> None:
    closed = Collection.objects.create(name="Closed", is_public=True)
    adapter.audience.add(closed)
    Adapter.objects.update(audience_size=2)
    assert Adapter.objects.visible_to(bob)
    closed.delete()
    assert not Adapter.objects.visible_to(bob)
    assert Adapter.objects.visible_to(User.objects.create_superuser("root"))


def test_a_collection_that_models_learned_from_stays_whole(
    adapter: Adapter, collection: Collection, add_document: AddDocument
) -> None:
    document = add_document("a.md", "# Ice\n\nIt melts.\n")
    with pytest.raises(CollectionInUse, match="trained"):
        collection.remove()
    document.refresh_from_db()
    assert document.chunks.exists()
