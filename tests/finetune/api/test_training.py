"""Programs plan, start, follow and cancel runs; what is not theirs is not there."""

from typing import Any

import pytest

from finetune.models import Adapter, Dataset, DatasetSnapshot, TrainingMetric, TrainingRun
from kb.models import Collection, Job
from tests.kb.api.client import ApiClient

JSON = "application/json"
pytestmark = pytest.mark.django_db


@pytest.fixture
def snapshot(dataset: Dataset, collection: Collection) -> DatasetSnapshot:
    made = DatasetSnapshot.objects.create(
        dataset=dataset, number=1, job=Job.objects.create(kind=Job.Kind.FREEZE), state="ready"
    )
    made.audience.add(collection)
    return made


def plan(client: ApiClient, snapshot: DatasetSnapshot, **config: Any) -> Any:
    body = {
        "snapshot": snapshot.pk,
        "name": "First",
        "config": {"base_model": "tiny", "server": "own", **config},
    }
    return client.post("/api/v1/runs/", body, content_type=JSON)


def test_a_run_is_planned_started_followed_and_cancelled(
    as_alice: ApiClient, snapshot: DatasetSnapshot
) -> None:
    made = plan(as_alice, snapshot, rank=32)
    assert made.status_code == 202
    body = made.json()
    assert (body["state"], body["config"]["rank"], body["preflight"]) == ("draft", 32, {})
    here = f"/api/v1/runs/{body['id']}/"
    early = as_alice.post(f"{here}start/")
    assert (early.status_code, early.json()["code"]) == (409, "not_now")

    TrainingRun.objects.update(preflight={"lines": []})
    assert as_alice.post(f"{here}start/").json()["state"] == "queued"
    run = TrainingRun.objects.get()
    TrainingMetric.objects.create(run=run, step=1, loss=2.5)
    (metric,) = as_alice.get(f"{here}metrics/").json()["results"]
    assert (metric["step"], metric["loss"]) == (1, 2.5)
    assert as_alice.post(f"{here}cancel/").json()["state"] == "cancelled"
    assert as_alice.post(f"{here}cancel/").status_code == 409
    again = as_alice.post(f"{here}resume/")
    assert (again.status_code, again.json()["state"]) == (202, "queued")
    assert as_alice.post(f"{here}resume/").status_code == 409
    assert [row["id"] for row in as_alice.get("/api/v1/runs/").json()["results"]] == [run.pk]


def test_wrong_settings_are_named(as_alice: ApiClient, snapshot: DatasetSnapshot) -> None:
    refused = plan(as_alice, snapshot, rank=0, warp=9)
    assert refused.status_code == 400
    assert "no setting “warp”" in str(refused.json()["errors"])


def test_a_reader_plans_nothing_and_sees_no_run(
    as_alice: ApiClient, as_bob: ApiClient, snapshot: DatasetSnapshot
) -> None:
    here = f"/api/v1/runs/{plan(as_alice, snapshot).json()['id']}/"
    foreign = plan(as_bob, snapshot)
    assert foreign.status_code == 400
    assert foreign.json()["errors"][0]["code"] == "does_not_exist"
    assert as_bob.get(here).status_code == 404
    assert as_bob.post(f"{here}cancel/").status_code == 404
    assert as_bob.post(f"{here}resume/").status_code == 404
    assert as_bob.get("/api/v1/runs/").json()["count"] == 0


def test_what_a_run_depended_on_and_wrote_is_read(
    as_alice: ApiClient, as_bob: ApiClient, snapshot: DatasetSnapshot
) -> None:
    run = TrainingRun.objects.create(
        snapshot=snapshot, name="First", manifest={"seed": 3}, log_tail="step 1\nstep 2\n"
    )
    here = f"/api/v1/runs/{run.pk}/"
    assert as_alice.get(f"{here}manifest/").json() == {"seed": 3}
    assert as_alice.get(f"{here}log/").json() == {"text": "step 1\nstep 2\n"}
    assert as_bob.get(f"{here}manifest/").status_code == 404
    assert as_bob.get(f"{here}log/").status_code == 404


def test_several_runs_are_planned_at_once_and_read_together(
    as_alice: ApiClient, as_bob: ApiClient, snapshot: DatasetSnapshot
) -> None:
    def sweep(client: ApiClient, **tried: Any) -> Any:
        body = {
            "snapshot": snapshot.pk, "name": "First", "tried": tried,
            "config": {"base_model": "tiny", "server": "own"},
        }  # fmt: skip
        return client.post("/api/v1/sweeps/", body, content_type=JSON)

    plan(as_alice, snapshot)
    made = sweep(as_alice, rank=[16, 32], learning_rate=[1e-4, 2e-4])
    assert made.status_code == 202
    key, runs = made.json()["sweep"], made.json()["runs"]
    assert runs[0]["name"] == "First · rank 16 · learning_rate 0.0001"
    assert {(run["config"]["rank"], run["config"]["learning_rate"]) for run in runs} == {
        (rank, rate) for rank in (16, 32) for rate in (1e-4, 2e-4)
    }
    read = as_alice.get("/api/v1/runs/", {"sweep": key}).json()
    assert sorted(run["id"] for run in read["results"]) == [run["id"] for run in runs]
    assert as_alice.get("/api/v1/runs/").json()["count"] == 5

    assert sweep(as_bob, rank=[16, 32]).json()["errors"][0]["code"] == "does_not_exist"
    assert "at least 1" in str(sweep(as_alice, rank=[0, 16]).json()["errors"])
    assert "at most 12" in str(sweep(as_alice, seed=list(range(13))).json()["errors"])
    assert "no setting “warp”" in str(sweep(as_alice, warp=[1]).json()["errors"])
    assert TrainingRun.objects.count() == 5


def test_an_adapter_is_shown_to_who_may_read_what_it_learned(
    as_bob: ApiClient, as_charlie: ApiClient, snapshot: DatasetSnapshot, collection: Collection
) -> None:
    run = TrainingRun.objects.create(snapshot=snapshot, name="First")
    adapter = Adapter.objects.create(run=run, name="first-v1-00000000", audience_size=1)
    adapter.audience.add(collection)
    here = f"/api/v1/adapters/{adapter.pk}/"
    assert as_bob.get(here).json()["name"] == "first-v1-00000000"
    assert as_charlie.get(here).status_code == 404
    assert as_bob.get("/api/v1/adapters/").json()["count"] == 1
    assert as_charlie.get("/api/v1/adapters/").json()["count"] == 0
