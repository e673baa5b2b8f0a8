"""Somebody is invited, chooses a password, joins a collection and is removed again."""

import pytest
from playwright.sync_api import expect

from kb.models import Collection, User
from tests.browser.conftest import Accessible, Visit
from tests.conftest import PASSWORD

pytestmark = pytest.mark.browser


def test_an_invitation_leads_to_a_password_and_in(
    visit: Visit, alice: User, collection: Collection, accessible: Accessible
) -> None:
    alice.is_superuser = True
    alice.save()
    page = visit(alice, "/people/")
    accessible(page)
    page.get_by_role("link", name="Invite somebody").click()
    page.get_by_label("Username").fill("dora")
    page.get_by_label("Collection", exact=True).select_option("Field notes")
    page.get_by_label("Role in the collection").select_option("curator")
    accessible(page)
    page.get_by_role("button", name="Make the link").click()
    link = page.locator("#link").inner_text()
    accessible(page)
    page.get_by_role("button", name="Copy the link").click()
    expect(page.locator(".toast")).to_contain_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == link

    newcomer = visit(None, link[link.index("/password/") :])
    accessible(newcomer)
    newcomer.get_by_label("New password", exact=True).fill("a glacier in summer")
    newcomer.get_by_label("New password confirmation").fill("a glacier in summer")
    newcomer.get_by_role("button", name="Set the password and sign in").click()
    expect(newcomer.get_by_text("Your password is set")).to_be_visible()

    again = visit(None, "/documents/")
    accessible(again)
    again.get_by_label("Username").fill("dora")
    again.get_by_label("Password").fill("a glacier in spring")
    again.get_by_role("button", name="Sign in").click()
    expect(again.get_by_role("alert")).to_contain_text("do not belong together")
    expect(again.get_by_label("Password")).to_be_focused()
    again.get_by_label("Password").fill("a glacier in summer")
    again.get_by_role("button", name="Sign in").click()
    expect(again.get_by_role("heading", level=1)).to_have_text("Documents")


def test_members_are_added_changed_and_removed(
    visit: Visit, alice: User, charlie: User, collection: Collection, accessible: Accessible
) -> None:
    page = visit(alice, f"/collections/{collection.pk}/members/")
    accessible(page)

    page.get_by_label("Username, e-mail address or group").fill("nobody")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_text("Nobody here has the username")).to_be_visible()
    page.get_by_label("Username, e-mail address or group").fill("charlie@example.org")
    page.get_by_role("button", name="Add").click()
    row = page.get_by_role("row").filter(has_text="charlie")
    row.get_by_label("Role of charlie").select_option("curator")
    expect(page.locator(".toast")).to_have_text("charlie · Curator")
    assert collection.memberships.get(user=charlie).role == "curator"

    row.get_by_role("button", name="Remove charlie").click()
    expect(row).to_have_count(0)
    page.get_by_role("button", name="Remove alice").click()
    expect(page.get_by_text("A collection needs an owner")).to_be_visible()


def test_a_removed_person_is_out_at_the_next_step(
    visit: Visit, alice: User, bob: User, collection: Collection, accessible: Accessible
) -> None:
    alice.is_superuser = True
    alice.save()
    theirs = visit(bob, "/documents/")
    page = visit(alice, f"/people/{bob.pk}/")
    page.get_by_role("link", name="Remove this person").click()
    dialog = page.get_by_role("dialog")
    accessible(page)
    dialog.get_by_role("button", name="Remove").click()
    expect(page.get_by_text("bob can no longer sign in")).to_be_visible()

    theirs.reload()
    expect(theirs.get_by_role("heading", level=1)).to_have_text("Sign in")


def test_a_token_is_shown_once_and_everything_works_in_the_dark(
    visit: Visit, alice: User, accessible: Accessible
) -> None:
    page = visit(alice, "/account/tokens/", dark=True)
    accessible(page)
    page.get_by_label("What is it for?").fill("Nightly import")
    page.get_by_role("button", name="Make the token").click()
    expect(page.locator("#secret")).to_contain_text("tacit_")
    accessible(page)
    page.reload()
    expect(page.locator("#secret")).to_have_count(0)

    page.goto("/account/look/")
    page.get_by_role("radio", name="Dark letters on paper").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    page.goto("/account/password/")
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    page.get_by_label("Your password").fill(PASSWORD)
    page.get_by_role("button", name="Sign out everywhere else").click()
    expect(page.get_by_text("All other devices are signed out.")).to_be_visible()
