"""Send one value in every field that a page asks for, whatever their names are."""

from typing import Any

import pytest
from django.core.handlers.wsgi import WSGIRequest
from django.db import transaction
from django.http import QueryDict
from django.test import Client, override_settings

from kb.models import User

HOSTILE = ["-1", "nan~1", "9" * 18, "²", "9999-12-31T23:59:59+14:00~1", "a=%00&tag=%00"]


class _Undone(Exception):
    """Takes back what a request did, so that the next one finds the same rows."""


def flood(
    client: Client,
    user: User,
    addresses: list[str],
    value: str,
    monkeypatch: pytest.MonkeyPatch,
) -> list[str]:
    """Read and post every address as an administrator; gives what broke."""
    user.is_superuser = user.is_staff = True
    user.save()
    client.force_login(user)
    signed_in = client.cookies.output(header="")
    fields = _everything(value)
    monkeypatch.setattr(WSGIRequest, "GET", fields)
    monkeypatch.setattr(WSGIRequest, "POST", fields)
    broken = []
    with override_settings(RATE_LIMITS=_Unlimited()):
        for address in addresses:
            for method in ("get", "post"):
                client.cookies.load(signed_in)
                if fault := _fault(client, method, address):
                    broken.append(f"{method} {address}: {fault}")
    return broken


class _Unlimited(dict[str, int]):
    def __missing__(self, key: str) -> int:
        return 10**9


def _everything(value: str) -> QueryDict:
    class Everything(QueryDict):
        def get(self, key: str, default: object = None) -> Any:
            return value

        def getlist(self, key: str, default: object = None) -> Any:
            return [value]

        def __getitem__(self, key: str) -> Any:
            return value

        def __contains__(self, key: object) -> bool:
            return True

    return Everything("")


def _fault(client: Client, method: str, address: str) -> str:
    try:
        with transaction.atomic():
            status: int = getattr(client, method)(address).status_code
            if status >= 500:
                return str(status)
            raise _Undone
    except _Undone:
        return ""
    except Exception as error:
        return repr(error)[:300]
