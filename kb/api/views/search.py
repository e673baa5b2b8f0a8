"""Search, by address or by body."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.response import Response

from kb import search
from kb.api.base import ApiView, CallerRequest
from kb.api.inputs import SearchInput, filters_of
from kb.api.serializers import SearchSerializer
from kb.models import ApiToken, User


class Search(ApiView):
    scopes = {"GET": (ApiToken.Scope.READ,), "POST": (ApiToken.Scope.READ,)}
    query_forms = {"GET": SearchInput}

    @extend_schema(responses=SearchSerializer, operation_id="search")
    def get(self, request: CallerRequest) -> Response:
        """Find the passages that answer best, among those you may read."""
        return _found(request.user, self.query())

    @extend_schema(
        request=SearchInput, responses={200: SearchSerializer}, operation_id="search_by_body"
    )
    def post(self, request: CallerRequest) -> Response:
        """Find the passages that answer best; the same as GET for long queries and lists."""
        return _found(request.user, self.body(SearchInput))


def _found(user: User, wanted: dict[str, Any]) -> Response:
    results = search.search_page(
        user,
        wanted["query"],
        filters=filters_of(wanted),
        limit=wanted["limit"],
        offset=wanted["offset"],
    )
    facets = {
        name: [{"value": value, "label": label, "count": count} for value, label, count in rows]
        for name, rows in results.facets.items()
    }
    shown = {
        "count": results.total,
        "hits": results.hits,
        "facets": facets,
        "took_ms": results.took_ms,
    }
    return Response(SearchSerializer(shown).data)
