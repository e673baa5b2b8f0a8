import pytest
from playwright.sync_api import Page, expect

from kb.models import User
from tests.browser.conftest import PHONE, Accessible, Visit
from tests.conftest import AddDocument
from tests.kb.views.test_source import pdf

pytestmark = pytest.mark.browser

LONG = "# Ice\n\n" + "\n\n".join(
    f"## Part {n}\n\nParagraph {n} tells of ice and snow, at some length and in plain words."
    for n in range(60)
)


def drawn(page: Page) -> bool:
    """Tell whether the picture of the page has arrived."""
    drawn: bool = page.evaluate(
        "fetch(document.querySelector('#source image').getAttribute('href'))"
        ".then(answer => answer.ok && answer.headers.get('content-type') === 'image/png')"
    )
    return drawn


def test_a_pdf_page_is_drawn_with_the_passage_boxed(
    alice: User, visit: Visit, add_document: AddDocument, accessible: Accessible
) -> None:
    add_document("ice.pdf", pdf("Ice is cold.", "The glacier melts in late summer."))
    page = visit(alice, "/search/?q=glacier")
    page.locator("[data-hit]").first.click()

    box = page.locator("#source rect.box").last
    expect(box).to_be_in_viewport()
    assert drawn(page)
    accessible(page)
    page.get_by_text("The passage as text").click()
    expect(page.locator("#source mark").first).to_be_visible()


def test_a_page_that_cannot_be_drawn_gives_way_to_its_words(
    alice: User, visit: Visit, add_document: AddDocument
) -> None:
    add_document("ice.pdf", pdf("The glacier melts in late summer."))
    page = visit(alice, "/search/?q=glacier")
    page.route("**/page/*.png", lambda route: route.fulfill(status=404))
    page.locator("[data-hit]").first.click()

    expect(page.locator("#source mark").first).to_be_visible()
    expect(page.locator(".drawn-page")).to_have_count(0)


def test_more_is_shown_around_a_passage_without_losing_it(
    alice: User, visit: Visit, add_document: AddDocument
) -> None:
    add_document("long.md", LONG)
    page = visit(alice, "/search/?q=Paragraph+30+tells")
    page.locator("[data-hit]").first.click()
    page.locator("#source mark").first.wait_for()
    before = page.locator("#source .document p").count()
    page.get_by_role("link", name="Show more around it").click()

    expect(page.locator("#source mark").first).to_be_in_viewport()
    expect(page.locator("#source .document p").nth(before)).to_be_attached()


def test_the_whole_document_opens_at_the_passage(
    alice: User, visit: Visit, add_document: AddDocument, accessible: Accessible
) -> None:
    add_document("long.md", LONG)
    page = visit(alice, "/search/?q=Paragraph+30+tells")
    page.locator("[data-hit]").first.click()
    page.get_by_role("link", name="Read the whole document").click()

    expect(page.get_by_role("heading", level=1)).to_have_text("Ice")
    expect(page.locator("mark").first).to_be_visible()
    accessible(page)


@pytest.mark.parametrize("dark", [False, True])
def test_a_source_is_also_a_page(
    alice: User, visit: Visit, add_document: AddDocument, accessible: Accessible, dark: bool
) -> None:
    document = add_document("long.md", LONG)
    chunk = document.chunks.order_by("position")[3]
    page = visit(alice, f"/source/chunk/{chunk.pk}/", dark=dark)

    expect(page.locator("mark").first).to_be_visible()
    accessible(page)


def test_on_a_phone_a_wide_table_scrolls_in_itself(
    alice: User, visit: Visit, add_document: AddDocument
) -> None:
    header = ",".join(f"A column with number {n}" for n in range(12))
    row = ",".join("something rather long" for _ in range(12))
    document = add_document("wide.csv", f"{header}\n{row}\n{row}\n")
    page = visit(alice, f"/documents/{document.pk}/read/", size=PHONE)

    assert page.evaluate("document.documentElement.scrollWidth") == PHONE[0]
    expect(page.locator("table")).to_contain_text("something rather long")
