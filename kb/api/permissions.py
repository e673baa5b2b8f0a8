"""What a token may be used for. What a person may see is decided by the QuerySets."""

from typing import TYPE_CHECKING

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from kb.api.problems import Code, Problem
from kb.models import ApiToken

if TYPE_CHECKING:  # its own module loads this one
    from kb.api.base import ApiView


class HasScope(BasePermission):
    """Let signed-in people in, and tokens that have one of the scopes the view names.

    `view.scopes` maps a method to the scopes that open it; a method it does not name is closed,
    and an empty tuple needs no scope.
    """

    def has_permission(self, request: Request, view: "ApiView") -> bool:  # type: ignore[override]
        if not request.user.is_authenticated:
            return False
        if view.method not in view.allowed_methods:
            return True  # the dispatcher answers 405
        wanted = view.scopes.get(view.method)
        if wanted is None:
            return False
        held = request.auth.scopes if isinstance(request.auth, ApiToken) else ApiToken.Scope.values
        if wanted and not set(wanted) & set(held):
            named = " or ".join(f"“{scope}”" for scope in wanted)
            raise Problem(Code.MISSING_SCOPE, f"The token needs the scope {named} for this.")
        return True
