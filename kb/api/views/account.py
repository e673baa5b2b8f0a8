"""The caller and their tokens."""

from typing import Any

from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from kb.api.base import ApiView, find
from kb.api.inputs import TokenInput
from kb.api.problems import Code, Problem
from kb.api.serializers import MeSerializer, NewTokenSerializer, TokenSerializer
from kb.models import ApiToken

MANAGE = (ApiToken.Scope.MANAGE,)


class Me(ApiView):
    scopes = {"GET": ()}

    @extend_schema(responses=MeSerializer, operation_id="me")
    def get(self, request: Request) -> Response:
        """Who the token or session belongs to, and its scopes."""
        scopes = request.auth.scopes if request.auth else ApiToken.Scope.values
        request.user.scopes = scopes
        return Response(MeSerializer(request.user).data)


class Tokens(ApiView):
    scopes = {"GET": MANAGE, "POST": MANAGE}
    refusals = {"POST": (Code.MISSING_SCOPE,)}
    paged = True

    @extend_schema(responses=TokenSerializer(many=True))
    def get(self, request: Request) -> Response:
        """List your tokens, revoked and expired ones too."""
        return self.page(_own(request).order_by("-pk"), TokenSerializer)

    @extend_schema(request=TokenInput, responses={201: NewTokenSerializer})
    def post(self, request: Request) -> Response:
        """Make a token; its secret is shown this once.

        A token makes no stronger one: with scopes it has itself, expiring no later than it does.
        """
        wanted = self.body(TokenInput)
        if request.auth:
            _refuse_stronger(request.auth, wanted)
        token, secret = ApiToken.objects.issue(
            request.user,
            name=wanted["name"],
            scopes=sorted(set(wanted["scopes"])),
            expires_at=wanted["expires_at"],
        )
        token.secret = secret  # type: ignore[attr-defined]
        return Response(NewTokenSerializer(token).data, status=201)


class Token(ApiView):
    scopes = {"DELETE": MANAGE}

    @extend_schema(responses={204: None})
    def delete(self, request: Request, pk: int) -> Response:
        """Revoke a token; it is refused from now on, and open streams end within seconds."""
        token = find(_own(request).filter(revoked_at=None), pk)
        token.revoked_at = timezone.now()
        token.save(update_fields=["revoked_at"])
        return Response(status=204)


def _own(request: Request) -> QuerySet[ApiToken]:
    return ApiToken.objects.filter(user=request.user)


def _refuse_stronger(token: ApiToken, wanted: dict[str, Any]) -> None:
    if not set(wanted["scopes"]) <= set(token.scopes):
        raise Problem(Code.MISSING_SCOPE, "A token cannot give scopes that it has not itself.")
    if token.expires_at and wanted["expires_at"] > token.expires_at:
        sentence = f"This token itself expires at {token.expires_at:%Y-%m-%dT%H:%M:%SZ}."
        raise ValidationError({"expires_at": [ErrorDetail(sentence, code="invalid")]})
