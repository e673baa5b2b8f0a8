"""What all endpoints share: strict bodies and queries, pages, and handlers on the event loop."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, TypeVar

from django.db import models
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import get_object_or_404
from django.utils.datastructures import MultiValueDict
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.generics import GenericAPIView
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from kb.api.parsing import BoundedJSONParser
from kb.api.problems import Code, Problem
from kb.api.schema import DescribedSchema
from kb.database import in_database
from kb.models import ApiToken, User

M = TypeVar("M", bound=models.Model)
PAGE_PARAMETERS = {"limit", "offset"}


class CallerRequest(Request):
    """The request a handler sees once HasScope has let it through; `auth` is None for a session."""

    user: User
    auth: ApiToken | None


class Input(serializers.Serializer[Any]):
    """A request body or query; a field that it does not know is refused by name."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping) and (
            unknown := sorted(set(map(str, data)) - set(self.fields))
        ):
            raise ValidationError({name: [_unknown()] for name in unknown})
        return super().to_internal_value(data)


def close_inputs(result: dict[str, Any], generator: Any, **_: Any) -> dict[str, Any]:
    """Say in the OpenAPI document that an Input takes no other field; drf-spectacular calls it."""
    for component in generator.registry._components.values():
        form = component.object
        if isinstance(form, Input) or (isinstance(form, type) and issubclass(form, Input)):
            result["components"]["schemas"][component.name]["additionalProperties"] = False
    return result


def _unknown() -> ErrorDetail:
    return ErrorDetail("There is no such field here.", code="unknown")


class OneFormat(DefaultContentNegotiation):
    """Answer in the one format there is, whatever Accept says (RFC 9110 §12.5.1 allows it).

    An EventSource accepts text/event-stream only, and must be able to read its 404 nevertheless.
    """

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        renderer = next(iter(renderers))
        return renderer, str(renderer.media_type)


class ApiView(GenericAPIView[Any]):
    """An endpoint.

    By method: `scopes` (read by HasScope), `limits` (RequestThrottle), `query_forms`, and the
    `refusals` of its own that the OpenAPI document names.
    """

    http_method_names = ["get", "post", "put", "patch", "delete", "head"]
    content_negotiation_class = OneFormat
    parser_classes = [BoundedJSONParser]
    filter_backends = []
    schema = DescribedSchema()
    scopes: ClassVar[dict[str, tuple[str, ...]]] = {}
    limits: ClassVar[dict[str, str]] = {}
    query_forms: ClassVar[dict[str, type[Input]]] = {}
    refusals: ClassVar[dict[str, tuple[Code, ...]]] = {}
    paged: ClassVar[bool] = False

    @property
    def method(self) -> str:
        """The method whose rules hold: HEAD is a GET without its body."""
        return "GET" if self.request.method == "HEAD" else str(self.request.method)

    def body(self, form: type[Input], **context: Any) -> dict[str, Any]:
        """Read the request's body. Raises ValidationError."""
        return _checked(form(data=self.request.data, context=context))

    def query(self) -> dict[str, Any]:
        """Read the address's query with the method's form. Raises ValidationError."""
        of_the_page = PAGE_PARAMETERS if self.paged else set()
        values = {k: v for k, v in self.request.query_params.lists() if k not in of_the_page}
        return _checked(self._query_form()(data=MultiValueDict(values)))

    def page(
        self, rows: models.QuerySet[Any], shape: type[serializers.BaseSerializer[Any]]
    ) -> Response:
        """Give one page of the rows."""
        found = self.paginate_queryset(rows) or []
        return self.get_paginated_response(
            shape(found, many=True, context=self.get_serializer_context()).data
        )

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        self._refuse_unknown_parameters()

    def _query_form(self) -> type[Input]:
        return self.query_forms.get(self.method, Input)

    def _refuse_unknown_parameters(self) -> None:
        known = set(self._query_form()().fields)
        if self.paged and self.method == "GET":
            known |= PAGE_PARAMETERS
        if unknown := sorted(set(self.request.query_params) - known):
            raise ValidationError({name: [_unknown()] for name in unknown})


def _checked(form: Input) -> dict[str, Any]:
    form.is_valid(raise_exception=True)
    values: dict[str, Any] = form.validated_data
    return values


def find(rows: models.QuerySet[M], pk: int, *, within: models.QuerySet[M] | None = None) -> M:
    """Get a row the caller may see, or answer 404; one outside `within` answers 403."""
    row = get_object_or_404(rows, pk=pk)
    if within is not None and not within.filter(pk=pk).exists():
        raise Problem(Code.PERMISSION_DENIED)
    return row


class AsyncApiView(ApiView):
    """An endpoint whose handlers are coroutines.

    DRF's own dispatch is synchronous; this is the same road with the handler awaited, so that
    tokens, scopes, limits and problems are those of every other endpoint.
    """

    async def dispatch(  # type: ignore[override]
        self, request: HttpRequest, *args: Any, **kwargs: Any
    ) -> HttpResponseBase:
        self.args, self.kwargs = args, kwargs
        self.request = self.initialize_request(request, *args, **kwargs)
        self.headers = self.default_response_headers
        try:
            await in_database(self.initial, self.request, *args, **kwargs)
            if request.method not in self.allowed_methods:
                self.http_method_not_allowed(self.request)
            handler = getattr(self, str(request.method).lower())
            response = await handler(self.request, *args, **kwargs)
        except Exception as error:  # as DRF's dispatch: every error becomes a problem
            response = await in_database(self.handle_exception, error)
        self.response = self.finalize_response(self.request, response, *args, **kwargs)
        return self.response
