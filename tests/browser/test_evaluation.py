"""Evaluations and the arena in a browser: readable everywhere, and votes with one key."""

import os
from pathlib import Path

import pytest
from playwright.sync_api import expect

from finetune.models import Adapter, ArenaVote, Dataset
from kb.models import Collection, User
from tests.browser.conftest import PHONE, Accessible, Visit, press
from tests.finetune.answered import adapter_of, answered

pytestmark = pytest.mark.browser


@pytest.fixture
def adapter(collection: Collection) -> Adapter:
    return adapter_of(Dataset.objects.create(collection=collection, name="Glaciers"))


@pytest.mark.parametrize("size", [(1440, 900), PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("better", [True, False], ids=["passed", "refused"])
def test_pages_fit_and_can_be_used_by_everyone(
    visit: Visit, alice: User, adapter: Adapter, accessible: Accessible,
    size: tuple[int, int], better: bool,
) -> None:  # fmt: skip
    made = answered(adapter, better=better, obeys=0 if better else 2)
    paths = {"adapter": adapter.pk, "arena": adapter.pk, "evaluation": made.pk}
    for name, pk in paths.items():
        page = visit(alice, f"/train/{name}/{pk}/", size=size, dark=size == PHONE)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        if folder := os.environ.get("TACIT_PICTURES"):
            picture = Path(folder) / f"{name}-{size[0]}-{better}.png"
            page.screenshot(path=picture, full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        accessible(page)


def test_a_vote_takes_one_key_and_tells_the_names_afterwards(
    visit: Visit, bob: User, adapter: Adapter
) -> None:
    answered(adapter)
    page = visit(bob, f"/train/arena/{adapter.pk}/")
    # Nothing on the page says whose answer is where.
    shown = ArenaVote.objects.get()
    assert "adapter_is_left" not in page.content()
    page.keyboard.press("1" if shown.adapter_is_left else "2")
    expect(page.get_by_text("You preferred the adapter.")).to_be_visible()
    press(page, "0")
    expect(page.get_by_text("1 for both alike")).to_be_visible()
    assert sorted(ArenaVote.objects.exclude(verdict="").values_list("verdict", flat=True))[-1] == (
        "tie"
    )
