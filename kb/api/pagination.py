"""Lists come in pages: `limit` rows from `offset` on, with the count of all."""

from typing import Any

from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.pagination import LimitOffsetPagination
from rest_framework.request import Request

MAX_LIMIT = 200
MAX_OFFSET = 10_000_000


class Pagination(LimitOffsetPagination):
    """`limit` 1–200, 50 unless told; a number out of range is refused, not bent."""

    max_limit = MAX_LIMIT
    limit_query_description = f"How many to give, 1–{MAX_LIMIT}."
    offset_query_description = "How many to leave out first."
    template = None  # no HTML controls

    def get_limit(self, request: Request) -> int:
        return _number(
            request, "limit", default=int(self.default_limit or 50), least=1, most=MAX_LIMIT
        )

    def get_offset(self, request: Request) -> int:
        return _number(request, "offset", default=0, least=0, most=MAX_OFFSET)

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        link = {"type": ["string", "null"], "format": "uri"}
        return {
            "type": "object",
            "required": ["count", "next", "previous", "results"],
            "properties": {
                "count": {"type": "integer", "description": "How many there are in all."},
                "next": link,
                "previous": link,
                "results": schema,
            },
        }


def _number(request: Request, name: str, *, default: int, least: int, most: int) -> int:
    text = request.query_params.get(name, str(default))
    if text.isascii() and text.isdigit() and len(text) < 12 and least <= int(text) <= most:
        return int(text)
    sentence = ErrorDetail(f"This must be a whole number from {least} to {most}.", code="invalid")
    raise ValidationError({name: [sentence]})
