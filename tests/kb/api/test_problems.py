"""Refusals have one shape, a stable code, and tell nothing that is not the caller's."""

import re
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import RequestDataTooBig
from django.db import OperationalError
from rest_framework import exceptions

from kb import search
from kb.api.problems import ANSWERS, Code, problem_response, response_for
from kb.embedders import EmbeddingError
from kb.models import User
from tests.kb.api.client import ApiClient
from tests.kb.api.conftest import client_of

JSON = "application/json"
DOCS = Path(__file__).resolve().parents[3] / "docs" / "api.md"


def problem(response: Any) -> dict[str, Any]:
    """Read a problem and hold it against its own rules."""
    assert response["Content-Type"] == "application/problem+json"
    body = response.json()
    assert set(body) - {"errors"} == {"type", "title", "status", "detail", "code"}
    assert body["status"] == response.status_code == ANSWERS[Code(body["code"])][0]
    assert body["detail"].endswith((".", "…”."))
    return body


def test_every_code_is_documented_with_its_status_and_nothing_else_is() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d{3}) \|", DOCS.read_text(), re.MULTILINE)

    assert {code: int(status) for code, status in rows} == {
        code.value: ANSWERS[code][0] for code in Code
    }


def test_every_code_has_an_answer_that_is_a_sentence() -> None:
    for code in Code:
        response = response_for(code)
        assert response.data["detail"].endswith((".", "…”."))


@pytest.mark.parametrize("method", ["get", "post", "put", "patch", "delete", "options"])
@pytest.mark.parametrize("path", ["/api/v1/nothing/", "/api/v2/", "/api/", "/api/v1/documents/x/"])
@pytest.mark.django_db
def test_an_unknown_address_is_a_problem_too(method: str, path: str) -> None:
    assert problem(getattr(ApiClient(), method)(path))["code"] == "not_found"


@pytest.mark.django_db
def test_a_missing_slash_is_named() -> None:
    assert "slash" in problem(ApiClient().get("/api/v1/documents"))["detail"]


def test_a_wrong_method_is_named(as_alice: ApiClient) -> None:
    response = as_alice.put("/api/v1/documents/")

    assert problem(response)["code"] == "method_not_allowed"
    assert response["Allow"] == "GET, POST, HEAD"


def test_a_wrong_content_type_is_refused(as_alice: ApiClient) -> None:
    form = as_alice.post("/api/v1/collections/", {"name": "x"})
    json = as_alice.post("/api/v1/documents/", {"collection": 1}, content_type=JSON)

    assert problem(form)["code"] == problem(json)["code"] == "unsupported_media_type"


@pytest.mark.parametrize(
    "body",
    [
        "{",
        '{"name": NaN}',
        '{"name": "\\ud800"}',
        '{"\\uDC00": 1}',
        "[" * 100_000,
        '"' + "9" * 5_000,
        b"\xff\xfe",
        '{"name": 9' + "9" * 5_000 + "}",
    ],
)
def test_a_body_that_is_no_json_is_malformed(body: str | bytes, as_alice: ApiClient) -> None:
    response = as_alice.post("/api/v1/collections/", body, content_type=JSON)

    assert problem(response)["code"] == "malformed"


def test_a_whole_surrogate_pair_is_a_character(as_alice: ApiClient) -> None:
    body = r'{"name": "Ice \ud83e\uddca"}'

    made = as_alice.post("/api/v1/collections/", body, content_type=JSON)

    assert (made.status_code, made.json()["name"]) == (201, "Ice \U0001f9ca")


@pytest.mark.parametrize("body", ["[]", '"text"', "1", "null", "{}"])
def test_a_body_of_another_shape_is_invalid(body: str, as_alice: ApiClient) -> None:
    response = as_alice.post("/api/v1/collections/", body, content_type=JSON)

    assert problem(response)["code"] == "invalid"


def test_a_body_beyond_the_limit_is_too_large(as_alice: ApiClient, settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1_000
    body = {"name": "x", "description": "y" * 1_000}

    response = as_alice.post("/api/v1/collections/", body, content_type=JSON)

    assert problem(response)["code"] == "too_large"


def test_errors_name_each_field(as_alice: ApiClient) -> None:
    body = {"name": "", "scopes": ["read", "rule"], "extra": 1}
    unknown = as_alice.post("/api/v1/tokens/", body, content_type=JSON)
    del body["extra"]
    wrong = as_alice.post("/api/v1/tokens/", body, content_type=JSON)

    assert [(e["field"], e["code"]) for e in problem(unknown)["errors"]] == [("extra", "unknown")]
    assert [(e["field"], e["code"]) for e in problem(wrong)["errors"]] == [
        ("name", "blank"),
        ("scopes.1", "invalid_choice"),
    ]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("documents/?colection=1", "colection"),
        ("documents/?limit=201", "limit"),
        ("documents/?limit=0", "limit"),
        ("documents/?limit=ten", "limit"),
        ("documents/?offset=-1", "offset"),
        ("documents/?offset=99999999999999999999", "offset"),
        ("documents/?collection=99999999999999999999", "collection.0"),
        ("documents/?ordering=password", "ordering"),
        ("documents/?updated_since=soon", "updated_since"),
        ("documents/?name=%00", "name"),
        ("me/?limit=1", "limit"),
        ("search/?query=", "query"),
        ("search/?query=a&limit=101", "limit"),
        ("search/?query=a&since=2026-13-01", "since"),
    ],
)
def test_a_query_that_is_not_right_is_refused_by_name(
    path: str, name: str, as_alice: ApiClient
) -> None:
    body = problem(as_alice.get(f"/api/v1/{path}"))

    assert body["code"] == "invalid"
    assert [error["field"] for error in body["errors"]] == [name]


def test_ids_beyond_the_database_are_missing(as_alice: ApiClient) -> None:
    response = as_alice.get(f"/api/v1/documents/{10**30}/")

    assert problem(response)["code"] == "not_found"


def test_a_fault_of_ours_tells_nothing_of_itself(
    alice: User, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("the key is swordfish")

    monkeypatch.setattr(search, "search_page", broken)
    client = client_of(alice)
    client.raise_request_exception = False

    response = client.get("/api/v1/search/", {"query": "x"})

    assert problem(response)["code"] == "server_error"
    assert "swordfish" not in response.content.decode()
    assert "swordfish" in caplog.text


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (EmbeddingError("The embedding service is away."), Code.UNAVAILABLE),
        (OperationalError("connection refused by 10.0.0.3"), Code.UNAVAILABLE),
        (RequestDataTooBig(), Code.TOO_LARGE),
        (exceptions.Throttled(3), Code.RATE_LIMITED),
    ],
)
def test_known_faults_have_codes_and_say_when_to_come_back(error: Exception, code: Code) -> None:
    response = problem_response(error, {})

    assert response.data["code"] == code
    assert "10.0.0.3" not in response.data["detail"]
    assert ("Retry-After" in response) == (code in (Code.UNAVAILABLE, Code.RATE_LIMITED))


def test_too_many_requests_are_told_when_to_come_back(as_alice: ApiClient, settings: Any) -> None:
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "api": 3}
    answers = [as_alice.get("/api/v1/me/") for _ in range(5)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert problem(answers[-1])["code"] == "rate_limited"
    assert answers[-1]["Retry-After"] == "60"


@pytest.mark.django_db
def test_guessing_tokens_is_slowed_down(settings: Any) -> None:
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "api": 2}
    client = ApiClient(headers={"X-API-Key": "tacit_guess"}, REMOTE_ADDR="192.0.2.9")

    codes = [client.get("/api/v1/me/").json()["code"] for _ in range(4)]

    assert codes == ["invalid_token", "invalid_token", "rate_limited", "rate_limited"]
