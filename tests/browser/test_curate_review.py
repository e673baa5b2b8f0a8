"""Pairs are reviewed without a mouse, by several people at once, on a desk and on a phone."""

import os
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from finetune import curation, quality, queueing, staleness
from finetune.models import Dataset, InstructionPair, Review
from kb.models import Chunk, Collection, User
from tests.browser.conftest import PHONE, Accessible, Visit
from tests.conftest import AddDocument

pytestmark = pytest.mark.browser
TEXT = (
    "# Ice\n\nThe glacier melts in August. The river below it rises then.\n\n"
    "# Keeping\n\nThe vault is kept by the chapter. It opens at nine in the morning.\n"
)


@pytest.fixture
def dataset(collection: Collection) -> Dataset:
    return Dataset.objects.create(collection=collection, name="Glaciers")


@pytest.fixture
def dora(collection: Collection) -> User:
    person = User.objects.create_user("dora", "dora@example.org", "x")
    collection.grant(person, "curator")
    return person


def make(dataset: Dataset, count: int) -> list[InstructionPair]:
    contents = [
        {"instruction": f"What is note {n} about?", "output": f"Note {n} is about ice."}
        for n in range(count)
    ]
    return InstructionPair.objects.bulk_create(
        InstructionPair(
            dataset=dataset, collection=dataset.collection, origin="import",
            content_hash=quality.content_hash(**content), **content,
        )
        for content in contents
    )  # fmt: skip


def with_passage(dataset: Dataset, user: User, output: str) -> InstructionPair:
    chunk = Chunk.objects.select_related("document", "version").get(text__contains="glacier")
    return curation.create_pair(
        user, dataset, origin="typed",
        content={"instruction": "When does the glacier melt?", "output": output},
        sources=[curation.source_of_chunk(chunk, 1, score=0.2)],
    )  # fmt: skip


def shown(page: Page) -> str:
    return page.locator("#review [data-pair]").get_attribute("data-pair") or ""


def picture(page: Page, name: str) -> None:
    """Keep a picture where a person asked for them (TACIT_PICTURES), to be looked at."""
    if folder := os.environ.get("TACIT_PICTURES"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def test_two_people_review_a_hundred_pairs_without_a_mouse(
    visit: Visit, alice: User, dora: User, dataset: Dataset
) -> None:
    make(dataset, 110)
    pages = [visit(person, f"/curate/{dataset.pk}/review/") for person in (alice, dora)]
    seen: list[list[str]] = [[], []]
    for turn in range(50):
        for page, mine in zip(pages, seen, strict=True):
            pair = shown(page)
            mine.append(pair)
            if turn % 10 == 9:
                page.keyboard.press("r")
                page.keyboard.press("2")
            else:
                page.keyboard.press("a")
            expect(page.locator(f'[data-pair="{pair}"]')).to_have_count(0)
    for page in pages:
        expect(page.locator("[data-progress]")).to_contain_text("50 judged today")
    assert len(set(seen[0])) == len(set(seen[1])) == 50
    assert not set(seen[0]) & set(seen[1])
    assert dataset.pairs.filter(state="approved").count() == 90
    assert (
        dataset.pairs.filter(
            state="rejected", reject_reason="The passage does not say this"
        ).count()
        == 10
    )
    for person, mine in zip((alice, dora), seen, strict=True):
        judged = Review.objects.filter(reviewer=person).values_list("pair", flat=True)
        assert {str(pk) for pk in judged} == set(mine)


def test_edit_undo_skip_and_similar_by_keyboard(
    visit: Visit, alice: User, dataset: Dataset, accessible: Accessible, add_document: AddDocument
) -> None:
    add_document("ice.md", TEXT)
    first = with_passage(dataset, alice, "The glacier melts in July [1].")
    second = with_passage(dataset, alice, "The glacier melts in August [1].")
    like_it = with_passage(dataset, alice, "The glacier melts in August, they say [1].")
    make(dataset, 2)
    InstructionPair.objects.filter(pk__in=[second.pk, like_it.pk]).update(bands=[1, 2, 3])
    InstructionPair.objects.filter(pk=first.pk).update(priority=2, flags=["unsupported"])
    queueing.refresh(dataset)
    page = visit(alice, f"/curate/{dataset.pk}/review/")
    assert shown(page) == str(first.pk)
    expect(page.locator(".why")).to_contain_text("passage matches the question weakly")
    accessible(page)
    picture(page, "review")

    page.keyboard.press("e")
    area = page.get_by_label("Output", exact=True)
    expect(area).to_be_focused()
    # The bar of keys stands over the end of a page; an edit has buttons of its own there.
    expect(page.get_by_role("toolbar", name="Judge this pair")).to_be_hidden()
    area.fill("The glacier melts in August [1].")
    expect(page.locator("[data-difference] del")).to_have_text("July")
    expect(page.locator("[data-difference] ins")).to_have_text("August")
    accessible(page)
    picture(page, "review-edit")
    page.keyboard.press("Escape")
    expect(area).to_be_hidden()
    expect(page.get_by_role("toolbar", name="Judge this pair")).to_be_visible()
    page.keyboard.press("e")
    area.fill("The glacier melts in August [1].")
    page.keyboard.press("Control+Enter")
    expect(page.locator(f'[data-pair="{second.pk}"] mark.said')).to_have_text(
        "The glacier melts in August."
    )
    expect(page.locator("[data-progress]")).to_contain_text("1 judged today")
    first.refresh_from_db()
    assert (first.state, first.output) == ("approved", "The glacier melts in August [1].")

    page.keyboard.press("u")
    expect(page.locator(f'[data-pair="{first.pk}"]')).to_be_visible()
    first.refresh_from_db()
    assert (first.state, first.output) == ("suggested", "The glacier melts in July [1].")

    page.keyboard.press("s")
    expect(page.locator(f'[data-pair="{second.pk}"]')).to_be_visible()
    page.keyboard.press("r")
    expect(page.get_by_role("group", name="Why is it rejected?")).to_be_visible()
    accessible(page)
    picture(page, "review-reject")
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys of the review")).to_be_visible()
    page.keyboard.press("Escape")

    page.reload()
    assert shown(page) == str(second.pk)
    page.keyboard.press("n")
    expect(page.locator(f'[data-pair="{like_it.pk}"]')).to_be_visible()
    page.keyboard.press("a")
    expect(page.locator(f'[data-pair="{second.pk}"]')).to_be_visible()


def test_leaving_the_page_gives_the_pairs_back(
    visit: Visit, alice: User, dora: User, dataset: Dataset
) -> None:
    (pair, _other) = make(dataset, 2)
    page = visit(alice, f"/curate/{dataset.pk}/review/")
    page.wait_for_load_state("networkidle")
    assert dataset.pairs.filter(claimed_by=alice).count() == 2
    page.goto("/curate/")
    other = visit(dora, f"/curate/{dataset.pk}/review/")
    expect(other.locator(f'[data-pair="{pair.pk}"]')).to_be_visible()


def test_a_pair_taken_in_the_meantime_comes_back_with_a_sentence(
    visit: Visit, alice: User, dora: User, dataset: Dataset
) -> None:
    (pair, other) = make(dataset, 2)
    page = visit(alice, f"/curate/{dataset.pk}/review/")
    page.wait_for_load_state("networkidle")
    InstructionPair.objects.filter(pk=pair.pk).update(claimed_by=dora)
    page.keyboard.press("a")
    expect(page.get_by_text("Somebody else has this pair open.")).to_be_visible()
    assert shown(page) == str(pair.pk)


def test_review_by_touch_on_a_phone(
    visit: Visit, alice: User, dataset: Dataset, accessible: Accessible, add_document: AddDocument
) -> None:
    add_document("ice.md", TEXT)
    pair = with_passage(dataset, alice, "The glacier melts in August [1].")
    page = visit(alice, f"/curate/{dataset.pk}/review/", size=PHONE, dark=True)
    accessible(page)
    picture(page, "review-phone-dark")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.get_by_role("button", name="Reject").click()
    picture(page, "review-phone-reject")
    page.get_by_role("button", name="Badly worded").click()
    expect(page.get_by_role("heading", name="Nothing waits for you")).to_be_visible()
    expect(page.locator("[data-progress]")).to_contain_text("1 judged today")
    pair.refresh_from_db()
    assert pair.reject_reason == "Badly worded"


def test_a_changed_document_shows_what_differs_and_accepting_takes_it(
    visit: Visit, alice: User, dataset: Dataset, accessible: Accessible, add_document: AddDocument
) -> None:
    document = add_document("ice.md", TEXT)
    pair = curation.approve(with_passage(dataset, alice, "The glacier melts in August [1]."), alice)
    add_document("ice.md", TEXT.replace("in August", "in late September"))
    staleness.Watch().look()
    page = visit(alice, f"/curate/{dataset.pk}/review/")
    expect(page.locator(".notice.bad")).to_contain_text("was changed")
    expect(page.locator(".difference del")).to_contain_text("August")
    expect(page.locator(".difference ins").first).to_contain_text("late September")
    accessible(page)
    picture(page, "review-stale")
    page.keyboard.press("a")
    expect(page.get_by_role("heading", name="Nothing waits for you")).to_be_visible()
    expect(page.locator("[data-progress]")).to_contain_text("0 left")
    pair.refresh_from_db()
    assert pair.state == "approved"
    assert pair.sources.get().version_number == 2

    document.remove()
    staleness.Watch().look()
    page.goto(f"/curate/pair/{pair.pk}/")
    expect(page.locator(".notice.bad")).to_contain_text("was deleted")
    accessible(page)


@pytest.mark.parametrize("size", [(1440, 900), PHONE], ids=["desk", "phone"])
def test_every_page_of_curation_is_accessible(
    visit: Visit, alice: User, dora: User, dataset: Dataset, accessible: Accessible,
    add_document: AddDocument, size: tuple[int, int],
) -> None:  # fmt: skip
    add_document("ice.md", TEXT)
    Dataset.objects.update(reviews_wanted=2)
    pairs = [with_passage(dataset, alice, "The glacier melts in July [1]."), *make(dataset, 60)]
    for pair in pairs[:6]:
        curation.approve(pair, alice, seconds=12)
        if pair.pk % 3:
            curation.approve(pair, dora, seconds=7)
        else:
            curation.reject(pair, dora, "The answer is wrong")
    dark = size == PHONE
    page = visit(alice, "/curate/", size=size, dark=dark)
    one = pairs[0].pk
    for name, path in {
        "curate": "/curate/",
        "dataset-new": "/curate/new/",
        "pairs": f"/curate/{dataset.pk}/?flag=none",
        "pair": f"/curate/pair/{one}/",
        "pair-new": f"/curate/{dataset.pk}/pairs/new/",
        "progress": f"/curate/{dataset.pk}/progress/",
        "audit": f"/curate/{dataset.pk}/audit/",
        "dataset-edit": f"/curate/{dataset.pk}/edit/",
    }.items():
        page.goto(path)
        picture(page, f"{name}-{size[0]}")
        accessible(page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name


def test_pairs_are_chosen_and_rejected_together(
    visit: Visit, alice: User, dataset: Dataset, accessible: Accessible
) -> None:
    make(dataset, 60)
    page = visit(alice, f"/curate/{dataset.pk}/")
    page.get_by_role("button", name="Show more").or_(
        page.get_by_role("link", name="Show more")
    ).click()
    expect(page.locator('input[name="pair"]')).to_have_count(60)
    page.reload()
    page.get_by_label("Select all that are shown").check()
    page.get_by_role("button", name="Select all pairs").click()
    expect(page.locator("[data-whole-said]")).to_be_visible()
    page.locator("[data-selection]").get_by_role("button", name="Reject").click()
    dialog = page.get_by_role("dialog", name="Reject pairs")
    expect(dialog).to_contain_text("60 of the 60 selected.")
    accessible(page)
    picture(page, "pairs-act")
    dialog.get_by_label("Why").fill("Noise")
    dialog.get_by_role("button", name="Reject").click()
    expect(page.get_by_text("60 pairs were judged.")).to_be_visible()
    assert dataset.pairs.filter(state="rejected").count() == 60
