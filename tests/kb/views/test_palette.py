from django.test import Client
from pytest_django import DjangoAssertNumQueries

from kb.models import Conversation, User
from tests.conftest import AddDocument


def test_pages_come_first_when_nothing_is_typed(page: Client) -> None:
    html = page.get("/palette/").content.decode()

    assert 'href="/search/"' in html
    assert 'href="/documents/"' in html


def test_documents_and_conversations_are_found_by_name(
    page: Client, alice: User, add_document: AddDocument
) -> None:
    document = add_document("glacier.txt", "It melts.")
    Conversation.objects.create(user=alice, title="About the glacier")

    html = page.get("/palette/", {"q": "GLACIER"}).content.decode()
    assert f'href="/documents/{document.pk}/"' in html
    assert "About the glacier" in html
    assert "/search/?q=GLACIER" in html


def test_nothing_foreign_is_found(
    client: Client, alice: User, charlie: User, add_document: AddDocument
) -> None:
    add_document("glacier.txt", "It melts.")
    Conversation.objects.create(user=alice, title="About the glacier")
    client.force_login(charlie)

    html = client.get("/palette/", {"q": "glacier"}).content.decode()
    assert "/documents/1" not in html
    assert "About the" not in html


def test_the_palette_costs_few_queries(
    page: Client, add_document: AddDocument, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(5):
        add_document(f"glacier {number}.txt", "It melts.", wait=False)

    with django_assert_max_num_queries(5):
        page.get("/palette/", {"q": "glacier"})
