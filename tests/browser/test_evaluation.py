"""Evaluations and the arena in a browser: readable everywhere, and votes with one key."""

import os
from pathlib import Path

import pytest
from django.contrib.auth.models import Group
from django.utils import timezone
from playwright.sync_api import expect

from finetune.models import Adapter, ArenaVote, Dataset
from kb.backends import get_backend
from kb.models import Collection, ModelDeployment, User
from tests.browser.conftest import PHONE, Accessible, Visit, press
from tests.finetune.activating import deployed, evaluate, make_adapter
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


@pytest.fixture
def adapters(collection: Collection, alice: User, tmp_path: Path) -> list[Adapter]:
    """One in each standing: trial, all conversations, loaded, refused, retired, not evaluated."""
    dataset = Dataset.objects.create(collection=collection, name="Field notes, answers of winter")
    names = [f"field-notes-v{number}-0123456{number}" for number in range(1, 7)]
    trial, whole, loaded, refused, retired, new = found = [
        make_adapter(dataset, name, data_dir=tmp_path) for name in names
    ]
    for each in (trial, whole, loaded, retired):
        evaluate(each)
    evaluate(refused, passed=False)
    deployed(whole, alice)
    standing = deployed(trial, alice, share=0.3)
    ModelDeployment.objects.update(base_model=get_backend("GENERATOR").base_model)
    assert standing.deployment is not None
    for name in ("Ice drillers", "Winter crew"):
        standing.deployment.groups.add(Group.objects.create(name=name))
    Adapter.objects.update(base_model="meta-llama/Llama-3.2-3B-Instruct")
    Adapter.objects.filter(pk=loaded.pk).update(is_wanted=True)
    Adapter.objects.filter(pk=retired.pk).update(retired_at=timezone.now())
    Adapter.objects.filter(pk=new.pk).update(
        base_revision="0cb88a4f764b7a12671c53f0838cd831a0843b95"
    )
    return found


@pytest.mark.parametrize("size", [(1440, 900), PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_list_of_adapters_says_where_each_stands(
    visit: Visit, alice: User, adapters: list[Adapter], accessible: Accessible,
    size: tuple[int, int], dark: bool,
) -> None:  # fmt: skip
    page = visit(alice, "/train/adapters/", size=size, dark=dark)
    row = page.get_by_role("row").filter(has_text=adapters[0].name)
    expect(row).to_contain_text("30% of the conversations, only for Ice drillers, Winter crew")
    if folder := os.environ.get("TACIT_PICTURES"):
        page.screenshot(path=Path(folder) / f"adapters-{size[0]}-{dark}.png", full_page=True)
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
    drawn = page.locator(".interval svg").bounding_box()
    assert drawn
    assert drawn["height"] < 20  # a line, in the style of the page
    assert sorted(ArenaVote.objects.exclude(verdict="").values_list("verdict", flat=True))[-1] == (
        "tie"
    )
