"""People and groups: who may sign in. For administrators; to everybody else there is no such page."""

from collections.abc import Callable
from functools import wraps

from django.contrib import messages
from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Count, Q, QuerySet
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from kb import mail, members
from kb.forms import GroupForm, InvitationForm, RemovalForm
from kb.members import MembershipRefused
from kb.models import Membership, User
from kb.views.requests import PersonRequest, go_to

MAX_PEOPLE = 500
View = Callable[..., HttpResponse]


def for_administrators(view: View) -> View:
    """Answer everybody else as if the page did not exist."""

    @wraps(view)
    def wrapped(request: PersonRequest, *args: object, **kwargs: object) -> HttpResponse:
        if not request.user.is_superuser:
            raise Http404
        return view(request, *args, **kwargs)

    return wrapped


@require_GET
@for_administrators
def people(request: PersonRequest) -> HttpResponse:
    words = request.GET.get("q", "").strip()
    found = User.objects.prefetch_related("groups").order_by("-is_active", "username")
    if words:
        found = found.filter(
            Q(username__icontains=words)
            | Q(email__icontains=words)
            | Q(first_name__icontains=words)
            | Q(last_name__icontains=words)
        )
    context = {
        "people": found.annotate(n_collections=Count("memberships"))[:MAX_PEOPLE],
        "words": words,
        "tab": "people",
    }
    return render(request, "kb/people.html", context)


@require_http_methods(["GET", "POST"])
@for_administrators
def people_invite(request: PersonRequest) -> HttpResponse:
    """Make a person without password and show, once, the link where they set it."""
    form = InvitationForm(request.POST or None)
    if request.method == "POST" and form.is_valid() and (person := _invite(form)):
        is_mailed = bool(person.email) and mail.is_configured()
        if is_mailed:
            mail.send_invitation(person, invited_by=request.user)
        return _show_link(request, person, is_mailed=is_mailed, is_new=True)
    return render(request, "kb/people_invite.html", {"form": form})


def _invite(form: InvitationForm) -> User | None:
    """Make the person a form describes; None with the reasons on the form."""
    chosen = form.cleaned_data
    try:
        with transaction.atomic():
            person = User.objects.invite(username=chosen["username"], email=chosen["email"])
            person.groups.set(chosen["groups"])
            if chosen["collection"]:
                chosen["collection"].grant(person, chosen["role"] or Membership.Role.READER)
    except ValidationError as error:
        for field, problems in error.message_dict.items():
            form.add_error(field if field in form.fields else None, problems)
        return None
    return person


def _show_link(
    request: PersonRequest, person: User, *, is_mailed: bool, is_new: bool
) -> HttpResponse:
    context = {
        "person": person,
        "link": mail.password_link(person),
        "is_mailed": is_mailed,
        "is_new": is_new,
    }
    return render(request, "kb/person_link.html", context)


def _anybody(pk: int) -> User:
    return get_object_or_404(User, pk=pk)


@require_GET
@for_administrators
def person(request: PersonRequest, pk: int) -> HttpResponse:
    found = _anybody(pk)
    memberships = Membership.objects.filter(
        Q(user=found) | Q(group__in=found.groups.all())
    ).select_related("collection", "group")
    context = {
        "person": found,
        "memberships": memberships.order_by("collection__name"),
        "groups": found.groups.order_by("name"),
        "is_last_administrator": _is_last_administrator(found),
    }
    return render(request, "kb/person.html", context)


@require_POST
@for_administrators
def person_link(request: PersonRequest, pk: int) -> HttpResponse:
    """Show a link, once, where the person sets a new password; the old one works until then."""
    found = get_object_or_404(User, pk=pk, is_active=True)
    is_mailed = bool(found.email) and mail.is_configured()
    if is_mailed:
        mail.send_password_reset(found)
    return _show_link(request, found, is_mailed=is_mailed, is_new=False)


@require_http_methods(["GET", "POST"])
@for_administrators
def person_remove(request: PersonRequest, pk: int) -> HttpResponse:
    """End a person's access at once; what they added stays, their conversations if wished."""
    found = get_object_or_404(User, pk=pk, is_active=True)
    form = RemovalForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        if found == request.user or _is_last_administrator(found):
            raise Http404  # the page offers neither
        with transaction.atomic():
            found.is_active = False
            found.save(update_fields=["is_active"])
            if form.cleaned_data["conversations"] == "delete":
                found.conversations.all().delete()
        messages.success(
            request, _("%(name)s can no longer sign in.") % {"name": found.display_name}
        )
        return go_to(request, "people")
    context = {"person": found, "form": form, "conversations": found.conversations.count()}
    return render(request, "kb/person_remove.html", context)


@require_POST
@for_administrators
def person_restore(request: PersonRequest, pk: int) -> HttpResponse:
    found = get_object_or_404(User, pk=pk, is_active=False)
    found.is_active = True
    found.save(update_fields=["is_active"])
    messages.success(request, _("%(name)s may sign in again.") % {"name": found.display_name})
    return go_to(request, "person", pk)


@require_POST
@for_administrators
def person_administrator(request: PersonRequest, pk: int) -> HttpResponse:
    """Make a person an administrator, or an ordinary person again."""
    found = get_object_or_404(User, pk=pk, is_active=True)
    becomes = request.POST.get("administrator") == "yes"
    if not becomes and _is_last_administrator(found):
        messages.error(request, _("Somebody has to run this install. Nothing was changed."))
        return go_to(request, "person", pk)
    found.is_superuser = found.is_staff = becomes
    found.save(update_fields=["is_superuser", "is_staff"])
    if found == request.user:
        return go_to(request, "ask")  # these pages have just ceased to exist for them
    return go_to(request, "person", pk)


def _is_last_administrator(person: User) -> bool:
    others = User.objects.filter(is_superuser=True, is_active=True).exclude(pk=person.pk)
    return person.is_superuser and not others.exists()


@require_http_methods(["GET", "POST"])
@for_administrators
def groups(request: PersonRequest) -> HttpResponse:
    form = GroupForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        return go_to(request, "group", form.save().pk)
    context = {"groups": _counted(Group.objects.order_by("name")), "form": form, "tab": "groups"}
    return render(request, "kb/groups.html", context)


def _counted(groups: QuerySet[Group]) -> QuerySet[Group]:
    return groups.annotate(
        n_people=Count("user", filter=Q(user__is_active=True), distinct=True),
        n_collections=Count("memberships", distinct=True),
    )


@require_http_methods(["GET", "POST"])
@for_administrators
def group(request: PersonRequest, pk: int) -> HttpResponse:
    """Show a group; add a person to it by exact username or e-mail address."""
    found = get_object_or_404(Group, pk=pk)
    error, who = "", request.POST.get("who", "").strip()
    if request.method == "POST":
        try:
            person = members.find(who)
            if isinstance(person, User):
                person.groups.add(found)
                return go_to(request, "group", pk)
            error = _("A group cannot be in a group.")
        except MembershipRefused as refusal:
            error = str(refusal)
    context = {
        "group": found,
        "people": User.objects.filter(groups=found).order_by("username"),
        "memberships": found.memberships.select_related("collection").order_by("collection__name"),
        "error": error,
        "who": who,
    }
    return render(request, "kb/group.html", context)


@require_POST
@for_administrators
def group_remove_person(request: PersonRequest, pk: int, person_pk: int) -> HttpResponse:
    found = get_object_or_404(Group, pk=pk)
    get_object_or_404(User, pk=person_pk, groups=found).groups.remove(found)
    return go_to(request, "group", pk)


@require_http_methods(["GET", "POST"])
@for_administrators
def group_delete(request: PersonRequest, pk: int) -> HttpResponse:
    """Delete a group; its people stay and lose what only the group let them read."""
    found = get_object_or_404(_counted(Group.objects.all()), pk=pk)
    if request.method == "POST":
        found.delete()
        messages.success(request, _("The group “%(name)s” was deleted.") % {"name": found.name})
        return go_to(request, "groups")
    return render(request, "kb/group_delete.html", {"group": found})
