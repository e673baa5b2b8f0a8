"""A run that is over, and then its snapshot, are deleted by their owner, by page and by program."""

import pytest
from django.test import Client
from django.urls import reverse

from finetune.models import Adapter, Dataset, DatasetSnapshot, InstructionPair, TrainingRun
from kb.models import Collection, User
from tests.finetune.test_snapshots import freeze, write_pair
from tests.kb.api.client import ApiClient
from tests.kb.api.conftest import as_alice, as_bob

__all__ = ["as_alice", "as_bob"]
pytestmark = pytest.mark.django_db


@pytest.fixture
def run(dataset: Dataset, collection: Collection, alice: User) -> TrainingRun:
    write_pair(dataset, "When does the ice melt?", "In August.", sources=[(collection, 7)])
    return TrainingRun.objects.create(
        snapshot=freeze(dataset, alice), name="First", state="running"
    )


def test_an_owner_deletes_a_run_and_then_its_snapshot(
    page: Client, run: TrainingRun, alice: User
) -> None:
    here, frozen = reverse("run", args=[run.pk]), reverse("snapshot", args=[run.snapshot_id])
    delete = reverse("run_delete", args=[run.pk])
    refused = page.post(delete, follow=True).content.decode()
    assert "It is under way" in refused
    TrainingRun.objects.update(state="failed")
    adapter = Adapter.objects.create(run=run, name="notes-v1-0000000a", audience_size=0)
    assert delete in page.get(here).content.decode()
    assert adapter.name in page.get(delete).content.decode()
    assert (
        reverse("snapshot_delete", args=[run.snapshot_id]) not in page.get(frozen).content.decode()
    )

    gone = page.post(delete, follow=True)

    assert "“First” was deleted." in gone.content.decode()
    assert not TrainingRun.objects.exists()
    assert reverse("snapshot_delete", args=[run.snapshot_id]) in page.get(frozen).content.decode()
    page.post(reverse("snapshot_delete", args=[run.snapshot_id]))
    assert not DatasetSnapshot.objects.exists()


def test_the_pages_train_nothing_on_what_was_erased(
    page: Client, run: TrainingRun, alice: User
) -> None:
    InstructionPair.objects.update(state="stale")  # for another reason, which is not enough
    where = {"kind": "document", "name": "7"}
    offered = page.get(reverse("erasure"), where).content.decode()
    assert "No run starts on these snapshots any more" in offered
    page.post(reverse("erasure"), {**where, "reason": "Asked."})
    assert "It is kept out." in page.get(reverse("erasure"), where).content.decode()
    for view, key in (("run", run.pk), ("snapshot", run.snapshot_id)):
        assert (
            "was erased. Freeze a new one." in page.get(reverse(view, args=[key])).content.decode()
        )
    form = {
        "snapshot": run.snapshot_id, "name": "Again", "base_model": "tiny", "server": "own",
        "learn_from": "sft", "method": "lora", "rank": "16, 32", "learning_rate": "2e-4",
        "epochs": 1, "batch_size": 8, "accumulation": 1, "max_length": 512, "patience": 3, "seed": 0,
    }  # fmt: skip
    refused = page.post(reverse("run_new"), form)
    assert refused.status_code == 400
    assert "was erased. Freeze a new one." in refused.content.decode()
    assert TrainingRun.objects.count() == 1


def test_a_program_deletes_them_too_and_who_only_reads_does_not(
    as_alice: ApiClient, as_bob: ApiClient, run: TrainingRun
) -> None:
    here, frozen = f"/api/v1/runs/{run.pk}/", f"/api/v1/snapshots/{run.snapshot_id}/"
    refused = as_alice.delete(here)
    assert (refused.status_code, refused.json()["code"]) == (409, "not_now")
    TrainingRun.objects.update(state="failed")
    assert as_bob.delete(here).status_code == as_bob.delete(frozen).status_code == 404
    assert as_alice.delete(frozen).status_code == 409
    assert as_alice.delete(here).status_code == 204
    assert as_alice.delete(frozen).status_code == 204
    assert as_alice.delete(frozen).status_code == 404
