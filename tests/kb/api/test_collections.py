from typing import Any

import pytest
from django.contrib.auth.models import Group

from kb.models import Collection, Document, Membership, User
from tests.kb.api.client import ApiClient
from tests.kb.api.conftest import client_of

JSON = "application/json"
COLLECTIONS = "/api/v1/collections/"


def test_a_new_collection_belongs_to_its_maker_alone(
    as_alice: ApiClient, as_bob: ApiClient
) -> None:
    made = as_bob.post(COLLECTIONS, {"name": "Moss", "description": "Wet"}, content_type=JSON)

    assert made.status_code == 201
    assert made.json()["role"] == "owner"
    assert as_alice.get(f"{COLLECTIONS}{made.json()['id']}/").status_code == 404


def test_the_list_shows_ones_own_role_and_the_number_of_documents(
    as_bob: ApiClient, document: Document
) -> None:
    body = as_bob.get(COLLECTIONS).json()

    assert body["count"] == 1
    assert body["results"][0]["role"] == "reader"
    assert body["results"][0]["document_count"] == 1


def test_the_list_is_narrowed_by_name_and_role(as_bob: ApiClient, collection: Collection) -> None:
    own = as_bob.post(COLLECTIONS, {"name": "Moss"}, content_type=JSON).json()["id"]

    def found(**query: Any) -> list[int]:
        return [row["id"] for row in as_bob.get(COLLECTIONS, query).json()["results"]]

    assert found() == [collection.pk, own]
    assert found(name="FIELD") == [collection.pk]
    assert found(role="owner") == [own]
    assert found(role=["owner", "reader"]) == [collection.pk, own]
    assert as_bob.get(COLLECTIONS, {"role": "king"}).json()["code"] == "invalid"


def test_everybody_reads_a_public_collection(
    as_alice: ApiClient, as_charlie: ApiClient, collection: Collection
) -> None:
    address = f"{COLLECTIONS}{collection.pk}/"
    as_alice.patch(address, {"is_public": True}, content_type=JSON)

    assert as_charlie.get(address).json()["role"] == "reader"
    assert as_charlie.patch(address, {"name": "Mine"}, content_type=JSON).status_code == 403


def test_a_name_is_taken_once(as_alice: ApiClient, collection: Collection) -> None:
    other = as_alice.post(COLLECTIONS, {"name": "Moss"}, content_type=JSON).json()["id"]
    again = as_alice.post(COLLECTIONS, {"name": "Moss"}, content_type=JSON)
    renamed = as_alice.patch(f"{COLLECTIONS}{other}/", {"name": collection.name}, content_type=JSON)

    for refused in (again, renamed):
        assert refused.status_code == 400
        assert refused.json()["errors"][0] | {"detail": ""} == {
            "field": "name",
            "code": "unique",
            "detail": "",
        }


@pytest.mark.parametrize("field", ["id", "created_by", "role", "created_at", "documents"])
def test_fields_that_are_not_the_callers_to_set_are_refused_by_name(
    field: str, as_alice: ApiClient, collection: Collection
) -> None:
    response = as_alice.patch(f"{COLLECTIONS}{collection.pk}/", {field: 1}, content_type=JSON)

    assert response.status_code == 400
    assert [error["field"] for error in response.json()["errors"]] == [field]


def test_a_deleted_collection_takes_its_documents_along(
    as_alice: ApiClient, collection: Collection, document: Document
) -> None:
    assert as_alice.delete(f"{COLLECTIONS}{collection.pk}/").status_code == 204
    assert as_alice.get(f"{COLLECTIONS}{collection.pk}/").status_code == 404
    assert as_alice.get(f"/api/v1/documents/{document.pk}/").status_code == 404


def test_people_and_groups_become_members_and_stop_being_it(
    as_alice: ApiClient, charlie: User, collection: Collection
) -> None:
    members = f"{COLLECTIONS}{collection.pk}/members/"
    group = Group.objects.create(name="Interns")
    charlie.groups.add(group)

    made = as_alice.post(members, {"group": "Interns", "role": "curator"}, content_type=JSON)
    assert made.json() | {"created_at": ""} == {
        "id": made.json()["id"],
        "username": None,
        "display_name": None,
        "group": "Interns",
        "role": "curator",
        "created_at": "",
    }
    assert client_of(charlie).get(COLLECTIONS).json()["results"][0]["role"] == "curator"

    as_alice.patch(f"{members}{made.json()['id']}/", {"role": "reader"}, content_type=JSON)
    assert client_of(charlie).get(COLLECTIONS).json()["results"][0]["role"] == "reader"

    assert as_alice.delete(f"{members}{made.json()['id']}/").status_code == 204
    assert client_of(charlie).get(COLLECTIONS).json()["count"] == 0


@pytest.mark.parametrize(
    "body",
    [
        {"username": "nobody", "role": "reader"},
        {"group": "nothing", "role": "reader"},
        {"username": "bob", "role": "reader"},
        {"username": "bob", "group": "x", "role": "reader"},
        {"role": "reader"},
        {"username": "charlie", "role": "king"},
        {"username": "charlie"},
    ],
)
def test_members_that_make_no_sense_are_refused(
    body: dict[str, Any], as_alice: ApiClient, charlie: User, collection: Collection
) -> None:
    response = as_alice.post(f"{COLLECTIONS}{collection.pk}/members/", body, content_type=JSON)

    assert response.json()["code"] == "invalid"
    assert collection.memberships.count() == 2


def test_names_of_people_are_not_guessed_in_bulk(
    as_alice: ApiClient, collection: Collection, settings: Any
) -> None:
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "lookup": 2}
    members = f"{COLLECTIONS}{collection.pk}/members/"

    codes = [
        as_alice.post(members, {"username": name, "role": "reader"}, content_type=JSON).status_code
        for name in ("adam", "berta", "caesar")
    ]

    assert codes == [400, 400, 429]


def test_a_collection_keeps_an_owner(as_alice: ApiClient, collection: Collection) -> None:
    owner = collection.memberships.get(role=Membership.Role.OWNER)
    address = f"{COLLECTIONS}{collection.pk}/members/{owner.pk}/"

    demoted = as_alice.patch(address, {"role": "reader"}, content_type=JSON)
    removed = as_alice.delete(address)

    assert demoted.json()["code"] == removed.json()["code"] == "last_owner"
    assert collection.memberships.filter(role=Membership.Role.OWNER).exists()


def test_a_list_costs_the_same_however_long(
    alice: User, as_alice: ApiClient, collection: Collection, django_assert_num_queries: Any
) -> None:
    members = f"{COLLECTIONS}{collection.pk}/members/"
    for address, queries in ((COLLECTIONS, 3), (members, 5)):
        as_alice.get(address)
        with django_assert_num_queries(queries):
            as_alice.get(address)
    for n in range(5):
        Collection.objects.create(name=f"More {n}").grant(alice, "curator")
        collection.grant(User.objects.create_user(f"person{n}"), "reader")
    for address, queries in ((COLLECTIONS, 3), (members, 5)):
        with django_assert_num_queries(queries):
            assert len(as_alice.get(address).json()["results"]) >= 6
