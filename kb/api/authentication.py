"""Who asks: a program with a token, or a person with a session and a CSRF token."""

from datetime import timedelta
from typing import Any

from django.db.models import Q
from django.utils import timezone
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework import authentication, exceptions
from rest_framework.request import Request

from kb.api.problems import Code, Problem
from kb.limits import allow, client_address
from kb.models import ApiToken, User

# `last_used_at` is for people; it need not cost a write for each request.
USE_NOTED_EVERY = timedelta(minutes=1)


class TokenAuthentication(authentication.BaseAuthentication):
    """`Authorization: Bearer tacit_…`, or the same token in `X-API-Key`.

    The token is found by its SHA-256, so no comparison depends on how much of a guess is right.
    """

    def authenticate(self, request: Request) -> tuple[User, ApiToken] | None:
        secret = _secret_in(request)
        if secret is None:
            return None
        usable = ApiToken.objects.usable().select_related("user")
        token = usable.filter(digest=ApiToken.digest_of(secret)).first()
        if token is None:
            _count_failure(request)
            raise exceptions.AuthenticationFailed
        _note_use(token)
        return token.user, token

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="Tacit"'


def _secret_in(request: Request) -> str | None:
    scheme, _, secret = request.headers.get("Authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer":
        return secret.strip()
    return request.headers.get("X-API-Key")


def _count_failure(request: Request) -> None:
    if not allow("api", f"failed:{client_address(request)}"):
        raise Problem(Code.RATE_LIMITED)


def _note_use(token: ApiToken) -> None:
    now = timezone.now()
    if token.last_used_at is None or token.last_used_at < now - USE_NOTED_EVERY:
        stale = Q(last_used_at=None) | Q(last_used_at__lt=now - USE_NOTED_EVERY)
        ApiToken.objects.filter(stale, pk=token.pk).update(last_used_at=now)


class SessionAuthentication(authentication.SessionAuthentication):
    """The session of a signed-in person; anything but reading needs the CSRF token too."""

    def enforce_csrf(self, request: Request) -> None:
        try:
            super().enforce_csrf(request)
        except exceptions.PermissionDenied as refusal:
            raise Problem(Code.CSRF_FAILED, str(refusal.detail)) from None


class TokenScheme(OpenApiAuthenticationExtension):
    target_class = "kb.api.authentication.TokenAuthentication"
    name = ["bearerToken", "apiKey"]

    def get_security_definition(self, auto_schema: Any) -> list[dict[str, str]]:
        return [
            {"type": "http", "scheme": "bearer"},
            {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        ]


class SessionScheme(OpenApiAuthenticationExtension):
    target_class = "kb.api.authentication.SessionAuthentication"
    name = "session"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {
            "type": "apiKey",
            "in": "cookie",
            "name": "sessionid",
            "description": "Everything but reading also needs the X-CSRFToken header.",
        }
