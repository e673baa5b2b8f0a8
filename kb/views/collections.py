"""Collections: make, describe, share and delete them."""

from dataclasses import dataclass

from django.contrib import messages
from django.db import transaction
from django.db.models import Count, Q, QuerySet
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from kb import limits, members
from kb.forms import CollectionForm, MemberForm, NameAgainForm
from kb.members import MembershipRefused
from kb.models import Collection, Document, Membership, User
from kb.models.documents import CollectionInUse
from kb.views.documents import what_goes
from kb.views.requests import PersonRequest, go_to

# From the weakest to the strongest.
ROLES = [Membership.Role.READER, Membership.Role.CURATOR, Membership.Role.OWNER]


@dataclass(frozen=True, slots=True)
class Card:
    """A collection as the list shows it. `role`: the person's strongest one, None by being public."""

    collection: Collection
    role: Membership.Role | None
    is_owner: bool
    documents: int
    failed: int
    members: int


@require_GET
def collections(request: PersonRequest) -> HttpResponse:
    readable = Collection.objects.readable_by(request.user).order_by("name")
    return render(request, "kb/collections.html", {"cards": _cards(readable, request.user)})


def _cards(collections: QuerySet[Collection], user: User) -> list[Card]:
    """Complete collections for the list, in three queries however many there are."""
    documents = {
        pk: (n, failed)
        for pk, n, failed in Document.objects.visible_to(user)
        .order_by()
        .values_list("collection")
        .annotate(n=Count("pk"), failed=Count("pk", filter=Q(state=Document.State.FAILED)))
    }
    memberships = Membership.objects.filter(collection__in=collections)
    counts = dict(memberships.order_by().values_list("collection").annotate(n=Count("pk")))
    roles: dict[int, Membership.Role] = {}
    for pk, value in _of(user, memberships).values_list("collection", "role"):
        roles[pk] = max(roles.get(pk, ROLES[0]), Membership.Role(value), key=ROLES.index)
    return [
        Card(
            collection=collection,
            role=roles.get(collection.pk),
            is_owner=user.is_superuser or roles.get(collection.pk) == Membership.Role.OWNER,
            documents=documents.get(collection.pk, (0, 0))[0],
            failed=documents.get(collection.pk, (0, 0))[1],
            members=counts.get(collection.pk, 0),
        )
        for collection in collections
    ]


def _of(user: User, memberships: QuerySet[Membership]) -> QuerySet[Membership]:
    return memberships.filter(Q(user=user) | Q(group__in=user.groups.all()))


@require_http_methods(["GET", "POST"])
def collections_new(request: PersonRequest) -> HttpResponse:
    """Make a collection; whoever makes it owns it."""
    form = CollectionForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        with transaction.atomic():
            form.instance.created_by = request.user
            made = form.save()
            made.grant(request.user, Membership.Role.OWNER)
        return go_to(request, "collection", made.pk)
    return render(request, "kb/collections_new.html", {"form": form})


def _owned(request: PersonRequest, pk: int) -> Collection:
    return get_object_or_404(Collection.objects.owned_by(request.user), pk=pk)


@require_http_methods(["GET", "POST"])
def collections_edit(request: PersonRequest, pk: int) -> HttpResponse:
    collection = _owned(request, pk)
    form = CollectionForm(request.POST or None, instance=collection)
    if request.method == "POST" and form.is_valid():
        form.save()
        messages.success(request, _("Saved."))
        return go_to(request, "collections_edit", pk)
    collection = _owned(request, pk)  # the page's heading must not show what was refused
    context = {"collection": collection, "form": form, "is_owner": True, "tab": "settings"}
    return render(request, "kb/collections_edit.html", context)


@require_http_methods(["GET", "POST"])
def collections_delete(request: PersonRequest, pk: int) -> HttpResponse:
    """Delete a collection and all that is in it, after its name was typed again."""
    collection = _owned(request, pk)
    form = NameAgainForm(request.POST or None, name=collection.name)
    if request.method == "POST" and form.is_valid():
        try:
            collection.remove()
        except CollectionInUse as refusal:
            form.add_error(None, str(refusal))
        else:
            messages.success(
                request, _("The collection “%(name)s” was deleted.") % {"name": collection.name}
            )
            return go_to(request, "collections")
    context = {"collection": collection, "form": form, **what_goes(collection.documents.all())}
    return render(request, "kb/collections_delete.html", context)


@require_http_methods(["GET", "POST"])
def collections_members(request: PersonRequest, pk: int) -> HttpResponse:
    """Show who belongs to a collection; its owners add people and groups."""
    readable = Collection.objects.readable_by(request.user)
    collection = get_object_or_404(readable, pk=pk)
    is_owner = Collection.objects.owned_by(request.user).filter(pk=pk).exists()
    mine = _of(request.user, collection.memberships.all())
    if not (is_owner or mine.exists()):
        raise Http404  # a public collection does not show its members to everybody
    if request.method == "POST" and not is_owner:
        raise Http404
    form = MemberForm(request.POST or None)
    if request.method == "POST" and form.is_valid() and _add_member(request, collection, form):
        return go_to(request, "collections_members", pk)
    context = {
        "collection": collection,
        "form": form,
        "is_owner": is_owner,
        "memberships": _in_order(collection),
        "mine": mine.filter(user=request.user).first(),
        "roles": Membership.Role.choices,
        "tab": "members",
    }
    return render(request, "kb/collections_members.html", context)


def _in_order(collection: Collection) -> list[Membership]:
    """Give the memberships, owners first, then by name."""
    found = collection.memberships.select_related("user", "group")
    found = found.annotate(people=Count("group__user", filter=Q(group__user__is_active=True)))
    return sorted(
        found,
        key=lambda m: (
            -ROLES.index(Membership.Role(m.role)),
            (m.user.username if m.user else m.group.name if m.group else "").casefold(),
        ),
    )


def _add_member(request: PersonRequest, collection: Collection, form: MemberForm) -> bool:
    """Add who the form names; False with the reason on the form."""
    if not limits.allow("lookup", str(request.user.pk)):
        form.add_error("who", _("Many look-ups at once. Wait a minute, then try again."))
        return False
    try:
        found = members.find(form.cleaned_data["who"].strip())
        membership = members.grant(collection, found, form.cleaned_data["role"], by=request.user)
    except MembershipRefused as refusal:
        form.add_error("who", str(refusal))
        return False
    messages.success(request, f"{membership}")
    return True


@require_POST
def collections_member_role(request: PersonRequest, pk: int, membership_pk: int) -> HttpResponse:
    """Change a member's role."""
    membership = get_object_or_404(_owned(request, pk).memberships, pk=membership_pk)
    role = request.POST.get("role", "")
    if role not in Membership.Role.values:
        raise Http404
    member = membership.user or membership.group
    try:
        changed = members.grant(membership.collection, member, role, by=request.user)  # type: ignore[arg-type]
    except MembershipRefused as refusal:
        messages.error(request, str(refusal))
    else:
        messages.success(request, f"{changed}")
    return go_to(request, "collections_members", pk)


@require_POST
def collections_member_remove(request: PersonRequest, pk: int, membership_pk: int) -> HttpResponse:
    membership = get_object_or_404(_owned(request, pk).memberships, pk=membership_pk)
    try:
        members.revoke(membership, by=request.user)
    except MembershipRefused as refusal:
        messages.error(request, str(refusal))
        return go_to(request, "collections_members", pk)
    if membership.user == request.user:
        return go_to(request, "collections")
    return go_to(request, "collections_members", pk)


@require_POST
def collections_leave(request: PersonRequest, pk: int) -> HttpResponse:
    """Give up one's own membership."""
    mine = get_object_or_404(Membership, collection_id=pk, user=request.user)
    try:
        members.revoke(mine, by=request.user)
    except MembershipRefused as refusal:
        messages.error(request, str(refusal))
        return go_to(request, "collections_members", pk)
    messages.success(request, _("You left “%(name)s”.") % {"name": mine.collection.name})
    return go_to(request, "collections")
