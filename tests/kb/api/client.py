"""Test clients that hold every answer against the OpenAPI document."""

import copy
import json
import re
from functools import cache
from typing import Any

from django.http import HttpResponse
from django.http.request import HttpHeaders
from django.test import AsyncClient, Client
from drf_spectacular.generators import SchemaGenerator
from openapi_schema_validator import OAS31Validator

PREFIX = "/api/v1/"


@cache
def document() -> dict[str, Any]:
    """The OpenAPI document, with objects closed: a field it does not name is an error."""
    made = json.loads(json.dumps(SchemaGenerator().get_schema(request=None, public=True)))
    for component in made["components"]["schemas"].values():
        if component.get("type") == "object" and "properties" in component:
            component["additionalProperties"] = False
    return made


def operation_of(method: str, path: str) -> tuple[str, dict[str, Any]] | None:
    """Find the path template and operation that a request belongs to."""
    for template, operations in document()["paths"].items():
        pattern = re.sub(r"\{\w+\}", r"\\d+", template)
        if re.fullmatch(pattern, path) and method.lower() in operations:
            return template, operations[method.lower()]
    return None


def check(method: str, path: str, response: HttpResponse) -> None:
    """Fail when the response is not one that the document promises."""
    found = operation_of("get" if method == "HEAD" else method, path)
    if path == f"{PREFIX}docs/":
        return  # a page, no operation
    if found is None:
        assert response.status_code in (401, 404, 405, 403), (method, path, response.status_code)
        return
    template, operation = found
    status = str(response.status_code)
    assert status in operation["responses"], f"{method} {template} answered {status}, undocumented"
    content = operation["responses"][status].get("content", {})
    if not content:
        assert not response.content
        return
    media_type = response["Content-Type"].partition(";")[0]
    assert media_type in content, f"{method} {template} answered {media_type}, undocumented"
    if method != "HEAD" and not response.streaming and media_type.endswith("json"):
        schema = copy.copy(content[media_type]["schema"])
        schema["components"] = document()["components"]
        OAS31Validator(schema).validate(json.loads(response.content))


def check_body(method: str, path: str, body: bytes) -> None:
    """Fail when a body that was taken is not one that the document describes."""
    found = operation_of(method, path)
    assert found is not None
    content = found[1].get("requestBody", {}).get("content", {})
    schema = copy.copy(content["application/json"]["schema"])
    schema["components"] = document()["components"]
    OAS31Validator(schema).validate(json.loads(body))


class ApiClient(Client):
    """`checks_bodies`: off where a test sends what is only bent into shape, as "1" for 1."""

    checks_bodies = True

    def generic(self, method: str, path: str, data: Any = "", *rest: Any, **more: Any) -> Any:
        response = super().generic(method, path, data, *rest, **more)
        content_type = more.get("content_type", rest[0] if rest else "")
        was_taken = bool(data) and response.status_code < 300
        if was_taken and self.checks_bodies and content_type == "application/json":
            check_body(method, path.partition("?")[0], data)
        return response

    def request(self, **request: Any) -> Any:
        response = super().request(**request)
        check(request["REQUEST_METHOD"], request["PATH_INFO"], response)
        return response


class AsyncApiClient(AsyncClient):
    def __init__(self, *, headers: dict[str, str] | None = None, **defaults: Any) -> None:
        # Django 5.2 gives the headers of an AsyncClient the names of WSGI, which ASGI ignores.
        super().__init__(**HttpHeaders.to_asgi_names(headers or {}), **defaults)

    async def request(self, **request: Any) -> Any:
        response = await super().request(**request)
        check(request["method"], request["path"], response)
        return response
