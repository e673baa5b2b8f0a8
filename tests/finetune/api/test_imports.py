"""Pairs go in and out over the API."""

import json
from typing import Any

from django.core.files.uploadedfile import SimpleUploadedFile

from finetune.models import AuditEvent, Dataset, InstructionPair, PairImport
from kb.models import Job, User
from tests.kb.api.client import ApiClient
from tests.kb.api.conftest import client_of
from workers import tasks

GOOD = {"instruction": "When does it melt?", "output": "In August.", "id": 7}
BAD = {"instruction": "Why?", "output": ""}
JSON = "application/json"


def post(client: ApiClient, dataset: Dataset, *rows: object, **fields: object) -> Any:
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    file = SimpleUploadedFile("pairs.jsonl", data)
    return client.post(f"/api/v1/datasets/{dataset.pk}/imports/", {"file": file, **fields})


def test_a_file_comes_in_and_is_followed(as_alice: ApiClient, dataset: Dataset) -> None:
    answer = post(as_alice, dataset, GOOD, BAD)

    assert answer.status_code == 201
    assert answer.json()["outcome"] == "new"
    made = answer.json()["pair_import"]
    assert (made["container"], made["format"], made["state"]) == ("jsonl", "alpaca", "waiting")
    assert tasks.work_on_next(Job.Kind.IMPORT)
    now = as_alice.get(f"/api/v1/imports/{made['id']}/").json()
    assert (now["state"], now["percent"]) == ("done", 100)
    assert (now["row_count"], now["imported_count"], now["problem_count"]) == (2, 1, 1)
    [problem] = as_alice.get(f"/api/v1/imports/{made['id']}/problems/").json()["results"]
    assert (problem["row"], problem["reason"]) == (2, "The output is empty.")
    assert json.loads(problem["raw"]) == BAD
    listed = as_alice.get(f"/api/v1/datasets/{dataset.pk}/imports/").json()
    assert [row["id"] for row in listed["results"]] == [made["id"]]


def test_the_same_file_again_changes_nothing(as_alice: ApiClient, dataset: Dataset) -> None:
    first = post(as_alice, dataset, GOOD).json()["pair_import"]

    again = post(as_alice, dataset, GOOD)

    assert again.status_code == 200
    assert again.json()["outcome"] == "same file"
    assert again.json()["pair_import"]["id"] == first["id"]
    assert Job.objects.filter(kind=Job.Kind.IMPORT).count() == 1


def test_a_file_is_looked_at_changed_and_then_started(
    as_alice: ApiClient, dataset: Dataset
) -> None:
    made = post(as_alice, dataset, {"Frage": "Wann?", "Antwort": "Bald."}, start="false").json()
    address = f"/api/v1/imports/{made['pair_import']['id']}/"
    assert made["pair_import"]["state"] == "not_started"

    mapping = {"instruction": "Frage", "output": "Antwort"}
    changed = as_alice.patch(address, {"format": "columns", "mapping": mapping}, content_type=JSON)
    assert changed.json()["mapping"] == mapping
    seen = as_alice.get(f"{address}preview/").json()
    assert seen["columns"] == ["Frage", "Antwort"]
    assert (seen["row_count"], seen["pair_count"], seen["problem_count"]) == (1, 1, 0)
    assert seen["pairs"][0]["output"] == "Bald."

    assert as_alice.post(f"{address}start/").status_code == 202
    assert tasks.work_on_next(Job.Kind.IMPORT)
    assert dataset.pairs.get().output == "Bald."
    for again in (
        as_alice.post(f"{address}start/"),
        as_alice.delete(address),
        as_alice.patch(address, {"format": "alpaca"}, content_type=JSON),
    ):
        assert (again.status_code, again.json()["code"]) == (409, "already_started")


def test_a_mapping_that_cannot_be_is_refused(as_alice: ApiClient, dataset: Dataset) -> None:
    made = post(as_alice, dataset, GOOD, start="false").json()["pair_import"]
    for mapping in ({"answer": "output"}, {"output": "a", "instruction": "a"}):
        refused = as_alice.patch(
            f"/api/v1/imports/{made['id']}/", {"mapping": mapping}, content_type=JSON
        )
        assert refused.status_code == 400
        assert refused.json()["errors"][0]["field"] == "mapping"


def test_a_file_without_pairs_gets_a_sentence(as_alice: ApiClient, dataset: Dataset) -> None:
    refused = post(as_alice, dataset, "no object")

    assert (refused.status_code, refused.json()["code"]) == (400, "upload_refused")
    assert not PairImport.objects.exists()


def test_pairs_go_out(as_alice: ApiClient, dataset: Dataset, pair: InstructionPair) -> None:
    address = f"/api/v1/datasets/{dataset.pk}/export/"
    assert as_alice.get(address).getvalue() == b""  # nothing is approved
    pair.state = InstructionPair.State.APPROVED
    pair.save()

    answer = as_alice.get(address, {"kind": "messages_jsonl", "provenance": "false"})

    assert json.loads(answer.getvalue()) == {
        "messages": [
            {"role": "user", "content": "When does the glacier melt?"},
            {"role": "assistant", "content": "In August."},
        ]
    }
    assert answer["Content-Disposition"] == 'attachment; filename="glaciers.jsonl"'
    assert AuditEvent.objects.filter(action=AuditEvent.Action.EXPORTED).count() == 2


def test_a_reader_finds_nothing(as_bob: ApiClient, dataset: Dataset, alice: User) -> None:
    made = post(client_of(alice), dataset, GOOD).json()["pair_import"]

    assert post(as_bob, dataset, GOOD).status_code == 404
    for path in (f"imports/{made['id']}/", f"datasets/{dataset.pk}/export/"):
        assert as_bob.get(f"/api/v1/{path}").status_code == 404
