"""How often a caller may ask, counted in Redis (kb/limits.py)."""

from typing import TYPE_CHECKING

from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from kb.api.problems import RETRY_AFTER_S, Code
from kb.limits import allow, client_address

if TYPE_CHECKING:  # its own module loads this one
    from kb.api.base import ApiView


class RequestThrottle(BaseThrottle):
    """Count each request, and those that cost more once again under their own limit.

    `view.limits` maps a method to a name in settings.RATE_LIMITS.
    """

    def allow_request(self, request: Request, view: "ApiView") -> bool:  # type: ignore[override]
        user = request.user
        caller = str(user.pk) if user.is_authenticated else f"address:{client_address(request)}"
        own = view.limits.get(view.method)
        return allow("api", caller) and (own is None or allow(own, caller))

    def wait(self) -> float:
        return RETRY_AFTER_S[Code.RATE_LIMITED]
