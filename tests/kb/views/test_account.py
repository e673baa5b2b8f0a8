"""Signing in and out, passwords, tokens and sessions."""

import re
import threading
from datetime import timedelta

import pytest
from django.core import mail
from django.core.cache import cache
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from kb import limits
from kb.models import ApiToken, User
from tests.conftest import PASSWORD

NEW = "a glacier in summer"
SIGN_IN = "/sign-in/"


@pytest.fixture(autouse=True)
def fresh_limits() -> None:
    cache.clear()
    limits._counts.clear()


def sign_in(client: Client, username: str, password: str, **more: str) -> str:
    data = {"username": username, "password": password, **more}
    answer = client.post(SIGN_IN, data)
    return answer["Location"] if answer.status_code == 302 else answer.content.decode()


def said(html: str) -> str:
    """Give the sentence of a refused sign-in."""
    found = re.search(r'role="alert".*?<p>(.*?)</p>', html, re.S)
    assert found
    return found[1]


# --- Signing in -------------------------------------------------------------------------------


def test_signing_in_goes_to_the_page_that_was_wanted(client: Client, alice: User) -> None:
    wanted = client.get(reverse("documents"))

    assert wanted["Location"] == f"{SIGN_IN}?next=/documents/"
    assert sign_in(client, "alice", PASSWORD, next="/documents/") == "/documents/"


@pytest.mark.parametrize("next_page", ["https://evil.example/", "//evil.example", "javascript:x"])
def test_signing_in_never_leads_to_a_foreign_host(
    next_page: str, client: Client, alice: User
) -> None:
    assert sign_in(client, "alice", PASSWORD, next=next_page) == reverse("ask")


def test_a_refusal_does_not_tell_who_exists(client: Client, alice: User, bob: User) -> None:
    bob.is_active = False
    bob.save()

    sentences = {
        said(sign_in(client, name, password))
        for name, password in [("alice", "wrong"), ("nobody", "wrong"), ("bob", PASSWORD)]
    }

    assert sentences == {"This username and this password do not belong together."}


def test_guessing_one_password_is_slowed_down(
    client: Client, alice: User, settings: Settings
) -> None:
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "login": 3}
    for _ in range(3):
        sign_in(client, "alice", "wrong")

    assert "Too many attempts" in said(sign_in(client, "ALICE", PASSWORD))
    assert "_auth_user_id" not in client.session


def test_guessing_many_names_from_one_address_is_slowed_down(
    client: Client, alice: User, settings: Settings
) -> None:
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "login_address": 3}
    for n in range(3):
        sign_in(client, f"name{n}", "wrong")

    assert "Too many attempts" in said(sign_in(client, "alice", PASSWORD))


def test_a_session_gets_a_new_key_when_somebody_signs_in(client: Client, alice: User) -> None:
    client.get(SIGN_IN)
    session = client.session
    session["planted"] = True
    session.save()
    before = session.session_key

    sign_in(client, "alice", PASSWORD)

    assert client.session.session_key != before


def test_signing_out_needs_a_button_not_a_link(page: Client) -> None:
    assert page.get(reverse("logout")).status_code == 405
    assert page.post(reverse("logout"))["Location"] == SIGN_IN
    assert page.get(reverse("account")).status_code == 302


def test_a_form_without_its_token_is_refused(alice: User) -> None:
    browser = Client(enforce_csrf_checks=True)

    answer = browser.post(SIGN_IN, {"username": "alice", "password": PASSWORD})

    assert answer.status_code == 403
    assert b"open too long" in answer.content


def test_the_back_office_is_entered_through_the_same_page(
    client: Client, alice: User, bob: User
) -> None:
    asked = client.get("/admin/", follow=True)
    assert asked.redirect_chain[-1][0].startswith(f"{SIGN_IN}?next=")
    assert asked.context["next"] == "/admin/"
    client.force_login(bob)
    assert client.get("/admin/", follow=True).status_code == 404
    alice.is_staff = alice.is_superuser = True
    alice.save()
    client.force_login(alice)
    assert client.get("/admin/").status_code == 200


# --- A forgotten password ---------------------------------------------------------------------


def ask_for_link(client: Client, address: str) -> bytes:
    answer = client.post(reverse("password_reset"), {"email": address}, follow=True)
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and thread.daemon:
            thread.join(timeout=2)
    return answer.content


def test_a_link_is_mailed_and_the_page_does_not_tell_whether(client: Client, alice: User) -> None:
    assert ask_for_link(client, "nobody@example.org") == ask_for_link(client, "ALICE@example.org")

    assert [message.to for message in mail.outbox] == [["alice@example.org"]]
    link = re.search(r"http://\S+?(/password/\S+)", mail.outbox[0].body)
    assert link
    form = client.get(link[1], follow=True)
    client.post(form.request["PATH_INFO"], {"new_password1": NEW, "new_password2": NEW})
    assert User.objects.get().check_password(NEW)


def test_the_link_starts_with_our_address_whatever_the_host_header_says(
    client: Client, alice: User, settings: Settings
) -> None:
    settings.ALLOWED_HOSTS = ["*"]
    settings.BASE_URL = "https://kb.example"

    client.post(
        reverse("password_reset"), {"email": "alice@example.org"}, headers={"host": "evil.example"}
    )
    ask_for_link(client, "nobody@example.org")

    assert "https://kb.example/password/" in mail.outbox[0].body
    assert "evil" not in mail.outbox[0].body


def test_an_install_without_mail_says_so(client: Client, settings: Settings) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"

    assert b"sends no e-mail" in client.get(reverse("password_reset")).content


@pytest.mark.parametrize("path", ["/password/MQ/abc-def/", "/password/x/y/", "/password/%00/a-b/"])
def test_a_wrong_link_is_explained(path: str, client: Client, alice: User) -> None:
    assert b"This link has ended" in client.get(path, follow=True).content


def test_a_weak_password_is_refused(client: Client, alice: User) -> None:
    form = client.get(alice.set_password_path(), follow=True)

    answer = client.post(
        form.request["PATH_INFO"], {"new_password1": "alice1", "new_password2": "alice1"}
    )

    assert b"too short" in answer.content


# --- The account ------------------------------------------------------------------------------


def other_device(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def test_a_changed_password_signs_other_devices_out(page: Client, alice: User) -> None:
    other = other_device(alice)

    page.post(
        reverse("account_password"),
        {"old_password": PASSWORD, "new_password1": NEW, "new_password2": NEW},
    )

    assert page.get(reverse("account")).status_code == 200
    assert other.get(reverse("account")).status_code == 302


def test_signing_out_everywhere_keeps_this_device_and_the_password(
    page: Client, alice: User
) -> None:
    other = other_device(alice)
    address = reverse("account_sign_out_everywhere")

    refused = page.post(address, {"password": "wrong"})
    assert b"This is not your password" in refused.content
    assert other.get(reverse("account")).status_code == 200

    page.post(address, {"password": PASSWORD})
    assert page.get(reverse("account")).status_code == 200
    assert other.get(reverse("account")).status_code == 302
    assert User.objects.get(pk=alice.pk).check_password(PASSWORD)


def test_the_password_cannot_be_guessed_from_an_open_session(
    page: Client, settings: Settings
) -> None:
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "login": 2}
    address = reverse("account_sign_out_everywhere")
    for _ in range(2):
        page.post(address, {"password": "wrong"})

    assert b"Too many attempts" in page.post(address, {"password": PASSWORD}).content


def test_name_and_address_are_changed(page: Client, alice: User, bob: User) -> None:
    page.post(reverse("account"), {"first_name": "Alice", "last_name": "A.", "email": "a@b.org"})
    assert User.objects.get(pk=alice.pk).display_name == "Alice A."

    taken = page.post(reverse("account"), {"email": "BOB@example.org"})
    assert taken.status_code == 200
    assert User.objects.get(pk=alice.pk).email == "a@b.org"


def test_a_tokens_secret_is_shown_once_and_only_its_fingerprint_kept(
    page: Client, alice: User
) -> None:
    address = reverse("account_tokens")
    made = page.post(address, {"name": "Nightly", "scopes": ["read", "write"], "days": "30"})
    secret = re.search(r"tacit_[\w-]{30,}", made.content.decode())
    assert secret

    token = ApiToken.objects.get()
    assert token.digest == ApiToken.digest_of(secret[0])
    assert token.scopes == ["read", "write"]
    assert token.expires_at is not None
    assert secret[0].encode() not in page.get(address).content


def test_every_token_expires_within_a_year(page: Client) -> None:
    address = reverse("account_tokens")
    for days in ("", "366", "100000"):
        page.post(address, {"name": "For ever", "scopes": ["read"], "days": days})
    assert not ApiToken.objects.exists()
    assert b"Never" not in page.get(address).content

    page.post(address, {"name": "Long", "scopes": ["read"], "days": "365"})
    expires_at = ApiToken.objects.get().expires_at
    assert expires_at is not None
    assert expires_at <= timezone.now() + timedelta(days=365)


def test_a_token_of_earlier_days_is_shown_as_never_expiring_and_is_revoked(
    page: Client, alice: User
) -> None:
    in_a_day = timezone.now() + timedelta(days=1)
    token, _secret = ApiToken.objects.issue(alice, name="Old", scopes=["read"], expires_at=in_a_day)
    ApiToken.objects.update(expires_at=None)
    assert b"Never; make a new one" in page.get(reverse("account_tokens")).content

    page.post(reverse("account_token_revoke", args=[token.pk]))
    assert not ApiToken.objects.usable().exists()
    assert b"Old</strong>" not in page.get(reverse("account_tokens")).content


def test_a_token_needs_a_scope_that_exists(page: Client) -> None:
    page.post(reverse("account_tokens"), {"name": "x", "scopes": ["everything"], "days": "30"})
    page.post(reverse("account_tokens"), {"name": "x", "days": "30"})

    assert not ApiToken.objects.exists()
