"""Data sets and pairs over the API; who may what is in tests/kb/api."""

import pytest

from finetune.models import AuditEvent, Dataset, InstructionPair
from kb.models import Chunk, Collection, User
from tests.conftest import AddDocument
from tests.kb.api.client import ApiClient
from tests.kb.api.conftest import client_of

JSON = "application/json"
pytestmark = pytest.mark.django_db
API = "/api/v1/"


@pytest.fixture
def api(alice: User) -> ApiClient:
    return client_of(alice)


def post(client: ApiClient, path: str, body: object = None) -> tuple[int, dict]:
    sent = {} if body is None else {"data": body, "content_type": JSON}
    response = client.post(API + path, **sent)
    return response.status_code, response.json() if response.content else {}


def test_a_data_set_is_made_changed_and_counted(
    api: ApiClient, collection: Collection, bob: User
) -> None:
    status, made = post(api, "datasets/", {"collection": collection.pk, "name": "Ice"})
    assert (status, made["reviews_wanted"], made["suggested"]) == (201, 1, 0)
    status, again = post(api, "datasets/", {"collection": collection.pk, "name": "Ice"})
    assert (status, again["errors"][0]["field"]) == (400, "name")
    post(api, f"datasets/{made['id']}/pairs/", {"instruction": "When?", "output": "In August."})
    changed = api.patch(
        f"{API}datasets/{made['id']}/", {"name": "Snow", "reviews_wanted": 2}, content_type=JSON
    ).json()
    assert (changed["name"], changed["reviews_wanted"], changed["suggested"]) == ("Snow", 2, 1)
    assert client_of(bob).get(API + "datasets/").json()["count"] == 0
    assert post(client_of(bob), "datasets/", {"collection": collection.pk, "name": "x"})[0] == 403


def test_a_pair_is_written_with_passages_judged_and_taken_back(
    api: ApiClient, dataset: Dataset, add_document: AddDocument
) -> None:
    add_document("ice.md", "# Ice\n\nThe glacier melts in August.")
    chunk = Chunk.objects.get()
    wanted = {"instruction": "When?", "output": "In July [1].", "passages": [chunk.pk]}
    status, made = post(api, f"datasets/{dataset.pk}/pairs/", wanted)
    assert (status, made["sources"][0]["text"], made["state"]) == (201, chunk.text, "suggested")

    status, taken = post(api, f"datasets/{dataset.pk}/next/")
    assert (status, taken["id"]) == (200, made["id"])
    assert post(api, f"datasets/{dataset.pk}/next/")[0] == 204

    status, approved = post(api, f"pairs/{made['id']}/approve/", {"output": "In August [1]."})
    assert (approved["state"], approved["output"], approved["reviewer"]) == (
        "approved", "In August [1].", "alice",
    )  # fmt: skip
    status, refused = post(api, f"pairs/{made['id']}/reject/", {"reason": "odd"})
    assert (status, refused["code"]) == (409, "pair_refused")
    assert refused["detail"] == "This pair was decided in the meantime."

    status, undone = post(api, f"datasets/{dataset.pk}/undo/")
    assert (undone["state"], undone["output"]) == ("suggested", "In July [1].")
    post(api, f"pairs/{made['id']}/reject/", {"reason": "odd"})
    assert post(api, f"pairs/{made['id']}/reopen/")[1]["state"] == "suggested"
    log = api.get(f"{API}datasets/{dataset.pk}/log/", {"pair": made["id"]}).json()
    assert [row["action"] for row in log["results"]] == [
        "reopened", "rejected", "undone", "approved", "created",
    ]  # fmt: skip
    assert api.delete(f"{API}pairs/{made['id']}/").status_code == 204
    assert AuditEvent.objects.filter(action="deleted").exists()


def test_a_passage_that_one_may_not_read_is_not_there(
    api: ApiClient, dataset: Dataset, add_document: AddDocument
) -> None:
    add_document("vault.md", "The key.", to=Collection.objects.create(name="Closed"))
    wanted = {"instruction": "When?", "output": "No.", "passages": [Chunk.objects.get().pk]}
    assert post(api, f"datasets/{dataset.pk}/pairs/", wanted)[0] == 404
    assert post(api, f"datasets/{dataset.pk}/pairs/", {**wanted, "passages": [10**9]})[0] == 404


def test_pairs_are_narrowed_and_cost_the_same_for_any_number(
    api: ApiClient, dataset: Dataset, pair: InstructionPair, django_assert_max_num_queries: object
) -> None:
    InstructionPair.objects.bulk_create(
        InstructionPair(
            dataset=dataset, collection=dataset.collection, origin="import", instruction=str(n),
            output="Yes.", content_hash=str(n), flags=["secret"], tags=["ice"], state="rejected",
        )
        for n in range(30)
    )  # fmt: skip
    address = f"{API}datasets/{dataset.pk}/pairs/"
    queries = [
        {"state": "rejected"}, {"origin": "typed"}, {"flag": "secret"}, {"tag": "snow"},
        {"language": "english"}, {"document": 3}, {"is_disputed": "false"},
        {"state": ["rejected", "suggested"]},
    ]  # fmt: skip
    counts = [api.get(address, query).json()["count"] for query in queries]
    assert counts == [30, 1, 30, 0, 0, 0, 31, 31]
    with django_assert_max_num_queries(8):  # type: ignore[operator]
        assert len(api.get(address).json()["results"]) == 31
