"""The pages of duplicates and snapshots: for curators of the collection, and no one else."""

import hashlib
import json
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from finetune.models import Dataset, DatasetSnapshot, DuplicateCluster
from kb.models import Collection, Document, User
from tests.conftest import AddDocument
from tests.finetune.test_duplicates import clean
from tests.finetune.test_snapshots import fill, freeze, write_pair
from workers import tasks

pytestmark = pytest.mark.django_db
OUTPUT = "The glacier of the valley loses most of its <b>ice</b> in August, when the days are warm."


@pytest.fixture
def signed_in(client: Client, alice: User) -> Client:
    client.force_login(alice)
    return client


def text(client: Client, name: str, *args: object, **query: Any) -> str:
    answer = client.get(reverse(name, args=args), query)
    assert answer.status_code == 200, answer.status_code
    return answer.content.decode()


@pytest.fixture
def cluster(dataset: Dataset, alice: User) -> DuplicateCluster:
    write_pair(dataset, "When does the glacier melt?", OUTPUT, state="suggested")
    write_pair(
        dataset, "When does the glacier melt?", OUTPUT.replace("warm", "hot"), state="suggested"
    )
    return clean(dataset, alice)[0]


def test_a_search_is_started_followed_and_shown(
    signed_in: Client, dataset: Dataset, django_capture_on_commit_callbacks: Any
) -> None:
    assert "Find pairs that say the same" in text(signed_in, "duplicates", dataset.pk)
    write_pair(dataset, "When?", "In August.")
    write_pair(dataset, "When?", "In August.")
    signed_in.post(reverse("duplicates_find", args=[dataset.pk]))
    assert "Waits for a worker." in text(signed_in, "duplicates", dataset.pk)
    assert tasks.work_on_next("clean")
    answer = signed_in.get(reverse("duplicates_state", args=[dataset.pk]))
    assert answer["HX-Refresh"] == "true"
    page = text(signed_in, "duplicates", dataset.pk)
    assert "2 pairs were compared" in page
    assert "The same words." in page


@pytest.fixture
def closed(alice: User, bob: User, collection: Collection) -> Collection:
    """A collection of bob, who curates beside alice; she may not read this one."""
    collection.grant(bob, "curator")
    made = Collection.objects.create(name="Closed")
    made.grant(bob, "owner")
    return made


def test_a_search_counts_what_who_looks_may_see(
    client: Client, dataset: Dataset, alice: User, bob: User, closed: Collection
) -> None:
    for number in range(7):
        write_pair(dataset, f"Hidden {number // 2}?", "Hidden answer", sources=[(closed, 9)])
    write_pair(dataset, "Open?", "Open answer")

    clean(dataset, bob)
    client.force_login(bob)
    assert "8 pairs were compared" in text(client, "duplicates", dataset.pk)
    client.force_login(alice)
    page = text(client, "duplicates", dataset.pk)
    assert "compared" not in page
    assert "bob looked" in page

    clean(dataset, alice)
    assert "1 pair was compared with all you may see, 1 in all" in text(
        client, "duplicates", dataset.pk
    )
    assert dataset.cleanings.latest("pk").counts["exact"] == 0
    assert DuplicateCluster.objects.visible_to(bob).filter(kind="exact").count() == 3


def test_a_snapshot_does_not_tell_of_sets_that_one_may_not_see(
    client: Client, dataset: Dataset, alice: User, bob: User, closed: Collection
) -> None:
    exam = Dataset.objects.create(collection=closed, name="Exam", purpose="evaluation")
    write_pair(exam, "Where is the quarry?", "Behind the hill")
    write_pair(dataset, "Open?", "Open answer")
    snapshot = freeze(dataset, bob)
    client.force_login(bob)
    assert "Exam: its 1 pair has other words" in text(client, "snapshot", snapshot.pk)
    client.force_login(alice)
    page = text(client, "snapshot", snapshot.pk)
    assert "other words" not in page
    assert "no evaluation set that you may see" in page


def test_who_deletes_several_documents_reads_of_every_snapshot(
    client: Client, dataset: Dataset, alice: User, bob: User, closed: Collection,
    add_document: AddDocument,
) -> None:  # fmt: skip
    ice, boat, other = (
        add_document(f"{name}.md", f"# {name}\n\nOf {name}.\n") for name in ("ice", "boat", "other")
    )
    write_pair(dataset, "When?", "In August [1].", sources=[(dataset.collection, -ice.pk)])
    freeze(dataset, alice)
    sources = [(dataset.collection, boat.pk), (closed, 9)]
    write_pair(dataset, "Where?", "There [1].", sources=sources)
    freeze(dataset, bob)
    client.force_login(alice)

    def said(*documents: Document) -> str:
        return text(client, "document_uses", document=[document.pk for document in documents])

    both = said(ice, boat)
    assert "These snapshots were frozen with some of them" in both
    assert "Glaciers #1" in both
    assert "Glaciers #2" not in both
    assert "1 snapshot that you may not see was frozen with some of them." in both
    assert "Glaciers #1" in said(ice, other)
    assert "snapshot" not in said(other, other).lower()


def test_differences_are_marked_and_escaped(
    signed_in: Client, dataset: Dataset, cluster: DuplicateCluster
) -> None:
    page = text(signed_in, "duplicates", dataset.pk)
    assert "<del>warm</del><ins>hot</ins>" in page
    assert "&lt;b&gt;ice&lt;/b&gt;" in page
    assert "<b>ice</b>" not in page


def test_one_is_kept_and_the_decision_taken_back(
    signed_in: Client, dataset: Dataset, cluster: DuplicateCluster
) -> None:
    first, second = dataset.pairs.order_by("pk")
    address = reverse("duplicates_decide", args=[cluster.pk])
    drawn = signed_in.post(address, {"keep": second.pk}, headers={"HX-Request": "true"})
    assert "Kept one" in drawn.content.decode()
    first.refresh_from_db()
    assert first.state == "rejected"
    assert "Kept one" in text(signed_in, "duplicates", dataset.pk, decided="yes")
    again = signed_in.post(address, {"keep": "all"}, headers={"HX-Request": "true"})
    assert "in the meantime" in again.content.decode()
    signed_in.post(address, {"keep": ""})
    first.refresh_from_db()
    assert first.state == "suggested"


@pytest.mark.parametrize("keep", ["x", "-1", "9" * 30, "²"])
def test_nonsense_is_refused(signed_in: Client, cluster: DuplicateCluster, keep: str) -> None:
    answer = signed_in.post(reverse("duplicates_decide", args=[cluster.pk]), {"keep": keep})
    assert answer.status_code == 400
    answer = signed_in.post(reverse("duplicates_decide", args=[cluster.pk]), {"keep": "123456789"})
    assert answer.status_code == 302
    cluster.refresh_from_db()
    assert cluster.decision == "open"


def test_all_of_a_kind_are_decided_at_once(
    signed_in: Client, dataset: Dataset, alice: User
) -> None:
    for question in ("When?", "Who?", "Where?"):
        write_pair(dataset, question, "In August.")
        write_pair(dataset, question, "In August.")
    clean(dataset, alice)
    address = reverse("duplicates_decide_all", args=[dataset.pk])
    page = signed_in.post(address, {"kind": "exact"}, follow=True).content.decode()
    assert "Decided 3 clusters; 3 pairs were set aside." in page
    assert dataset.pairs.filter(state="rejected").count() == 3


def test_a_snapshot_is_frozen_shown_and_downloaded(
    signed_in: Client, dataset: Dataset, collection: Collection
) -> None:
    fill(dataset, 1, 20)
    assert "20 approved pairs" in text(signed_in, "snapshots", dataset.pk)
    form = {"train": 70, "validation": 20, "seed": 5}
    page = signed_in.post(reverse("snapshots", args=[dataset.pk]), form, follow=True)
    assert "Waits for a worker." in page.content.decode()
    assert tasks.work_on_next("freeze")
    snapshot = DatasetSnapshot.objects.get()
    assert (snapshot.seed, snapshot.train_share, snapshot.validation_share) == (5, 0.7, 0.2)
    page = text(signed_in, "snapshot", snapshot.pk)
    assert snapshot.sha256 in page
    assert f"<strong>{collection.name}</strong>" in page
    assert "no pair that nearly repeats another" in page
    file = b"".join(signed_in.get(reverse("snapshot_file", args=[snapshot.pk])))
    assert hashlib.sha256(file).hexdigest() == snapshot.sha256
    manifest = b"".join(signed_in.get(reverse("snapshot_manifest", args=[snapshot.pk])))
    assert json.loads(manifest)["seed"] == 5


def test_shares_beyond_the_whole_are_refused(signed_in: Client, dataset: Dataset) -> None:
    form = {"train": 90, "validation": 20, "seed": 0}
    answer = signed_in.post(reverse("snapshots", args=[dataset.pk]), form)
    assert answer.status_code == 400
    assert b"more than 100" in answer.content
    assert not DatasetSnapshot.objects.exists()


def test_two_snapshots_are_compared_on_the_page(
    signed_in: Client, dataset: Dataset, alice: User
) -> None:
    fill(dataset, 2, 12)
    one = freeze(dataset, alice)
    added = write_pair(dataset, "Which is new?", "This is the new one.")
    two = freeze(dataset, alice)
    page = text(signed_in, "snapshot", two.pk, **{"with": one.pk})
    assert f'1: <a href="{reverse("pair", args=[added.pk])}">' in page


def test_a_leak_names_an_evaluation_only_to_who_may_see_it(
    signed_in: Client, dataset: Dataset, alice: User
) -> None:
    other = Collection.objects.create(name="Exams")
    membership = other.memberships.create(user=alice, role="curator")
    exam = Dataset.objects.create(collection=other, name="Final exam", purpose="evaluation")
    write_pair(dataset, "When does it melt?", "In August.")
    write_pair(exam, "When does it melt?", "In August.")
    snapshot = freeze(dataset, alice)
    page = text(signed_in, "snapshot", snapshot.pk)
    assert "Final exam" in page
    assert "1 have the same words" in page
    membership.delete()
    page = text(signed_in, "snapshot", snapshot.pk)
    assert "Final exam" not in page
    assert "have the same words" not in page


@pytest.mark.parametrize("name", ["bob", "charlie"])
def test_who_does_not_curate_finds_nothing(
    client: Client, dataset: Dataset, alice: User, cluster: DuplicateCluster, name: str,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    fill(dataset, 3, 5)
    snapshot = freeze(dataset, alice)
    client.force_login(request.getfixturevalue(name))
    for address, key in (
        ("duplicates", dataset.pk), ("duplicates_state", dataset.pk), ("snapshots", dataset.pk),
        ("snapshot", snapshot.pk), ("snapshot_state", snapshot.pk), ("snapshot_file", snapshot.pk),
        ("snapshot_manifest", snapshot.pk),
    ):  # fmt: skip
        assert client.get(reverse(address, args=[key])).status_code == 404
    for address, key in (
        ("duplicates_find", dataset.pk), ("duplicates_decide_all", dataset.pk),
        ("duplicates_decide", cluster.pk), ("snapshots", dataset.pk),
    ):  # fmt: skip
        assert client.post(reverse(address, args=[key]), {"keep": "all"}).status_code == 404
    cluster.refresh_from_db()
    assert cluster.decision == "open"


def test_deleting_a_document_names_the_snapshots_that_hold_its_words(
    signed_in: Client, dataset: Dataset, collection: Collection, alice: User, add_document: Any
) -> None:
    document = add_document("ice.md", "# Ice\n\nIt melts in August.")
    address = reverse("document_delete", args=[document.pk])
    assert b"Its words stay" not in signed_in.get(address).content
    write_pair(dataset, "When?", "In August.", sources=[(collection, document.pk)])
    snapshot = freeze(dataset, alice)
    page = signed_in.get(address).content.decode()
    assert str(snapshot) in page
    second = Collection.objects.create(name="Second", is_public=True)
    write_pair(dataset, "Where?", "There.", sources=[(second, 9)])
    freeze(dataset, alice)
    Collection.objects.filter(pk=second.pk).update(is_public=False)
    assert "1 snapshot that you may not see" in signed_in.get(address).content.decode()
