"""Programs activate, follow and take back; what is not theirs is not there."""

from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from finetune import activation, loading
from finetune.models import (
    Activation,
    Adapter,
    AuditEvent,
    Dataset,
    InstructionPair,
    RetrainRule,
)
from kb.backends import get_backend
from kb.models import Collection, User
from tests.finetune.activating import answers, deployed, evaluate, make_adapter, make_run, speaker
from tests.finetune.test_snapshots import write_pair
from tests.kb.api.client import ApiClient

JSON = "application/json"
pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("away")]


def ask(client: ApiClient, adapter: Adapter, **fields: Any) -> Any:
    where = f"/api/v1/adapters/{adapter.pk}/activations/"
    return client.post(where, {"reason": "Better.", **fields}, content_type=JSON)


def test_an_activation_is_asked_for_followed_and_listed(
    as_alice: ApiClient, adapter: Adapter
) -> None:
    refused = ask(as_alice, adapter)
    assert (refused.status_code, refused.json()["code"]) == (409, "not_now")
    assert "was not evaluated" in refused.json()["detail"]
    evaluate(adapter)
    Group.objects.create(name="Testers")

    made = ask(as_alice, adapter, share=0.1, groups=["Testers"])

    assert made.status_code == 202
    body = made.json()
    assert (body["state"], body["share"], body["groups"]) == ("requested", 0.1, ["Testers"])
    assert as_alice.get(f"/api/v1/activations/{body['id']}/").json() == body
    listed = as_alice.get(f"/api/v1/adapters/{adapter.pk}/activations/").json()
    assert [row["id"] for row in listed["results"]] == [body["id"]]
    assert ask(as_alice, adapter, groups=["Nobody"]).status_code == 400


def test_it_is_taken_back_and_the_answers_are_counted(
    as_alice: ApiClient, adapter: Adapter, alice: User
) -> None:
    standing = deployed(adapter, alice)
    label = get_backend("GENERATOR").label
    for message in answers(alice, 4, label=label, deployment=standing.deployment):
        message.rate(alice, 1)
    layer = as_alice.get("/api/v1/serving/").json()["layers"][0]
    assert (layer["adapter"], layer["share"]) == (adapter.name, 1.0)
    found = as_alice.get(f"/api/v1/activations/{standing.pk}/").json()
    assert (found["after"]["rated"], found["after"]["good"]) == (4, 1.0)
    assert found["before"]["rated"] == 0

    back = as_alice.post(
        f"/api/v1/activations/{standing.pk}/roll-back/", {"reason": "Worse."}, content_type=JSON
    )

    assert back.json()["state"] == "rolled_back"
    assert speaker(alice) == ""
    again = as_alice.post(f"/api/v1/activations/{standing.pk}/roll-back/", {}, content_type=JSON)
    assert again.status_code == 409


def test_a_second_person_approves_or_the_first_withdraws(
    as_alice: ApiClient, as_bob: ApiClient, adapter: Adapter, collection: Collection, bob: User,
    settings: Settings,
) -> None:  # fmt: skip
    settings.SECOND_PERSON_ACTIVATES = True
    evaluate(adapter)
    first = f"/api/v1/activations/{ask(as_alice, adapter).json()['id']}"
    assert as_alice.post(f"{first}/approve/").status_code == 409
    assert as_bob.post(f"{first}/approve/").status_code == 404
    assert as_alice.post(f"{first}/withdraw/").json()["state"] == "failed"
    second = f"/api/v1/activations/{ask(as_alice, adapter).json()['id']}"
    collection.grant(bob, "owner")
    approved = as_bob.post(f"{second}/approve/")
    assert (approved.status_code, approved.json()["approved_by"]) == (202, "bob")


def test_others_find_nothing(
    as_bob: ApiClient, as_charlie: ApiClient, adapter: Adapter, alice: User, dataset: Dataset,
    collection: Collection,
) -> None:  # fmt: skip
    evaluate(adapter)
    standing = deployed(adapter, alice)
    pair = write_pair(dataset, "When?", "In August.", sources=[(collection, 7)])
    make_run(dataset, started_at=timezone.now(), gpu_seconds=10)
    for client in (as_bob, as_charlie):
        for own, missing in (
            (f"adapters/{adapter.pk}/activations/", "adapters/9999/activations/"),
            (f"activations/{standing.pk}/", "activations/9999/"),
            (f"datasets/{dataset.pk}/retrain-rule/", "datasets/9999/retrain-rule/"),
        ):
            answers_ = [client.get(f"/api/v1/{path}") for path in (own, missing)]
            assert [answer.status_code for answer in answers_] == [404, 404]
        assert ask(client, adapter).status_code == 404
        back = client.post(f"/api/v1/activations/{standing.pk}/roll-back/", {}, content_type=JSON)
        assert back.status_code == 404
        assert client.post(f"/api/v1/adapters/{adapter.pk}/unload/").status_code == 404
        erased = client.post(
            "/api/v1/erasures/", {"kind": "document", "name": "7"}, content_type=JSON
        )
        assert erased.status_code == 404
        assert client.get("/api/v1/ledger/").json()["months"] == []
    assert as_charlie.get("/api/v1/serving/").json()["layers"][0]["adapter"] is None
    assert as_bob.get("/api/v1/serving/").json()["layers"][0]["adapter"] == adapter.name
    pair.refresh_from_db()
    assert pair.state == "approved"
    assert Activation.objects.get().state == "deployed"


@pytest.fixture
def empty_tgi(settings: Settings, tmp_path: Path) -> None:
    """A supervisor that has nothing loaded and has read what is wanted."""
    settings.MODEL_SERVER_KIND, settings.TGI_SUPERVISOR_DIR = "tgi", str(tmp_path)
    loading.write_state(tmp_path, loading.SupervisorState(revision=9), {})


def test_what_answers_nobody_is_unloaded_and_nothing_else(
    as_alice: ApiClient, adapter: Adapter, alice: User, empty_tgi: None, tmp_path: Path,
    capsys: Any,
) -> None:  # fmt: skip
    standing = deployed(adapter, alice)
    where = f"/api/v1/adapters/{adapter.pk}/unload/"
    refused = as_alice.generic("POST", where)  # with no body at all
    assert (refused.status_code, refused.json()["code"]) == (409, "not_now")
    assert "may still answer somebody" in refused.json()["detail"]
    with pytest.raises(CommandError, match="may still answer somebody"):
        call_command("unload", adapter.name, user="alice")
    with pytest.raises(CommandError, match="bob manages no adapter"):
        call_command("unload", adapter.name, user="bob")

    activation.take_back(standing, alice, state="rolled_back", reason="Worse.")
    with loading.wanted(tmp_path) as wanted:
        wanted[adapter.name] = "/x"
    gone = as_alice.post(where, {"reason": "Memory."}, content_type=JSON)
    assert gone.json()["retired_at"] is not None
    assert loading.read_wanted(tmp_path)[0] == {}
    call_command("unload", adapter.name, user="alice", reason="Once more.")
    assert "its files are kept" in capsys.readouterr().out
    told = AuditEvent.objects.filter(action="unloaded", subject_id=adapter.pk).order_by("pk")
    assert [(event.user, event.detail["reason"]) for event in told] == [
        (alice, "Memory."), (alice, "Once more."),
    ]  # fmt: skip


def test_adapters_are_listed_with_the_gate_and_whom_they_answer(
    as_alice: ApiClient, as_bob: ApiClient, as_charlie: ApiClient, adapter: Adapter, alice: User,
    dataset: Dataset, tmp_path: Path, django_assert_num_queries: Any,
) -> None:  # fmt: skip
    one = f"/api/v1/adapters/{adapter.pk}/"
    shown = as_alice.get(one).json()
    assert (shown["gate"], shown["answers"], shown["base_model"]) == ("not_evaluated", None, "base")
    evaluate(adapter)
    trial = deployed(adapter, alice, share=0.1)
    assert trial.deployment is not None
    trial.deployment.groups.add(Group.objects.create(name="Testers"))

    with CaptureQueriesContext(connection) as alone:
        (row,) = as_alice.get("/api/v1/adapters/").json()["results"]
    taken = len(alone)

    assert row == as_alice.get(one).json()
    assert row["gate"] == "passed"
    assert (row["answers"]["share"], row["answers"]["groups"]) == (0.1, ["Testers"])
    (read,) = as_bob.get("/api/v1/adapters/").json()["results"]
    assert (read["gate"], read["answers"]) == ("", row["answers"]), "evaluations are not bob's"
    assert as_charlie.get("/api/v1/adapters/").json()["results"] == []
    for number in range(3):
        evaluate(make_adapter(dataset, f"more-v{number}-0000000b", data_dir=tmp_path), passed=False)
    with django_assert_num_queries(taken):
        rows = as_alice.get("/api/v1/adapters/").json()["results"]
    assert [each["gate"] for each in rows] == [*["refused"] * 3, "passed"]


def test_rule_ledger_and_erasure(
    as_alice: ApiClient, dataset: Dataset, collection: Collection
) -> None:
    where = f"/api/v1/datasets/{dataset.pk}/retrain-rule/"
    assert as_alice.get(where).json()["new_pairs"] == 0
    assert not RetrainRule.objects.exists(), "reading makes nothing"
    write_pair(dataset, "When?", "In August.", sources=[(collection, 7)])
    rule = as_alice.put(where, {"new_pairs": 1}, content_type=JSON).json()
    assert rule["met"] == ["1 pairs were approved since the last run."]
    assert as_alice.put(where, {"stale_share": 2}, content_type=JSON).status_code == 400
    make_run(dataset, started_at=timezone.now(), gpu_seconds=10, cost=2.5)
    [month] = as_alice.get("/api/v1/ledger/").json()["months"]
    assert (month["runs"], month["gpu_seconds"], month["cost"]) == (1, 10.0, 2.5)
    body = {"kind": "document", "name": "7", "reason": "Asked."}
    assert as_alice.post("/api/v1/erasures/", body, content_type=JSON).json() == {
        "pairs": 1,
        "adapters": [],
    }
    assert InstructionPair.objects.get().state == "stale"


# --- Commands ------------------------------------------------------------------------------------


def test_the_commands_ask_and_take_back(adapter: Adapter, alice: User, capsys: Any) -> None:
    with pytest.raises(CommandError, match="was not evaluated"):
        call_command("activate", adapter.name, reason="Better.", user="alice")
    evaluate(adapter)
    with pytest.raises(CommandError, match="bob manages no adapter"):
        call_command("activate", adapter.name, reason="Better.", user="bob")
    with pytest.raises(CommandError, match="no group Nobody"):
        call_command("activate", adapter.name, reason="Better.", user="alice", group=["Nobody"])
    call_command("activate", adapter.name, reason="Better.", user="alice", no_wait=True)
    assert Activation.objects.get().state == "requested"
    Activation.objects.all().delete()
    deployed(adapter, alice)
    with pytest.raises(CommandError, match="bob does not manage it"):
        call_command("roll_back", adapter.name, user="bob")
    call_command("roll_back", adapter.name, user="alice", reason="Worse.")
    assert speaker(alice) == ""
    assert "answers again" in capsys.readouterr().out
