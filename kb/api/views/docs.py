"""The OpenAPI document and the page that shows it; and the answer to unknown addresses."""

import json
from functools import cache

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import Resolver404, resolve
from django.views.decorators.csrf import ensure_csrf_cookie
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.utils import extend_schema
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response

from kb.api.base import ApiView
from kb.api.problems import Code, response_for


class Everyone(BasePermission):
    """What says nothing about this install: its schema, and that an address does not exist."""

    def has_permission(self, request: Request, view: object) -> bool:
        return True


class Schema(ApiView):
    permission_classes = [Everyone]
    authentication_classes = []

    @extend_schema(exclude=True)
    def get(self, request: Request) -> HttpResponse:
        """Give the OpenAPI document."""
        return HttpResponse(_document(), content_type="application/vnd.oai.openapi+json")


@cache
def _document() -> bytes:
    # The code is the only thing it depends on, and it takes a third of a second.
    return json.dumps(SchemaGenerator().get_schema(request=None, public=True)).encode()


class UnknownAddress(ApiView):
    permission_classes = [Everyone]
    authentication_classes = []
    http_method_names = ["get", "head", "post", "put", "patch", "delete", "options"]
    metadata_class = None

    @extend_schema(exclude=True)
    def initial(self, request: Request, *args: object, **kwargs: object) -> None:
        self.check_throttles(request)

    def http_method_not_allowed(  # type: ignore[override]
        self, request: Request, *args: object, **kwargs: object
    ) -> Response:
        return response_for(Code.NOT_FOUND, _hint(request.path))


def _hint(path: str) -> str:
    """Say so when only the slash at the end is missing."""
    if path.endswith("/"):
        return ""
    try:
        match = resolve(f"{path}/")
    except Resolver404:
        return ""
    known = getattr(match.func, "cls", None) is not UnknownAddress
    return "Addresses here end with a slash." if known else ""


@ensure_csrf_cookie
def docs(request: HttpRequest) -> HttpResponse:
    """Show the OpenAPI document; the script and the style come from this server."""
    return render(request, "kb/api_docs.html")
