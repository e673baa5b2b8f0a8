"""Collections and their members: made, shared, left and deleted; never without an owner."""

import pytest
from django.contrib.auth.models import Group
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries, Settings

from kb.models import Chunk, Collection, Document, Membership, User
from tests.conftest import AddDocument


@pytest.fixture
def group(charlie: User) -> Group:
    made = Group.objects.create(name="Hikers")
    charlie.groups.add(made)
    return made


def members_page(collection: Collection) -> str:
    return reverse("collections_members", args=[collection.pk])


def role(collection: Collection, user: User) -> str | None:
    return collection.memberships.filter(user=user).values_list("role", flat=True).first()


def change_role(page: Client, membership: Membership, to: str) -> str:
    address = reverse("collections_member_role", args=[membership.collection_id, membership.pk])
    return page.post(address, {"role": to}, follow=True).content.decode()


def test_whoever_makes_a_collection_owns_it(client: Client, charlie: User) -> None:
    client.force_login(charlie)

    client.post(reverse("collections_new"), {"name": "Hikes", "description": "Where to go"})

    assert role(Collection.objects.get(name="Hikes"), charlie) == "owner"


def test_a_name_that_is_taken_says_so(page: Client, collection: Collection) -> None:
    html = page.post(reverse("collections_new"), {"name": collection.name}).content.decode()

    assert "with this name already" in html


def test_the_list_shows_what_one_may_read_and_what_one_is(
    client: Client, bob: User, collection: Collection, add_document: AddDocument
) -> None:
    Collection.objects.create(name="Secret plans")
    Collection.objects.create(name="Open house", is_public=True)
    add_document("a.md", "Some words.")
    client.force_login(bob)

    html = client.get(reverse("collections")).content.decode()

    assert "Field notes" in html
    assert "Open house" in html
    assert "Secret plans" not in html
    assert "you: reader" in html
    assert "1 document" in html


@pytest.mark.parametrize("count", [1, 20])
def test_the_list_asks_the_same_number_of_questions_however_long_it_is(
    count: int, page: Client, alice: User, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    for n in range(count):
        Collection.objects.create(name=f"Collection {n}").grant(alice, "owner")
    page.get(reverse("collections"))

    with django_assert_num_queries(8):
        page.get(reverse("collections"))


def test_an_owner_changes_name_and_who_may_read(page: Client, collection: Collection) -> None:
    page.post(
        reverse("collections_edit", args=[collection.pk]), {"name": "Notes", "is_public": "on"}
    )

    collection.refresh_from_db()
    assert (collection.name, collection.is_public) == ("Notes", True)


def test_deleting_wants_the_name_typed(
    page: Client, collection: Collection, add_document: AddDocument
) -> None:
    add_document("a.md", "Some words about ice.")
    address = reverse("collections_delete", args=[collection.pk])

    wrong = page.post(address, {"typed": "field notes"})
    assert b"This is not the name" in wrong.content
    assert Document.objects.exists()

    page.post(address, {"typed": "Field notes"})
    assert not Collection.objects.exists()
    assert not Document.objects.exists()
    assert not Chunk.objects.exists()


@pytest.mark.parametrize(
    "who", ["charlie", "charlie@example.org", "CHARLIE@Example.org", " charlie "]
)
def test_people_are_added_by_exact_name_or_address(
    who: str, page: Client, charlie: User, collection: Collection
) -> None:
    page.post(members_page(collection), {"who": who, "role": "curator"})

    assert role(collection, charlie) == "curator"


@pytest.mark.parametrize("who", ["char", "charlie@", "%", "", "Charlie*"])
def test_nobody_is_found_by_a_part_of_a_name(
    who: str, page: Client, charlie: User, collection: Collection
) -> None:
    page.post(members_page(collection), {"who": who, "role": "reader"})

    assert role(collection, charlie) is None


def test_looking_people_up_is_limited(
    page: Client, collection: Collection, charlie: User, settings: Settings
) -> None:
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "lookup": 1}
    page.post(members_page(collection), {"who": "nobody", "role": "reader"})

    html = page.post(members_page(collection), {"who": "charlie", "role": "reader"})

    assert b"Many look-ups at once" in html.content
    assert role(collection, charlie) is None


def test_a_group_opens_a_collection_to_everybody_in_it(
    page: Client, client: Client, charlie: User, group: Group, collection: Collection
) -> None:
    page.post(members_page(collection), {"who": "Hikers", "role": "reader"})
    client.force_login(charlie)

    assert client.get(reverse("collection", args=[collection.pk])).status_code == 200
    charlie.groups.clear()
    assert client.get(reverse("collection", args=[collection.pk])).status_code == 404


def test_a_role_is_changed_and_taken(page: Client, bob: User, collection: Collection) -> None:
    membership = collection.memberships.get(user=bob)

    change_role(page, membership, "curator")
    assert role(collection, bob) == "curator"

    page.post(reverse("collections_member_remove", args=[collection.pk, membership.pk]))
    assert role(collection, bob) is None


def test_the_last_owner_stays(page: Client, alice: User, collection: Collection) -> None:
    membership = collection.memberships.get(user=alice)

    said = change_role(page, membership, "reader")
    page.post(reverse("collections_member_remove", args=[collection.pk, membership.pk]))
    page.post(reverse("collections_leave", args=[collection.pk]))

    assert "A collection needs an owner" in said
    assert role(collection, alice) == "owner"


def test_a_group_without_people_does_not_count_as_owner(
    page: Client, alice: User, collection: Collection
) -> None:
    empty = Group.objects.create(name="Nobody")
    collection.memberships.create(group=empty, role="owner")

    page.post(reverse("collections_leave", args=[collection.pk]))

    assert role(collection, alice) == "owner"


def test_an_administrator_may_remove_the_last_owner(
    client: Client, charlie: User, alice: User, collection: Collection
) -> None:
    charlie.is_superuser = True
    charlie.save()
    client.force_login(charlie)
    membership = collection.memberships.get(user=alice)

    client.post(reverse("collections_member_remove", args=[collection.pk, membership.pk]))

    assert role(collection, alice) is None


def test_a_member_leaves(client: Client, bob: User, collection: Collection) -> None:
    client.force_login(bob)

    client.post(reverse("collections_leave", args=[collection.pk]))

    assert role(collection, bob) is None


def test_a_membership_of_another_collection_cannot_be_changed_through_mine(
    page: Client, bob: User, collection: Collection
) -> None:
    other = Collection.objects.create(name="Other")
    foreign = other.grant(bob, "reader")

    address = reverse("collections_member_role", args=[collection.pk, foreign.pk])

    assert page.post(address, {"role": "owner"}).status_code == 404
    assert role(other, bob) == "reader"


def test_a_reader_sees_members_but_changes_none(
    client: Client, bob: User, charlie: User, collection: Collection
) -> None:
    client.force_login(bob)

    html = client.get(members_page(collection)).content.decode()

    assert "alice" in html
    assert "<select" not in html
    assert (
        client.post(members_page(collection), {"who": "charlie", "role": "owner"}).status_code
        == 404
    )


def test_a_public_collection_does_not_show_its_members_to_everybody(
    client: Client, charlie: User, collection: Collection
) -> None:
    collection.is_public = True
    collection.save()
    client.force_login(charlie)

    assert client.get(reverse("collection", args=[collection.pk])).status_code == 200
    assert client.get(members_page(collection)).status_code == 404
    html = client.get(reverse("collection", args=[collection.pk])).content.decode()
    assert members_page(collection) not in html
