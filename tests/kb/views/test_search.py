from typing import Any

import pytest
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from kb.models import Collection, User
from tests.conftest import AddDocument
from tests.kb.rows import make_document

ICE = "# Ice\n\nThe glacier melts in late summer.\n"


def test_hits_show_title_snippet_and_collection(page: Client, add_document: AddDocument) -> None:
    document = add_document("ice.md", ICE)

    html = page.get("/search/", {"q": "glacier"}).content.decode()
    assert "<mark>glacier</mark>" in html
    assert "Field notes" in html
    assert document.title in html
    assert f"/source/chunk/{document.chunks.get().pk}/" in html
    assert "1 passage" in html


def test_somebody_without_membership_finds_nothing(
    client: Client, charlie: User, add_document: AddDocument
) -> None:
    add_document("ice.md", ICE)
    client.force_login(charlie)

    html = client.get("/search/", {"q": "glacier"}).content.decode()
    assert "late summer" not in html
    assert "No collection to search" in html


def test_a_foreign_collection_in_the_address_changes_nothing(
    client: Client, charlie: User, collection: Collection, add_document: AddDocument
) -> None:
    add_document("ice.md", ICE)
    Collection.objects.create(name="Open", is_public=True)
    client.force_login(charlie)

    foreign = client.get("/search/", {"q": "glacier", "collection": collection.pk})
    missing = client.get("/search/", {"q": "glacier", "collection": 99999})
    assert foreign.content.decode().count("Field notes") == 0
    assert "data-hit" not in foreign.content.decode()
    assert foreign.status_code == missing.status_code == 200


def test_no_query_explains_what_can_be_found(page: Client, collection: Collection) -> None:
    html = page.get("/search/").content.decode()

    assert "Search in everything you may read" in html


def test_nothing_found_offers_to_drop_the_filters(page: Client, collection: Collection) -> None:
    html = page.get("/search/", {"q": "zebra", "type": "pdf"}).content.decode()

    assert "Nothing found for “zebra”" in html
    assert "Search without filters" in html


def test_passages_that_only_mean_the_same_are_named_so(
    page: Client, add_document: AddDocument
) -> None:
    add_document("ice.md", ICE)

    html = page.get("/search/", {"q": "zzyzx"}).content.decode()
    assert "No passage holds these words" in html or "Nothing found" in html


def test_filters_narrow_and_stay_chosen(
    page: Client, alice: User, collection: Collection, add_document: AddDocument
) -> None:
    other = Collection.objects.create(name="Lab book")
    other.grant(alice, "owner")
    add_document("ice.md", ICE)
    add_document("lab.txt", "The glacier in the laboratory melts too.", to=other)

    both = page.get("/search/", {"q": "glacier"}).content.decode()
    assert both.count("data-hit") == 2
    one = page.get("/search/", {"q": "glacier", "collection": other.pk}).content.decode()
    assert one.count("data-hit") == 1
    assert f'name="collection" value="{other.pk}" data-submits checked' in one
    text = page.get("/search/", {"q": "glacier", "type": "text/plain"}).content.decode()
    assert "laboratory" in text
    assert text.count("data-hit") == 1


def test_a_word_for_a_format_chooses_its_own_media_type(
    page: Client, add_document: AddDocument
) -> None:
    add_document("ice.md", ICE)

    html = page.get("/search/", {"q": "glacier", "type": "pdf"}).content.decode()
    assert 'name="type" value="application/pdf" data-submits checked' in html
    assert '<span class="cut" title="PDF">PDF</span>' in html
    assert 'value="pdf"' not in html


def test_the_chosen_collection_narrows_search_until_another_is_named(
    page: Client, alice: User, collection: Collection, add_document: AddDocument
) -> None:
    other = Collection.objects.create(name="Lab book")
    other.grant(alice, "owner")
    add_document("ice.md", ICE)
    add_document("lab.txt", "The glacier in the laboratory melts too.", to=other)
    page.post("/scope/", {"collection": other.pk, "next": "/search/"})

    assert page.get("/search/", {"q": "glacier"}).content.decode().count("data-hit") == 1
    page.post("/scope/", {"collection": "", "next": "/search/"})
    assert page.get("/search/", {"q": "glacier"}).content.decode().count("data-hit") == 2


@pytest.mark.parametrize(
    ("asked", "expected"),
    [("/search/", "/search/"), ("https://evil.example/", "/"), ("//evil.example/", "/")],
)
def test_choosing_a_collection_leads_back_and_nowhere_else(
    page: Client, asked: str, expected: str
) -> None:
    assert page.post("/scope/", {"collection": "", "next": asked}).url == expected  # type: ignore[attr-defined]


def test_hits_come_a_page_at_a_time(page: Client, collection: Collection) -> None:
    make_document(collection, "many", [f"Glacier number {n} melts." for n in range(25)])

    first = page.get("/search/", {"q": "glacier"}).content.decode()
    assert first.count("data-hit") == 10
    assert "1–10 of 25" in first
    last = page.get("/search/", {"q": "glacier", "page": "3"}).content.decode()
    assert last.count("data-hit") == 5
    assert page.get("/search/", {"q": "glacier", "page": "what"}).status_code == 200
    assert page.get("/search/", {"q": "glacier", "page": "99"}).status_code == 200


def test_htmx_gets_the_results_alone(page: Client, add_document: AddDocument) -> None:
    add_document("ice.md", ICE)

    html = page.get("/search/", {"q": "glacier"}, headers={"HX-Request": "true"}).content.decode()
    assert html.strip().startswith('<div id="results"')
    assert "<!doctype" not in html


def test_a_document_cannot_write_html_into_the_results(
    page: Client, add_document: AddDocument
) -> None:
    add_document("x.txt", "glacier <script>alert(1)</script> <img src=x onerror=alert(1)>")

    html = page.get("/search/", {"q": "glacier script"}).content.decode()
    assert "<script>alert" not in html
    assert "<img" not in html


@pytest.mark.parametrize(
    "values",
    [
        {"q": "a" * 5_000},
        {"q": "glacier", "since": "9999-99-99"},
        {"q": "glacier", "year": "abc"},
        {"q": "glacier", "year": "2026"},
        {"q": "glacier", "collection": "1' OR 1=1"},
        {"q": "glacier", "document": "9" * 30},
        {"q": "%s %(x)s {{ 7 }} ' \" \\"},
    ],
)
def test_strange_addresses_find_nothing_or_something_but_never_break(
    page: Client, collection: Collection, values: dict[str, Any]
) -> None:
    assert page.get("/search/", values).status_code == 200


def test_a_page_of_hits_costs_the_same_queries_however_many(
    page: Client,
    alice: User,
    collection: Collection,
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    for number in range(12):
        make_document(collection, f"{number}", [f"Glacier {number} melts.", "Ice."])

    with django_assert_max_num_queries(14):
        html = page.get("/search/", {"q": "glacier"}).content.decode()
    assert html.count("data-hit") == 10
