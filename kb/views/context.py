"""What the frame around every page shows: navigation, the chosen collection, the stored look."""

from dataclasses import dataclass
from functools import cached_property

from django.db.models import Q
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import get_language
from django.views.decorators.http import require_POST

from kb.models import Collection, Membership
from kb.views.requests import number_in

THEMES = ("auto", "light", "dark")
MANY_COLLECTIONS = 100


@dataclass(frozen=True)
class Frame:
    """Asked by templates; each answer costs its query only where a page shows it."""

    request: HttpRequest

    @property
    def section(self) -> str:
        """The part of the product the page belongs to: the route's name up to the first "_"."""
        match = self.request.resolver_match
        return (match.url_name or "").partition("_")[0] if match else ""

    @property
    def theme(self) -> str:
        chosen = self.request.COOKIES.get("theme", "")
        return chosen if chosen in THEMES else "auto"

    @property
    def rail(self) -> str:
        return "narrow" if self.request.COOKIES.get("rail") == "narrow" else "wide"

    @property
    def language(self) -> str:
        return get_language() or "en"

    @cached_property
    def collections(self) -> list[Collection]:
        """The first collections by name, one more than the switch shows."""
        readable = Collection.objects.readable_by(self.request.user)
        return list(readable.order_by("name")[: MANY_COLLECTIONS + 1])

    @cached_property
    def scope(self) -> Collection | None:
        return scope(self.request)

    @property
    def manages(self) -> bool:
        """Whether Manage is offered: to those who run the install or own a collection."""
        return self.request.user.is_superuser or Membership.Role.OWNER in self._roles

    @property
    def curates(self) -> bool:
        """Whether Curate is offered: to those who may change a collection."""
        return self.manages or Membership.Role.CURATOR in self._roles

    @cached_property
    def _roles(self) -> set[str]:
        """Every role that the person has anywhere."""
        user = self.request.user
        if not user.is_authenticated:
            return set()
        mine = Membership.objects.filter(Q(user=user) | Q(group__in=user.groups.all()))
        return set(mine.order_by().values_list("role", flat=True).distinct())


def frame(request: HttpRequest) -> dict[str, Frame]:
    return {"frame": Frame(request)}


def scope(request: HttpRequest) -> Collection | None:
    """Give the collection chosen in the switch, as long as the person may still read it."""
    chosen = request.session.get("collection_id") if request.user.is_authenticated else None
    if chosen is None:
        return None
    return Collection.objects.readable_by(request.user).filter(pk=chosen).first()


@require_POST
def choose_scope(request: HttpRequest) -> HttpResponse:
    """Narrow Ask, Search and Documents to one collection, or open them to all again."""
    request.session["collection_id"] = number_in(request.POST.get("collection", ""))
    back = request.POST.get("next", "")
    allowed = url_has_allowed_host_and_scheme(
        back, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    return HttpResponseRedirect(back if allowed else reverse("ask"))
