"""Duplicates decided without a mouse, and a snapshot read, as a person does it."""

import os
import random
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from finetune.models import Dataset, InstructionPair
from kb.models import Collection, User
from tests.browser.conftest import DESKTOP, PHONE, Accessible, Visit, press
from tests.finetune.test_duplicates import clean
from tests.finetune.test_snapshots import fill, freeze, sentence, write_pair
from workers import tasks

pytestmark = pytest.mark.browser
OUTPUT = "The glacier of the valley loses most of its ice in August, when the days are {} and long."


@pytest.fixture
def dataset(collection: Collection) -> Dataset:
    dataset = Dataset.objects.create(collection=collection, name="Glaciers")
    rng = random.Random(1)
    for _ in range(3):
        question, answer = sentence(rng, 8), sentence(rng, 12)
        write_pair(dataset, question, f"{answer} {OUTPUT.format('warm')}", state="suggested")
        write_pair(dataset, question, f"{answer} {OUTPUT.format('hot')}", state="suggested")
    return dataset


def states(dataset: Dataset) -> list[str]:
    return list(
        InstructionPair.objects.filter(dataset=dataset)
        .order_by("pk")
        .values_list("state", flat=True)
    )


def keep_look(page: Page, name: str) -> None:
    """Keep a picture where SCREENSHOTS names a folder, to look at."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def test_duplicates_are_found_and_decided_by_keyboard(
    alice: User, dataset: Dataset, visit: Visit, accessible: Accessible
) -> None:
    page = visit(alice, f"/curate/{dataset.pk}/duplicates/")
    accessible(page)
    page.get_by_role("button", name="Look for duplicates").click()
    expect(page.locator("#duplicates-state")).to_contain_text("Waits for a worker.")
    assert tasks.work_on_next("clean")
    expect(page.locator("[data-cluster]")).to_have_count(3)
    expect(page.locator("[data-cluster] ins").first).to_have_text("hot")
    accessible(page)
    keep_look(page, "duplicates")
    press(page, "j")
    expect(page.locator("[data-cluster]").first).to_be_focused()
    page.keyboard.press("2")
    expect(page.locator("[data-cluster]").first).to_contain_text("Kept one")
    expect(page.locator("[data-cluster]").first).to_be_focused()
    page.keyboard.press("j")
    page.keyboard.press("a")
    expect(page.locator("[data-cluster]").nth(1)).to_contain_text("Kept all")
    page.keyboard.press("k")
    page.keyboard.press("u")
    expect(
        page.locator("[data-cluster]").first.get_by_role("button", name="Keep all")
    ).to_be_visible()
    assert states(dataset) == ["suggested"] * 6
    page.get_by_role("button", name="Keep the first of each").click()
    expect(page.get_by_text("Decided 2 clusters; 2 pairs were set aside.")).to_be_visible()
    assert states(dataset).count("rejected") == 2


def test_a_snapshot_is_frozen_and_read(
    alice: User, dataset: Dataset, visit: Visit, accessible: Accessible
) -> None:
    fill(dataset, 1, 30)
    freeze(dataset, alice, seed=3)
    page = visit(alice, f"/curate/{dataset.pk}/snapshots/")
    accessible(page)
    keep_look(page, "snapshots")
    page.get_by_label("Seed").fill("7")
    page.get_by_role("button", name="Freeze snapshot").click()
    expect(page.locator("#snapshot-state")).to_contain_text("Waits for a worker.")
    assert tasks.work_on_next("freeze")
    expect(page.get_by_role("heading", name="Who may read it")).to_be_visible()
    accessible(page)
    page.get_by_label("With", exact=True).select_option(label="Snapshot 1")
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_text("In another part")).to_be_visible()
    keep_look(page, "snapshot")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert len(Path(download.value.path()).read_text().splitlines()) == 30


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
@pytest.mark.parametrize("dark", [False, True])
def test_the_pages_hold_on_a_phone_and_in_the_dark(
    alice: User, dataset: Dataset, visit: Visit, accessible: Accessible,
    size: tuple[int, int], dark: bool,
) -> None:  # fmt: skip
    clean(dataset, alice)
    fill(dataset, 2, 20)
    snapshot = freeze(dataset, alice)
    for number, path in enumerate(
        (
            f"/curate/{dataset.pk}/duplicates/",
            f"/curate/{dataset.pk}/snapshots/",
            f"/curate/snapshot/{snapshot.pk}/",
        )
    ):
        page = visit(alice, path, size=size, dark=dark)
        accessible(page)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= size[0]
        keep_look(page, f"{number}-{size[0]}-{'dark' if dark else 'light'}")
        page.context.close()
