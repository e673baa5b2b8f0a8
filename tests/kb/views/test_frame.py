import re

import pytest
from django.test import Client
from pytest_django.fixtures import Settings

from kb.models import Collection, User


def test_the_frame_names_the_page_and_the_person(page: Client) -> None:
    html = page.get("/search/").content.decode()

    assert re.search(r'href="/search/"[^>]*aria-current="page"', html)
    assert "alice" in html


def test_managing_is_offered_to_owners_only(
    client: Client, alice: User, bob: User, collection: Collection
) -> None:
    client.force_login(alice)
    assert ">Manage<" in client.get("/").content.decode()
    client.force_login(bob)
    assert ">Manage<" not in client.get("/").content.decode()


def test_the_stored_look_is_in_the_first_byte_of_the_page(page: Client) -> None:
    page.cookies["theme"] = "dark"
    page.cookies["rail"] = "narrow"

    assert 'data-theme="dark" data-rail="narrow"' in page.get("/").content.decode()


def test_a_forged_look_is_ignored(page: Client) -> None:
    page.cookies["theme"] = '"><script>'

    assert 'data-theme="auto"' in page.get("/").content.decode()


@pytest.mark.parametrize("path", ["/", "/search/", "/documents/", "/account/", "/sign-in/"])
def test_no_page_carries_inline_code_or_a_foreign_address(page: Client, path: str) -> None:
    response = page.get(path, follow=True)
    html = response.content.decode()

    assert not re.search(r"<script(?![^>]*\bsrc=)", html)
    assert not re.search(r"<style|\sstyle=|\son\w+=|hx-on|hx-vals=['\"]js", html)
    assert not re.search(r'(?:src|href|action)="(?:https?:)?//', html)
    assert "script-src 'self'" in response["Content-Security-Policy"]


def test_what_is_not_there_says_so_without_repeating_the_address(page: Client) -> None:
    response = page.get("/no/such/<b>place</b>")

    assert response.status_code == 404
    assert "There is nothing here for you" in response.content.decode()
    assert "place" not in response.content.decode()


def test_a_form_without_its_token_is_refused_in_words(alice: User) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(alice)

    response = strict.post("/scope/", {"collection": ""})
    assert response.status_code == 403
    assert "This page was open too long" in response.content.decode()


def test_a_fault_is_told_without_details(
    alice: User, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **named: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("kb.views.search.narrowing_of", broken)
    client = Client(raise_request_exception=False)
    client.force_login(alice)

    response = client.get("/search/?q=x")
    assert response.status_code == 500
    assert "The program has a fault" in response.content.decode()
    assert "secret" not in response.content.decode()
