"""Collections and their members."""

from collections.abc import Sequence

from django.contrib.auth.models import Group
from django.db import IntegrityError, transaction
from django.db.models import Case, Count, Exists, OuterRef, Q, QuerySet, Value, When
from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.response import Response

from kb import members
from kb.api.base import ApiView, CallerRequest, find
from kb.api.inputs import CollectionChange, CollectionInput, CollectionQuery, MemberInput, RoleInput
from kb.api.problems import Code, Problem
from kb.api.serializers import CollectionSerializer, MemberSerializer
from kb.models import ApiToken, Collection, Membership, User
from kb.models.documents import CollectionInUse

READ, MANAGE = (ApiToken.Scope.READ,), (ApiToken.Scope.MANAGE,)


class Collections(ApiView):
    scopes = {"GET": READ, "POST": MANAGE}
    query_forms = {"GET": CollectionQuery}
    paged = True

    @extend_schema(responses=CollectionSerializer(many=True))
    def get(self, request: CallerRequest) -> Response:
        """List the collections you may read, by name."""
        wanted = self.query()
        collections = _readable(request.user, wanted.get("role", ()))
        if name := wanted.get("name"):
            collections = collections.filter(name__icontains=name)
        return self.page(collections.order_by("name"), CollectionSerializer)

    @extend_schema(request=CollectionInput, responses={201: CollectionSerializer})
    def post(self, request: CallerRequest) -> Response:
        """Create a collection; you are its owner."""
        collection = Collection(**self.body(CollectionInput), created_by=request.user)
        with transaction.atomic():
            _save(collection)
            collection.grant(request.user, Membership.Role.OWNER)
        return Response(_shown(request.user, collection.pk), status=201)


class OneCollection(ApiView):
    scopes = {"GET": READ, "PATCH": MANAGE, "DELETE": MANAGE}
    refusals = {"DELETE": (Code.NOT_NOW,)}

    @extend_schema(responses=CollectionSerializer)
    def get(self, request: CallerRequest, pk: int) -> Response:
        """Read a collection."""
        return Response(_shown(request.user, pk))

    @extend_schema(request=CollectionChange, responses=CollectionSerializer)
    def patch(self, request: CallerRequest, pk: int) -> Response:
        """Change a collection that you own; fields left out stay."""
        collection = _owned(request.user, pk)
        for name, value in self.body(CollectionChange).items():
            setattr(collection, name, value)  # the form names the three fields there are
        _save(collection)
        return Response(_shown(request.user, pk))

    @extend_schema(responses={204: None})
    def delete(self, request: CallerRequest, pk: int) -> Response:
        """Delete a collection that you own, with its documents, passages and files."""
        try:
            _owned(request.user, pk).remove()
        except CollectionInUse as refusal:
            raise Problem(Code.NOT_NOW, str(refusal)) from refusal
        return Response(status=204)


class Members(ApiView):
    scopes = {"GET": MANAGE, "POST": MANAGE}
    limits = {"POST": "lookup"}  # it tells who is here, so nobody tries a list of names
    paged = True

    @extend_schema(responses=MemberSerializer(many=True))
    def get(self, request: CallerRequest, pk: int) -> Response:
        """List the members of a collection that you own."""
        return self.page(_members(_owned(request.user, pk)).order_by("pk"), MemberSerializer)

    @extend_schema(request=MemberInput, responses={201: MemberSerializer})
    def post(self, request: CallerRequest, pk: int) -> Response:
        """Add a person by `username`, or everyone of a `group`, with a role."""
        collection = _owned(request.user, pk)
        wanted = self.body(MemberInput)
        field = "username" if "username" in wanted else "group"
        who: User | Group = wanted[field]
        if (
            _members(collection)
            .filter(Q(user=who) if field == "username" else Q(group=who))
            .exists()
        ):
            sentence = ErrorDetail("This is a member already; change the role.", code="unique")
            raise ValidationError({field: [sentence]})
        member = members.grant(collection, who, wanted["role"], by=request.user)
        return Response(MemberSerializer(member).data, status=201)


class Member(ApiView):
    scopes = {"PATCH": MANAGE, "DELETE": MANAGE}
    refusals = {"PATCH": (Code.LAST_OWNER,), "DELETE": (Code.LAST_OWNER,)}

    @extend_schema(request=RoleInput, responses=MemberSerializer)
    def patch(self, request: CallerRequest, pk: int, member_id: int) -> Response:
        """Change a member's role."""
        collection = _owned(request.user, pk)
        role = self.body(RoleInput)["role"]
        member = find(_members(collection), member_id)
        changed = members.grant(collection, _who(member), role, by=request.user)
        return Response(MemberSerializer(changed).data)

    @extend_schema(responses={204: None})
    def delete(self, request: CallerRequest, pk: int, member_id: int) -> Response:
        """Remove a member."""
        collection = _owned(request.user, pk)
        members.revoke(find(_members(collection), member_id), by=request.user)
        return Response(status=204)


def _readable(user: User, roles: Sequence[str] = ()) -> QuerySet[Collection]:
    """Collections with the user's own role, one of `roles` if any, and their document count."""
    same = {"pk": OuterRef("pk")}
    role = Case(
        When(Exists(Collection.objects.owned_by(user).filter(**same)), Value("owner")),
        When(Exists(Collection.objects.writable_by(user).filter(**same)), Value("curator")),
        default=Value("reader"),
    )
    readable = Collection.objects.readable_by(user)
    described = readable.annotate(role=role, document_count=Count("documents"))
    return described.filter(role__in=roles) if roles else described


def _shown(user: User, pk: int) -> dict[str, object]:
    data: dict[str, object] = CollectionSerializer(find(_readable(user), pk)).data
    return data


def _owned(user: User, pk: int) -> Collection:
    collections = Collection.objects
    return find(collections.readable_by(user), pk, within=collections.owned_by(user))


def _members(collection: Collection) -> QuerySet[Membership]:
    return collection.memberships.select_related("user", "group")


def _who(member: Membership) -> User | Group:
    who = member.user or member.group
    assert who is not None  # a constraint of the table
    return who


def _save(collection: Collection) -> None:
    try:
        with transaction.atomic():
            collection.save()
    except IntegrityError:
        sentence = ErrorDetail("There is a collection of this name already.", code="unique")
        raise ValidationError({"name": [sentence]}) from None
