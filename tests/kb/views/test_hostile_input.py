"""Whatever is sent to a page, the answer is never a fault of ours.

The pages are read from the urlconfs and the fields from what the views ask for, so that a new one
is tried the day it is added. The API has its own: tests/kb/api/test_hostile_input.py.
"""

from inspect import iscoroutinefunction

import pytest
from django.http import QueryDict
from django.test import Client
from django.urls import reverse

from kb.models import User
from kb.urls import urlpatterns
from tests.kb.views.flooding import HOSTILE, flood
from tests.kb.views.test_access import ids

__all__ = ["ids"]
# /readyz says what is away. What is asked runs outside the test's transaction, and is the API's.
PAGES = [
    route
    for route in urlpatterns
    if route.name != "readyz" and not iscoroutinefunction(route.callback)
]


@pytest.fixture
def addresses(ids: dict[str, dict[str, int]]) -> list[str]:  # noqa: F811
    linked = {"password_reset_confirm": {"uidb64": "MQ", "token": "set-password"}}
    arguments = {**ids, **linked}
    return [reverse(str(route.name), kwargs=arguments.get(str(route.name))) for route in PAGES]


@pytest.mark.parametrize("value", HOSTILE)
def test_no_value_in_any_field_breaks_a_page(
    value: str, addresses: list[str], page: Client, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not flood(page, alice, addresses, value, monkeypatch)


def test_a_nul_character_is_refused_in_words_by_every_page(
    addresses: list[str], page: Client
) -> None:
    for address in addresses:
        read = page.get(address, {"anything": "a\0b"})
        assert read.status_code == 400
        assert "could not be understood" in read.content.decode()
        assert page.get(address, {"any\0thing": "ab"}).status_code == 400

        sent = page.post(address, {"anything": ["fine", "a\0b"]})
        assert sent.status_code in (400, 405)


@pytest.mark.django_db
@pytest.mark.parametrize("address", ["/", "/no/such/place"])
def test_a_cookie_with_a_nul_character_is_nobodys(client: Client, address: str) -> None:
    expected = client.get(address).status_code
    client.cookies["sessionid"] = "\0" * 32

    assert client.get(address).status_code == expected


@pytest.mark.parametrize(
    "back", ["nan~1", "https://elsewhere.example/", "//elsewhere.example", "x:y"]
)
def test_the_way_back_leads_nowhere_else_and_never_breaks(page: Client, back: str) -> None:
    answer = page.post("/scope/", {"collection": "", "next": back})

    assert answer.status_code == 302
    assert "elsewhere" not in answer["Location"]


def test_the_way_back_keeps_what_was_asked(page: Client) -> None:
    back = "/search/?" + QueryDict("q=ice&year=2026").urlencode()
    assert page.post("/scope/", {"next": back})["Location"] == back
