import re

import pytest
from playwright.sync_api import expect

from kb.models import Collection, User
from tests.browser.conftest import Accessible, Visit
from tests.conftest import AddDocument

pytestmark = pytest.mark.browser


def test_the_palette_finds_a_document_by_name(
    alice: User, visit: Visit, add_document: AddDocument, accessible: Accessible
) -> None:
    document = add_document("glacier.txt", "It melts.")
    page = visit(alice)
    page.keyboard.press("Control+k")
    page.keyboard.type("glac")
    expect(page.get_by_role("option", name="glacier")).to_be_visible()
    accessible(page)
    page.keyboard.press("Enter")

    expect(page).to_have_url(re.compile(f"/documents/{document.pk}/$"))


def test_single_keys_lead_around_and_can_be_switched_off(alice: User, visit: Visit) -> None:
    page = visit(alice, "/documents/")
    page.keyboard.press("g")
    page.keyboard.press("s")
    expect(page).to_have_url(re.compile("/search/$"))
    page.wait_for_load_state()  # keys are heard once the scripts have run
    page.keyboard.press("Tab")
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keyboard shortcuts")
    expect(dialog).to_be_visible()
    dialog.get_by_role("checkbox").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.keyboard.press("a")
    page.wait_for_timeout(300)
    expect(page).to_have_url(re.compile("/search/$"))


def test_keys_typed_into_a_box_are_words(alice: User, visit: Visit) -> None:
    page = visit(alice)
    page.get_by_label("Your question").fill("")
    page.keyboard.type("gs?/[")

    expect(page.get_by_label("Your question")).to_have_value("gs?/[")


def test_the_look_and_the_rail_are_remembered(alice: User, visit: Visit) -> None:
    page = visit(alice)
    page.locator(".rail-foot summary").click()
    page.get_by_role("radio", name="Dark").click()
    page.get_by_role("button", name="Narrow or widen the menu").click()
    page.reload()

    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    expect(page.locator("html")).to_have_attribute("data-rail", "narrow")
    expect(page.locator("body")).to_have_css("background-color", "rgb(25, 24, 22)")


def test_the_collection_switch_narrows_and_stays(
    alice: User, visit: Visit, collection: Collection
) -> None:
    page = visit(alice, "/search/")
    page.locator(".scope summary").click()
    page.get_by_role("button", name="Field notes").click()

    expect(page.locator(".scope summary")).to_contain_text("Field notes")
    page.goto("/")
    expect(page.locator('[data-chip="collections"]')).to_have_text("Field notes")


def test_menus_open_and_close_by_keyboard(alice: User, visit: Visit) -> None:
    page = visit(alice)
    summary = page.locator(".rail-foot summary")
    summary.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="Account and tokens")).to_be_visible()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("link", name="Account and tokens")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("link", name="Account and tokens")).not_to_be_visible()
    expect(summary).to_be_focused()


def test_the_first_tab_stop_skips_to_the_content(alice: User, visit: Visit) -> None:
    page = visit(alice, "/documents/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")

    expect(page.locator("#main")).to_be_focused()


@pytest.mark.parametrize("dark", [False, True])
def test_a_page_that_is_not_there_is_accessible(
    alice: User, visit: Visit, accessible: Accessible, dark: bool
) -> None:
    page = visit(alice, "/no/such/page", dark=dark)

    expect(page.get_by_role("heading", level=1)).to_be_visible()
    accessible(page)
