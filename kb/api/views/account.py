"""The caller and their tokens."""

from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.response import Response

from kb.api.base import ApiView, CallerRequest, find
from kb.api.inputs import TokenInput
from kb.api.problems import Code, Problem
from kb.api.serializers import MeSerializer, NewTokenSerializer, TokenSerializer
from kb.models import ApiToken

MANAGE = (ApiToken.Scope.MANAGE,)


class Me(ApiView):
    scopes = {"GET": ()}

    @extend_schema(responses=MeSerializer, operation_id="me")
    def get(self, request: CallerRequest) -> Response:
        """Who the token or session belongs to, and its scopes."""
        scopes = request.auth.scopes if request.auth else ApiToken.Scope.values
        request.user.scopes = scopes  # type: ignore[attr-defined]
        return Response(MeSerializer(request.user).data)


class Tokens(ApiView):
    scopes = {"GET": MANAGE, "POST": MANAGE}
    refusals = {"POST": (Code.MISSING_SCOPE,)}
    paged = True

    @extend_schema(responses=TokenSerializer(many=True))
    def get(self, request: CallerRequest) -> Response:
        """List your tokens, revoked and expired ones too."""
        return self.page(_own(request).order_by("-pk"), TokenSerializer)

    @extend_schema(request=TokenInput, responses={201: NewTokenSerializer})
    def post(self, request: CallerRequest) -> Response:
        """Make a token; its secret is shown this once.

        A token makes no stronger one: with scopes it has itself, expiring no later than it does.
        """
        wanted = self.body(TokenInput, maker_expires_at=request.auth and request.auth.expires_at)
        if request.auth and not set(wanted["scopes"]) <= set(request.auth.scopes):
            raise Problem(Code.MISSING_SCOPE, "A token cannot give scopes that it has not itself.")
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
    def delete(self, request: CallerRequest, pk: int) -> Response:
        """Revoke a token; it is refused from now on, and open streams end within seconds."""
        token = find(_own(request).filter(revoked_at=None), pk)
        token.revoked_at = timezone.now()
        token.save(update_fields=["revoked_at"])
        return Response(status=204)


def _own(request: CallerRequest) -> QuerySet[ApiToken]:
    return ApiToken.objects.filter(user=request.user)
