"""Evaluations over the API."""

import pytest

from finetune.models import Adapter, ArenaVote, Dataset
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


def test_answers_are_drawn_without_names_and_voted_on_once(
    as_alice: ApiClient, as_bob: ApiClient, as_charlie: ApiClient, adapter: Adapter
) -> None:
    draw = f"/api/v1/adapters/{adapter.pk}/arena/draw/"
    assert as_bob.post(draw).status_code == 204
    answered(adapter)
    shown = as_bob.post(draw).json()
    assert set(shown) == {"id", "question", "left", "right"}
    assert as_bob.post(draw).json() == shown, "nobody draws until it suits"
    assert as_charlie.post(draw).status_code == 404

    here, body = f"/api/v1/arena-votes/{shown['id']}/", {"verdict": "left"}
    for other in (as_alice, as_charlie):
        foreign = other.post(here, body, content_type="application/json")
        missing = other.post("/api/v1/arena-votes/999999/", body, content_type="application/json")
        assert (foreign.status_code, foreign.content) == (404, missing.content)
    wrong = as_bob.post(here, {"verdict": "best"}, content_type="application/json")
    assert wrong.status_code == 400
    told = as_bob.post(here, body, content_type="application/json").json()
    vote = ArenaVote.objects.get()
    assert (told["verdict"], told["adapter_is_left"]) == ("left", vote.adapter_is_left)
    again = as_bob.post(here, body, content_type="application/json")
    assert (again.status_code, again.json()["code"]) == (409, "not_now")
    assert as_bob.post(draw).json()["id"] != shown["id"]
