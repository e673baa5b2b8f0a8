"""The OpenAPI document says what there is, no more and no less."""

import re
from pathlib import Path

import pytest
from django.core.management import call_command
from django.urls import get_resolver
from django.urls.resolvers import RoutePattern, URLPattern

from finetune.api.urls import urlpatterns as curation_urlpatterns
from kb.api.base import ApiView
from kb.api.urls import urlpatterns as kb_urlpatterns
from kb.api.views.docs import Schema, UnknownAddress
from tests.kb.api.client import document

urlpatterns = [*curation_urlpatterns, *kb_urlpatterns]
UNDOCUMENTED = {"schema", "docs", "unknown"}


def routes() -> list[tuple[str, URLPattern]]:
    return [
        (
            "/api/v1/"
            + re.sub(r"<int:(\w+)>", r"{\1}", str(pattern.pattern)).replace("{pk}", "{id}"),
            pattern,
        )
        for pattern in urlpatterns
        if pattern.name not in UNDOCUMENTED
    ]


def views() -> list[type[ApiView]]:
    return [pattern.callback.cls for _, pattern in routes()]


def methods_of(view: type[ApiView]) -> set[str]:
    return {m for m in ("get", "post", "put", "patch", "delete") if hasattr(view, m)}


def test_the_document_is_valid_and_made_without_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "schema.yaml"
    call_command("spectacular", "--validate", "--fail-on-warn", "--file", str(file))

    assert file.read_text().startswith("openapi: 3.1")


def test_every_route_and_method_is_in_the_document_and_the_other_way_round() -> None:
    in_code = {(path, m) for path, p in routes() for m in methods_of(p.callback.cls)}
    in_document = {(path, m) for path, ops in document()["paths"].items() for m in ops}

    assert in_code == in_document


def test_the_page_about_the_api_names_every_address_and_filter_there_is() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "api.md").read_text()
    rows = [line.split(" | ", 1) for line in page.splitlines() if line.startswith("| `")]
    named = {path for row in rows for path in re.findall(r"`([\w/{}-]+/)`", row[0])}
    assert named == {path.removeprefix("/api/v1/") for path in document()["paths"]}

    for path, operations in document()["paths"].items():
        listed = "offset" in {p["name"] for p in operations.get("get", {}).get("parameters", [])}
        if listed and path != "/api/v1/search/":
            address = path.removeprefix("/api/v1/")
            told = next((row[1] for row in rows if row[0] == f"| `{address}`"), "")
            own = {p["name"] for p in operations["get"]["parameters"]} - {"id", "limit", "offset"}
            assert own <= set(re.findall(r"`(\w+)`", told)), address


def test_only_the_schema_and_unknown_addresses_are_open_to_everyone() -> None:
    open_to_all = {
        pattern.callback.cls
        for pattern in urlpatterns
        if getattr(pattern.callback, "cls", None)
        and not pattern.callback.cls.authentication_classes
    }

    assert open_to_all == {Schema, UnknownAddress}


@pytest.mark.parametrize("view", views())
def test_every_method_names_the_scopes_that_open_it(view: type[ApiView]) -> None:
    assert {method.lower() for method in view.scopes} == methods_of(view)


def test_the_document_is_served_to_everyone_and_names_both_ways_to_sign_in(client) -> None:
    response = client.get("/api/v1/schema/")

    assert response.status_code == 200
    assert response["Content-Type"] == "application/vnd.oai.openapi+json"
    assert {"bearerToken", "apiKey", "session"} == set(
        response.json()["components"]["securitySchemes"]
    )


def test_every_operation_has_a_summary_and_its_scopes() -> None:
    for path, operations in document()["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], (method, path)
            assert path == "/api/v1/me/" or "Token scope" in operation["description"], (
                method,
                path,
            )


def test_the_api_stands_below_its_version_in_the_whole_resolver() -> None:
    prefixes = [p for p in get_resolver().url_patterns if isinstance(p.pattern, RoutePattern)]

    assert "api/v1/" in [str(p.pattern) for p in prefixes]
