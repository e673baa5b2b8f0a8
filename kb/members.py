"""Who belongs to a collection; somebody always owns it."""

from django.contrib.auth.models import Group
from django.db import transaction
from django.utils.translation import gettext as _

from kb.models import Collection, Membership, User


class MembershipRefused(Exception):
    """A change of members that cannot be made; the message is a sentence for the person."""


def find(who: str) -> User | Group:
    """Find a person by exact username or e-mail address, else a group by exact name.

    Raises MembershipRefused. Nothing is matched in part, so that members cannot be listed by
    guessing.
    """
    active = User.objects.filter(is_active=True)
    found: User | Group | None = (
        active.filter(username=who).first()
        or (active.filter(email__iexact=who).first() if "@" in who else None)
        or Group.objects.filter(name=who).first()
    )
    if found is None:
        raise MembershipRefused(
            _("Nobody here has the username, e-mail address or group name “%(who)s”.")
            % {"who": who}
        )
    return found


def grant(collection: Collection, to: User | Group, role: str, *, by: User) -> Membership:
    """Give a person or group a role, replacing the one it had. Raises MembershipRefused."""
    member = {"user": to} if isinstance(to, User) else {"group": to}
    with transaction.atomic():
        _lock(collection)
        membership, _created = collection.memberships.update_or_create(
            **member, defaults={"role": role}
        )
        _require_an_owner(collection, by)
    return membership


def revoke(membership: Membership, *, by: User) -> None:
    """Take a person or group out of its collection. Raises MembershipRefused."""
    with transaction.atomic():
        _lock(membership.collection)
        membership.delete()
        _require_an_owner(membership.collection, by)


def _lock(collection: Collection) -> None:
    # Two owners who leave at the same moment must not leave the collection without one.
    Collection.objects.select_for_update().get(pk=collection.pk)


def _require_an_owner(collection: Collection, by: User) -> None:
    """Raise MembershipRefused when no person who can sign in owns the collection any more.

    An administrator may leave a collection without owner: administrators can do all that it does.
    """
    owners = collection.memberships.filter(role=Membership.Role.OWNER)
    people = owners.filter(user__is_active=True) | owners.filter(group__user__is_active=True)
    if not by.is_superuser and not people.exists():
        raise MembershipRefused(
            _("A collection needs an owner. Make somebody else an owner first.")
        )
