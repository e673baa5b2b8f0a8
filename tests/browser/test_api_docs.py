import pytest
from playwright.sync_api import expect

from kb.models import User
from tests.browser.conftest import Visit

pytestmark = pytest.mark.browser
HIGH = (1440, 20_000)  # only what is in view is drawn


def test_the_description_of_the_api_is_drawn_without_a_foreign_host(
    alice: User, visit: Visit
) -> None:
    page = visit(alice, "/api/v1/docs/", size=HIGH)

    expect(page.get_by_role("heading", name="Tacit API")).to_be_visible()
    expect(page.locator("[id$=-follow_answer]")).to_contain_text("server-sent events")


def test_a_signed_in_person_tries_a_call_there(alice: User, visit: Visit) -> None:
    page = visit(alice, "/api/v1/docs/", size=HIGH)
    operation = page.locator("[id$=-collections_create]")
    operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Try it out").click()
    operation.locator("textarea").fill('{"name": "Made by hand"}')
    operation.get_by_role("button", name="Execute").click()

    expect(operation.locator(".live-responses-table")).to_contain_text("201")
    assert alice.memberships.filter(collection__name="Made by hand", role="owner").exists()


def test_the_description_is_as_dark_as_the_other_pages(alice: User, visit: Visit) -> None:
    page = visit(alice, "/api/v1/docs/", dark=True)
    expect(page.locator("html")).to_have_class("dark-mode")  # what Swagger's style goes by
    page.context.add_cookies([{"name": "theme", "value": "light", "url": page.url}])
    page.reload()
    expect(page.locator("html")).to_have_class("")
    page.get_by_role("link", name="Back to Tacit").click()
    expect(page.get_by_label("Your question")).to_be_visible()
