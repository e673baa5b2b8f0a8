"""People and groups: invited, removed, let in again; only administrators see them."""

import re

import pytest
from django.contrib.auth.models import Group
from django.core import mail
from django.test import Client
from django.urls import URLPattern, reverse

from kb.models import Collection, Conversation, User
from kb.urls import urlpatterns

PAGES = [route for route in urlpatterns if str(route.pattern).startswith(("people/", "groups/"))]


@pytest.fixture
def admin(alice: User) -> User:
    alice.is_superuser = alice.is_staff = True
    alice.save()
    return alice


@pytest.fixture
def desk(admin: User, client: Client) -> Client:
    """A browser in which an administrator is signed in."""
    client.force_login(admin)
    return client


def link_in(html: str) -> str:
    found = re.search(r"http://[^\s<\"]+(/password/[^\s<\"]+)", html)
    assert found
    return found[1]


def invite(desk: Client, **fields: object) -> str:
    data = {"username": "dora", **fields}
    return desk.post(reverse("people_invite"), data).content.decode()


@pytest.mark.parametrize("route", PAGES, ids=lambda route: route.name)
def test_to_everybody_else_there_is_no_such_page(
    route: URLPattern, client: Client, alice: User, bob: User
) -> None:
    group = Group.objects.create(name="Hikers")
    client.force_login(bob)
    pk = group.pk if str(route.name).startswith("group") else alice.pk
    known = {"pk": pk, "person_pk": alice.pk}
    address = reverse(
        str(route.name), kwargs={name: known[name] for name in route.pattern.converters}
    )

    assert client.get(address).status_code in (404, 405)
    assert client.post(address).status_code in (404, 405)


def test_an_invitation_link_sets_a_password_once_and_signs_in(
    desk: Client, collection: Collection
) -> None:
    group = Group.objects.create(name="Hikers")
    shown = invite(desk, groups=[group.pk], collection=collection.pk, role="curator")
    newcomer = Client()

    form = newcomer.get(link_in(shown), follow=True)
    answer = newcomer.post(
        form.request["PATH_INFO"],
        {"new_password1": "a glacier in summer", "new_password2": "a glacier in summer"},
    )

    dora = User.objects.get(username="dora")
    assert answer["Location"] == reverse("ask")
    assert newcomer.get(reverse("account")).context["user"] == dora
    assert list(dora.groups.all()) == [group]
    assert collection.memberships.get(user=dora).role == "curator"
    assert b"This link has ended" in Client().get(link_in(shown), follow=True).content


def test_an_invitation_is_mailed_where_mail_is_sent(desk: Client) -> None:
    shown = invite(desk, email="dora@example.org")
    for thread in __import__("threading").enumerate():
        if thread.daemon and thread.name.startswith("Thread"):
            thread.join(timeout=1)

    assert "also mailed to dora@example.org" in shown
    assert mail.outbox[0].to == ["dora@example.org"]
    assert mail.outbox[0].subject == "alice invites you to Tacit"
    assert link_in(shown) in mail.outbox[0].body


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"username": "alice"}, "already exists"),
        ({"username": "no spaces"}, "valid username"),
        ({"email": "ALICE@example.org"}, "already"),
        ({"email": "no address"}, "valid email"),
    ],
)
def test_an_invitation_that_cannot_be_says_why(
    fields: dict[str, str], sentence: str, desk: Client
) -> None:
    assert sentence in invite(desk, **fields)
    assert User.objects.count() == 1


def test_removing_ends_every_session_and_token_at_once(desk: Client, bob: User) -> None:
    browser = Client()
    browser.force_login(bob)
    Conversation.objects.create(user=bob, title="Kept")

    desk.post(reverse("person_remove", args=[bob.pk]), {"conversations": "keep"})

    assert browser.get(reverse("account")).status_code == 302
    assert bob.conversations.count() == 1
    old_link = Client().get(User.objects.get(pk=bob.pk).set_password_path(), follow=True)
    assert b"This link has ended" in old_link.content


def test_conversations_of_a_removed_person_are_deleted_if_wished(desk: Client, bob: User) -> None:
    Conversation.objects.create(user=bob, title="Gone")

    desk.post(reverse("person_remove", args=[bob.pk]), {"conversations": "delete"})

    assert bob.conversations.count() == 0


def test_a_removed_person_is_let_in_again(desk: Client, bob: User) -> None:
    desk.post(reverse("person_remove", args=[bob.pk]), {"conversations": "keep"})
    desk.post(reverse("person_restore", args=[bob.pk]))

    assert User.objects.get(pk=bob.pk).is_active


def test_an_administrator_cannot_remove_themselves(desk: Client, admin: User) -> None:
    answer = desk.post(reverse("person_remove", args=[admin.pk]), {"conversations": "keep"})

    assert answer.status_code == 404
    assert User.objects.get(pk=admin.pk).is_active


def test_the_last_administrator_stays_one(desk: Client, admin: User, bob: User) -> None:
    address = reverse("person_administrator", args=[admin.pk])
    desk.post(address, {"administrator": "no"})
    assert User.objects.get(pk=admin.pk).is_superuser

    desk.post(reverse("person_administrator", args=[bob.pk]), {"administrator": "yes"})
    desk.post(address, {"administrator": "no"})
    assert not User.objects.get(pk=admin.pk).is_superuser
    assert User.objects.get(pk=bob.pk).is_superuser


def test_a_reset_link_leaves_the_old_password_until_it_is_used(desk: Client, bob: User) -> None:
    shown = desk.post(reverse("person_link", args=[bob.pk])).content.decode()

    assert link_in(shown)
    assert User.objects.get(pk=bob.pk).password == bob.password


def test_a_group_is_made_filled_and_deleted(desk: Client, bob: User) -> None:
    desk.post(reverse("groups"), {"name": "Hikers"})
    group = Group.objects.get()

    desk.post(reverse("group", args=[group.pk]), {"who": "bob@example.org"})
    assert list(bob.groups.all()) == [group]

    desk.post(reverse("group_remove_person", args=[group.pk, bob.pk]))
    assert not bob.groups.exists()

    desk.post(reverse("group_delete", args=[group.pk]))
    assert not Group.objects.exists()


def test_a_group_takes_no_group_and_nobody_unknown(desk: Client) -> None:
    group = Group.objects.create(name="Hikers")
    address = reverse("group", args=[group.pk])

    assert b"A group cannot be in a group" in desk.post(address, {"who": "Hikers"}).content
    assert b"Nobody here has" in desk.post(address, {"who": "zoe"}).content


def test_people_are_found_by_name(desk: Client, bob: User, charlie: User) -> None:
    html = desk.get(reverse("people"), {"q": "BOB"}).content.decode()

    assert "bob@example.org" in html
    assert "charlie@example.org" not in html


def test_the_list_of_people_asks_few_questions(
    desk: Client, bob: User, charlie: User, django_assert_max_num_queries: object
) -> None:
    desk.get(reverse("people"))

    with django_assert_max_num_queries(6):  # type: ignore[operator]
        desk.get(reverse("people"))
