from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from kb.models import ApiToken, User
from tests.conftest import PASSWORD
from tests.kb.api.client import ApiClient
from tests.kb.api.conftest import client_of

JSON = "application/json"
TOKENS = "/api/v1/tokens/"


def make_token(client: ApiClient, **body: Any) -> Any:
    return client.post(TOKENS, {"name": "Script", "scopes": ["read"], **body}, content_type=JSON)


def test_me_says_who_i_am_and_what_the_token_may(alice: User) -> None:
    body = client_of(alice, "read", "ask").get("/api/v1/me/").json()

    assert body["username"] == "alice"
    assert body["scopes"] == ["read", "ask"]


def test_a_new_token_shows_its_secret_once_and_opens_the_door(as_alice: ApiClient) -> None:
    secret = make_token(as_alice).json()["secret"]

    assert ApiClient(headers={"X-API-Key": secret}).get("/api/v1/me/").json()["scopes"] == ["read"]
    assert secret not in as_alice.get(TOKENS).content.decode()
    assert not ApiToken.objects.filter(digest__contains=secret[-20:]).exists()


def test_a_token_expires_in_three_months_unless_told_and_in_a_year_at_the_latest(
    as_alice: ApiClient, alice: User
) -> None:
    ApiToken.objects.update(expires_at=timezone.now() + timedelta(days=900))
    now = timezone.now()
    default = make_token(as_alice).json()["expires_at"]
    assert default.startswith((now + timedelta(days=90)).date().isoformat())

    for when in (now - timedelta(days=1), now + timedelta(days=400)):
        assert make_token(as_alice, expires_at=when.isoformat()).status_code == 400


def test_a_token_makes_no_stronger_one(alice: User) -> None:
    weak = client_of(alice, "manage", "read")
    end = timezone.now() + timedelta(hours=1)
    ApiToken.objects.update(expires_at=end)
    later = (end + timedelta(minutes=1)).isoformat()

    assert make_token(weak, scopes=["write"]).json()["code"] == "missing_scope"
    assert make_token(weak, expires_at=later).json()["errors"][0]["field"] == "expires_at"
    made = make_token(weak)
    assert made.status_code == 201
    assert ApiToken.objects.get(pk=made.json()["id"]).expires_at == end


def test_a_revoked_token_is_refused_and_cannot_be_revoked_again(as_alice: ApiClient) -> None:
    made = make_token(as_alice).json()
    address = f"{TOKENS}{made['id']}/"

    assert as_alice.delete(address).status_code == 204
    assert as_alice.delete(address).status_code == 404
    used = ApiClient(headers={"X-API-Key": made["secret"]}).get("/api/v1/me/")
    assert used.json()["code"] == "invalid_token"


def test_the_use_of_a_token_is_noted_at_most_once_a_minute(
    as_alice: ApiClient, django_assert_num_queries: Any
) -> None:
    as_alice.get("/api/v1/me/")
    first = ApiToken.objects.get().last_used_at
    with django_assert_num_queries(1):
        as_alice.get("/api/v1/me/")
    assert ApiToken.objects.get().last_used_at == first

    ApiToken.objects.update(last_used_at=timezone.now() - timedelta(minutes=2))
    as_alice.get("/api/v1/me/")
    assert ApiToken.objects.get().last_used_at > first


def test_a_session_reads_but_writes_only_with_the_csrf_token(alice: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.login(username="alice", password=PASSWORD)
    client.get("/api/v1/docs/")  # sets the CSRF cookie
    headers = {"X-CSRFToken": client.cookies["csrftoken"].value}

    assert client.get("/api/v1/me/").json()["scopes"] == ApiToken.Scope.values
    without = client.post("/api/v1/collections/", {"name": "Own"}, content_type=JSON)
    assert (without.status_code, without.json()["code"]) == (403, "csrf_failed")
    with_it = client.post(
        "/api/v1/collections/", {"name": "Own"}, content_type=JSON, headers=headers
    )
    assert with_it.status_code == 201


def test_a_wrong_token_is_not_saved_by_a_session(alice: User) -> None:
    client = Client()
    client.force_login(alice)

    answer = client.get("/api/v1/me/", headers={"Authorization": "Bearer tacit_wrong"})

    assert answer.status_code == 401


@pytest.mark.parametrize(
    "value", ["Bearer", "Bearer ", "bearer x y", "Basic YTpi", "Token x", "Bearer \xe9", "tacit_x"]
)
@pytest.mark.django_db
def test_odd_authorization_headers_are_refused(value: str) -> None:
    answer = ApiClient(headers={"Authorization": value}).get("/api/v1/me/")

    assert answer.status_code == 401
