"""The OpenAPI document, made from the endpoints themselves: docstrings, forms, scopes, refusals."""

from typing import TYPE_CHECKING, Any

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import get_doc
from rest_framework import serializers

from kb.api.problems import ANSWERS, MEDIA_TYPE, Code
from kb.limits import WINDOW_S

if TYPE_CHECKING:  # its own module loads this one
    from kb.api.base import ApiView


class FieldErrorSerializer(serializers.Serializer[Any]):
    """What is wrong with one field."""

    field = serializers.CharField(help_text="“tags.0” is the first tag; “” is the whole body.")
    code = serializers.CharField(help_text="required, invalid, unknown, max_length, …")
    detail = serializers.CharField()


class ProblemSerializer(serializers.Serializer[Any]):
    """A refusal (RFC 9457)."""

    type = serializers.CharField(help_text="Always about:blank; `code` says what happened.")
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField(help_text="A sentence for a person.")
    code = serializers.ChoiceField(choices=[(code.value, ANSWERS[code][1]) for code in Code])
    errors = FieldErrorSerializer(many=True, required=False)  # type: ignore[assignment]


class DescribedSchema(AutoSchema):
    """Say of each operation which scope opens it and with which problems it may answer."""

    view: "ApiView"  # type: ignore[override]

    def get_summary(self) -> str:
        return self._doc().partition("\n")[0].rstrip(".")

    def get_description(self) -> str:  # type: ignore[override]
        rest = self._doc().partition("\n")[2].strip()
        return "\n\n".join(part for part in (rest, self._scopes(), self._limit()) if part)

    def get_override_parameters(self) -> list[Any]:
        form = self.view.query_forms.get(self.method)
        return [form] if form else []

    def _doc(self) -> str:
        return str(get_doc(getattr(self.view, self.method.lower())))

    def _scopes(self) -> str:
        scopes = self.view.scopes.get(self.method, ())
        return "Token scope: " + " or ".join(f"`{s}`" for s in scopes) + "." if scopes else ""

    def _limit(self) -> str:
        limit = self.view.limits.get(self.method)
        return f"Counted by the limit `{limit}`, in any {WINDOW_S} seconds." if limit else ""

    def _get_response_bodies(self, direction: Any = "response") -> dict[str, Any]:
        bodies: dict[str, Any] = super()._get_response_bodies(direction)
        problem = self.resolve_serializer(ProblemSerializer, "response").ref
        for status, codes in self._refusals().items():
            description = " ".join(f"`{code.value}`: {ANSWERS[code][1]}" for code in codes)
            content = {MEDIA_TYPE: {"schema": problem}}
            bodies[str(status)] = {"description": description, "content": content}
        return bodies

    def _refusals(self) -> dict[int, list[Code]]:
        possible = {Code.RATE_LIMITED, Code.SERVER_ERROR, Code.UNAVAILABLE, Code.INVALID}
        possible |= set(self.view.refusals.get(self.method, ()))
        if self.view.permission_classes:
            possible |= {Code.NOT_AUTHENTICATED, Code.INVALID_TOKEN, Code.PERMISSION_DENIED}
            possible |= {Code.MISSING_SCOPE}
        if self.method != "GET":
            possible |= {Code.CSRF_FAILED}
        if self.method in ("POST", "PUT", "PATCH"):
            possible |= {Code.MALFORMED, Code.TOO_LARGE, Code.UNSUPPORTED_MEDIA_TYPE}
        if "{" in self.path:
            possible |= {Code.NOT_FOUND}
        by_status: dict[int, list[Code]] = {}
        for code in Code:
            if code in possible:
                by_status.setdefault(ANSWERS[code][0], []).append(code)
        return by_status
