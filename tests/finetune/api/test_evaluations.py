"""Evaluations over the API."""

import pytest

from finetune.models import Adapter, Dataset
from tests.finetune.answered import adapter_of, answered
from tests.kb.api.client import ApiClient


@pytest.fixture
def adapter(dataset: Dataset) -> Adapter:
    return adapter_of(dataset)


def test_an_evaluation_is_started_and_read(as_alice: ApiClient, adapter: Adapter) -> None:
    address = f"/api/v1/adapters/{adapter.pk}/evaluations/"
    made = as_alice.post(address)
    assert (made.status_code, made.json()["state"]) == (202, "queued")
    assert as_alice.post(address).json()["id"] == made.json()["id"]
    done = answered(adapter)
    shown = as_alice.get(f"/api/v1/evaluations/{done.pk}/").json()
    assert (shown["passed"], shown["gate"]["lines"][0]["name"]) == (True, "Answers")
    assert shown["results"]["tests"]["f1"]["n"] == 8
    assert [row["id"] for row in as_alice.get(address).json()["results"]][0] == done.pk
    items = f"/api/v1/evaluations/{done.pk}/items/"
    found = as_alice.get(f"{items}?suite=test&cell=adapter").json()["results"]
    assert [row["position"] for row in found] == list(range(8))
    assert found[0]["scores"]["f1"] == 1
    tally = as_alice.get(f"/api/v1/adapters/{adapter.pk}/arena/").json()
    assert (tally["preferred"], tally["kappa"]) == (0, None)


def test_others_get_what_a_missing_id_gets(
    as_bob: ApiClient, as_charlie: ApiClient, adapter: Adapter
) -> None:
    done = answered(adapter)
    for caller in (as_bob, as_charlie):
        assert caller.get(f"/api/v1/evaluations/{done.pk}/").status_code == 404
        assert caller.get(f"/api/v1/evaluations/{done.pk}/items/").status_code == 404
        assert caller.post(f"/api/v1/adapters/{adapter.pk}/evaluations/").status_code == 404
    assert as_charlie.get(f"/api/v1/adapters/{adapter.pk}/evaluations/").status_code == 404
    assert as_bob.get(f"/api/v1/adapters/{adapter.pk}/evaluations/").json()["results"] == []
