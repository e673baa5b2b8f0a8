"""Fixtures for pages: somebody signed in, and static files without a collected manifest."""

import pytest
from django.test import Client
from pytest_django.fixtures import Settings

from kb.models import User


@pytest.fixture(autouse=True)
def static_files_as_they_lie(settings: Settings) -> None:
    plain = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    settings.STORAGES = {**settings.STORAGES, "staticfiles": plain}


@pytest.fixture(autouse=True)
def quick_passwords(settings: Settings) -> None:
    """Spare the tests what makes guessing slow: three people cost 0.3 s otherwise."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def page(alice: User, client: Client) -> Client:
    """A browser in which alice is signed in."""
    client.force_login(alice)
    return client
