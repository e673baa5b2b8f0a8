import re

import pytest
from playwright.sync_api import expect

from kb.models import Collection, User
from tests.browser.conftest import PHONE, Accessible, Visit
from tests.conftest import AddDocument
from tests.kb.rows import make_document

pytestmark = pytest.mark.browser


@pytest.fixture(autouse=True)
def documents(collection: Collection, alice: User, add_document: AddDocument) -> None:
    add_document("ice.md", "# Ice\n\n## Glaciers\n\nThe glacier melts in late summer.\n")
    add_document("log.txt", "We saw the glacier from the boat.")
    other = Collection.objects.create(name="Lab book")
    other.grant(alice, "owner")
    add_document("lab.md", "# Lab\n\nA glacier sample lies in the freezer.\n", to=other)


def test_words_are_searched_and_a_hit_opens_its_source(alice: User, visit: Visit) -> None:
    page = visit(alice, "/search/")
    page.get_by_label("Search in the documents").fill("glacier")
    page.keyboard.press("Enter")

    expect(page.locator("[data-hit]")).to_have_count(3)
    expect(page).to_have_url(re.compile(r"q=glacier"))
    expect(page).to_have_title(re.compile("^glacier"))
    page.locator(".hit-title", has_text="Ice").click()
    expect(page.locator("#source mark")).to_have_text("The glacier melts in late summer.")


def test_the_keyboard_walks_through_the_hits(alice: User, visit: Visit) -> None:
    page = visit(alice, "/search/?q=glacier")
    page.keyboard.press("Tab")
    page.keyboard.press("j")
    expect(page.locator("[data-hit]").nth(0)).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(page.locator("[data-hit]").nth(1)).to_be_focused()
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    expect(page.locator("#source mark")).to_be_visible()
    first = page.locator("#source-title").inner_text()
    page.keyboard.press(".")
    expect(page.locator("#source-title")).not_to_have_text(first)
    expect(page.locator(".source-at")).to_have_text("2 / 3")
    page.keyboard.press("Escape")
    expect(page.locator("#source")).not_to_be_visible()
    page.keyboard.press("/")
    expect(page.get_by_label("Search in the documents")).to_be_focused()


def test_a_filter_narrows_at_once_and_the_address_keeps_it(alice: User, visit: Visit) -> None:
    page = visit(alice, "/search/?q=glacier")
    page.get_by_role("checkbox", name="Lab book").check()

    expect(page.locator("[data-hit]")).to_have_count(1)
    expect(page).to_have_url(re.compile("collection="))
    page.reload()
    expect(page.get_by_role("checkbox", name="Lab book")).to_be_checked()
    page.get_by_role("link", name="Clear the filters").click()
    expect(page.locator("[data-hit]")).to_have_count(3)


def test_going_back_shows_the_search_before(alice: User, visit: Visit) -> None:
    page = visit(alice, "/search/?q=glacier")
    page.get_by_label("Search in the documents").fill("boat")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("q=boat"))
    page.go_back()

    expect(page.get_by_label("Search in the documents")).to_have_value("glacier")


def test_many_hits_come_in_pages(alice: User, visit: Visit, collection: Collection) -> None:
    make_document(collection, "many", [f"Glacier number {n} melts." for n in range(25)])
    page = visit(alice, "/search/?q=glacier+melts")
    expect(page.locator("[data-hit]")).to_have_count(10)
    page.get_by_role("link", name="Next", exact=True).click()

    expect(page).to_have_url(re.compile("page=2"))
    expect(page.get_by_role("link", name="Previous", exact=True)).to_be_visible()


def test_hits_can_be_asked_about(alice: User, visit: Visit) -> None:
    page = visit(alice, "/search/?q=glacier")
    page.get_by_role("link", name="Ask about these").click()

    expect(page.get_by_label("Your question")).to_have_value("glacier")
    expect(page.locator(".composer")).to_contain_text("3 documents")


def test_nothing_found_says_what_to_try(alice: User, visit: Visit) -> None:
    page = visit(alice, "/search/?q=glacier&tag=none")

    expect(page.get_by_text("Nothing found for “glacier”")).to_be_visible()
    page.get_by_role("link", name="Search without filters").click()
    expect(page.locator("[data-hit]")).to_have_count(3)


def test_somebody_without_a_collection_is_told_so(charlie: User, visit: Visit) -> None:
    page = visit(charlie, "/search/?q=glacier")

    expect(page.get_by_text("No collection to search")).to_be_visible()
    expect(page.locator("[data-hit]")).to_have_count(0)


@pytest.mark.parametrize("dark", [False, True])
def test_search_is_accessible(
    alice: User, visit: Visit, accessible: Accessible, dark: bool
) -> None:
    page = visit(alice, "/search/", dark=dark)
    accessible(page)
    page.goto("/search/?q=glacier")
    accessible(page)
    page.locator("[data-hit]").first.click()
    page.locator("#source mark").first.wait_for()
    accessible(page)


def test_on_a_phone_the_filters_are_a_sheet(
    alice: User, visit: Visit, accessible: Accessible
) -> None:
    page = visit(alice, "/search/?q=glacier", size=PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE[0]
    expect(page.locator("#facets")).not_to_be_visible()
    page.get_by_role("button", name="Filters", exact=True).click()
    expect(page.locator("#facets")).to_be_visible()
    accessible(page)
    page.keyboard.press("Escape")
    expect(page.locator("#facets")).not_to_be_visible()
