"""Whatever is sent to a page of curation and training, the answer is never a fault of ours."""

import pytest
from django.core.files.base import ContentFile
from django.test import Client

from finetune import importing
from finetune.models import Dataset
from finetune.urls import urlpatterns
from kb.models import User
from tests.finetune.views.test_access import address, ids
from tests.kb.views.flooding import HOSTILE, flood

__all__ = ["ids"]


@pytest.fixture
def addresses(ids: dict[str, int], dataset: Dataset, alice: User) -> list[str]:  # noqa: F811
    file = ContentFile(b'{"instruction": "Melts a glacier?", "output": "Yes."}')
    ids["import"] = importing.add_file(dataset, file, name="a.jsonl", user=alice)[0].pk
    return [address(route, ids) for route in urlpatterns]


@pytest.mark.parametrize("value", HOSTILE)
def test_no_value_in_any_field_breaks_a_page(
    value: str, addresses: list[str], page: Client, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not flood(page, alice, addresses, value, monkeypatch)


def test_a_nul_character_is_refused_by_every_page(addresses: list[str], page: Client) -> None:
    for where in addresses:
        assert page.get(where, {"anything": "a\0b"}).status_code == 400
        assert page.post(where, {"anything": "a\0b"}).status_code in (400, 405)
