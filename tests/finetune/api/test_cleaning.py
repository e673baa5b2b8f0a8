"""Duplicates are found and decided, snapshots frozen and made again, over the API."""

import hashlib

from finetune.models import Dataset, DatasetSnapshot, InstructionPair
from kb.models import Collection, User
from tests.finetune.test_duplicates import clean
from tests.finetune.test_snapshots import fill, freeze, write_pair
from tests.kb.api.client import ApiClient
from workers import tasks

JSON = "application/json"


def test_a_search_is_started_followed_and_decided(as_alice: ApiClient, dataset: Dataset) -> None:
    one, two = (write_pair(dataset, "When?", "In August.", state="suggested") for _ in "ab")
    address = f"/api/v1/datasets/{dataset.pk}/duplicates/"
    made = as_alice.post(address)
    assert (made.status_code, made.json()["state"]) == (202, "waiting")
    assert as_alice.post(address).json()["id"] == made.json()["id"]
    assert tasks.work_on_next("clean")
    done = as_alice.get(f"/api/v1/cleanings/{made.json()['id']}/").json()
    assert (done["state"], done["counts"]["exact"]) == ("done", 1)
    [cluster] = as_alice.get(f"{address}?kind=exact&decision=open").json()["results"]
    assert [member["pair"] for member in cluster["members"]] == [one.pk, two.pk]
    decide = f"/api/v1/duplicates/{cluster['id']}/decision/"
    decided = as_alice.post(decide, {"decision": "kept_one", "keep": two.pk}, content_type=JSON)
    assert (decided.status_code, decided.json()["decided_by"]) == (200, "alice")
    assert InstructionPair.objects.get(pk=one.pk).state == "rejected"
    again = as_alice.post(decide, {"decision": "kept_all"}, content_type=JSON)
    assert (again.status_code, again.json()["code"]) == (409, "already_decided")
    back = as_alice.post(decide, {"decision": "open"}, content_type=JSON)
    assert back.json()["decision"] == "open"
    assert as_alice.get(f"{address}?kind=near").json()["results"] == []


def test_counts_are_told_to_who_looked(
    as_alice: ApiClient, dataset: Dataset, alice: User, bob: User
) -> None:
    dataset.collection.grant(bob, "curator")
    write_pair(dataset, "When?", "In August.")
    for user, pairs in ((alice, 1), (bob, None)):
        clean(dataset, user)
        cleaning = dataset.cleanings.latest("pk")
        counts = as_alice.get(f"/api/v1/cleanings/{cleaning.pk}/").json()["counts"]
        assert counts.get("pairs") == pairs


def test_a_snapshot_is_frozen_read_and_made_again(as_alice: ApiClient, dataset: Dataset) -> None:
    fill(dataset, 1, 12)
    address = f"/api/v1/datasets/{dataset.pk}/snapshots/"
    wanted = {"seed": 4, "train_share": 0.5, "validation_share": 0.25}
    made = as_alice.post(address, wanted, content_type=JSON)
    assert (made.status_code, made.json()["state"]) == (202, "queued")
    assert tasks.work_on_next("freeze")
    one = f"/api/v1/snapshots/{made.json()['id']}/"
    shown = as_alice.get(one).json()
    assert (shown["state"], shown["seed"], shown["audience"]) == (
        "ready", 4, [dataset.collection_id],
    )  # fmt: skip
    file = b"".join(as_alice.get(f"{one}file/"))
    assert hashlib.sha256(file).hexdigest() == shown["sha256"]
    assert as_alice.get(f"{one}manifest/").json()["seed"] == 4
    made_again = as_alice.get(f"{one}reproduction/").json()
    assert (made_again["is_same"], made_again["rendered"]) == (True, 12)
    assert [row["id"] for row in as_alice.get(address).json()["results"]] == [shown["id"]]


def test_snapshots_are_compared(as_alice: ApiClient, dataset: Dataset, alice: User) -> None:
    fill(dataset, 2, 8)
    one = freeze(dataset, alice)
    added = write_pair(dataset, "Which is new?", "This one.")
    two = freeze(dataset, alice)
    found = as_alice.get(f"/api/v1/snapshots/{two.pk}/difference/?to={one.pk}").json()
    assert (found["added"], found["removed"], found["changed"]) == ([added.pk], [], [])


def test_shares_beyond_the_whole_are_refused(as_alice: ApiClient, dataset: Dataset) -> None:
    wanted = {"train_share": 0.9, "validation_share": 0.2}
    answer = as_alice.post(f"/api/v1/datasets/{dataset.pk}/snapshots/", wanted, content_type=JSON)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid")


def test_leaks_into_hidden_evaluations_are_left_out(
    as_alice: ApiClient, dataset: Dataset, alice: User
) -> None:
    other = Collection.objects.create(name="Exams")
    membership = other.memberships.create(user=alice, role="curator")
    exam = Dataset.objects.create(collection=other, name="Exam", purpose="evaluation")
    write_pair(dataset, "When does it melt?", "In August.")
    write_pair(exam, "When does it melt?", "In August.")
    address = f"/api/v1/snapshots/{freeze(dataset, alice).pk}/"
    [leak] = as_alice.get(address).json()["leakage"]["evaluation"]
    assert (leak["dataset"], leak["exact"]) == (exam.pk, 1)
    membership.delete()
    assert as_alice.get(address).json()["leakage"]["evaluation"] == []


def test_who_does_not_curate_finds_nothing(
    as_bob: ApiClient, as_charlie: ApiClient, dataset: Dataset, alice: User
) -> None:
    write_pair(dataset, "When?", "In August.")
    write_pair(dataset, "When?", "In August.")
    [cluster] = clean(dataset, alice)
    snapshot = freeze(dataset, alice)
    cleaning = dataset.cleanings.get()
    for client in (as_bob, as_charlie):
        for address in (
            f"datasets/{dataset.pk}/duplicates/", f"datasets/{dataset.pk}/snapshots/",
            f"cleanings/{cleaning.pk}/", f"snapshots/{snapshot.pk}/",
            f"snapshots/{snapshot.pk}/file/", f"snapshots/{snapshot.pk}/manifest/",
            f"snapshots/{snapshot.pk}/reproduction/",
            f"snapshots/{snapshot.pk}/difference/?to={snapshot.pk}",
        ):  # fmt: skip
            assert client.get(f"/api/v1/{address}").status_code == 404, address
        for address in (f"datasets/{dataset.pk}/duplicates/", f"datasets/{dataset.pk}/snapshots/"):
            assert client.post(f"/api/v1/{address}", {}, content_type=JSON).status_code == 404
        decide = f"/api/v1/duplicates/{cluster.pk}/decision/"
        answer = client.post(decide, {"decision": "kept_all"}, content_type=JSON)
        assert answer.status_code == 404
    assert DatasetSnapshot.objects.count() == 1
