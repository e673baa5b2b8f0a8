"""From a rating in a conversation to an approved pair, as a person does it."""

import re
import time

import pytest
from playwright.sync_api import Locator, Page, expect

from finetune import drafting, triage
from finetune.drafts import Style
from finetune.models import Dataset, InstructionPair, KnowledgeGap, TriageItem
from kb.models import Collection, Job, Message, User
from tests.browser.conftest import PHONE, Accessible, Visit, press
from tests.browser.test_ask import ICE, ask
from tests.conftest import AddDocument

pytestmark = pytest.mark.browser
RIGHT = "In late summer the glacier melts."


@pytest.fixture(autouse=True)
def documents(add_document: AddDocument) -> None:
    add_document("ice.md", ICE)


def rate_wrong(page: Page, corrected: str = "") -> None:
    page.get_by_role("link", name="This answer is wrong").or_(
        page.get_by_role("button", name="This answer is wrong")
    ).last.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("The curators see the question")
    dialog.get_by_label("It is wrong").check()
    if corrected:
        dialog.get_by_label("A better answer").fill(corrected)
    dialog.get_by_role("button", name="Send").click()
    expect(dialog).not_to_be_visible()
    expect(page.locator(".toast")).to_contain_text("The curators see this.")


def test_a_thumbs_down_becomes_an_approved_pair_with_its_passages(
    alice: User, visit: Visit
) -> None:
    page = visit(alice)
    ask(page)
    started = time.monotonic()
    rate_wrong(page, RIGHT)
    triage.collect()  # the sweeper does it every three seconds

    page.goto("/curate/")
    page.get_by_role("link", name=re.compile("Rated answers")).click()
    page.get_by_role("link", name="When does the glacier melt?").click()
    expect(page.get_by_text("Probably:")).to_contain_text("the answer was wrong")
    press(page, "2")
    page.get_by_role("link", name="Review it").click()

    expect(page.locator(".source-passage")).to_contain_text("The glacier melts in late summer.")
    page.get_by_role("button", name="Accept").first.click()
    expect(page.get_by_text("Approved").first).to_be_visible()
    taken_s = time.monotonic() - started

    pair = InstructionPair.objects.get()
    assert pair.state == InstructionPair.State.APPROVED
    assert pair.output == f"{RIGHT} [1]"
    assert pair.rejected
    assert (pair.author, pair.reviewer) == (alice, alice)
    source = pair.sources.get()
    assert source.document is not None
    assert source.version is not None
    assert source.version.text[source.start : source.end] == source.text
    assert taken_s < 60


def test_a_regenerate_choice_becomes_a_preference_pair(
    alice: User, visit_with_model: Visit
) -> None:
    page = visit_with_model(alice)
    ask(page)
    page.get_by_role("button", name="Answer again").click()
    expect(page.locator(".answer .branches")).to_contain_text("2 / 2")
    expect(page.locator(".answer-foot")).to_have_count(1)
    newest = alice.conversations.get().messages.filter(role="assistant").order_by("-pk").first()
    assert newest is not None
    # The stub writes the same words again; two answers that say the same are no choice.
    newest.text = "In late summer the glacier melts. [1]"
    newest.save(update_fields=["text"])
    with page.expect_response(re.compile("/rate/")):
        page.get_by_role("button", name="This answer is right").click()
    triage.collect()

    pair = InstructionPair.objects.get()
    assert pair.origin == InstructionPair.Origin.PREFERENCE
    assert pair.output == "In late summer the glacier melts. [1]"
    assert "melts in late summer" in pair.rejected
    page.goto(f"/curate/pair/{pair.pk}/")
    expect(page.get_by_role("heading", name="Rejected output")).to_be_visible()
    expect(page.locator(".source-passage").first).to_contain_text("The glacier melts")


def test_a_choice_side_by_side_becomes_a_preference_pair(
    alice: User, visit: Visit, accessible: Accessible
) -> None:
    page = visit(alice)
    ask(page)
    expect(page.get_by_role("link", name="Compare")).to_have_count(0)
    page.get_by_role("button", name="Answer again").click()
    expect(page.locator(".answer .branches")).to_contain_text("2 / 2")
    expect(page.locator(".answer-foot")).to_have_count(1)
    first, second = Message.objects.filter(role="assistant").order_by("pk")
    second.text = "The glacier melts when the summer is late. [1]"
    second.save(update_fields=["text"])
    page.get_by_role("link", name="Compare").click()

    dialog = page.get_by_role("dialog", name="Which answer is better?")
    left, right = (dialog.get_by_role("region", name=f"Answer {n}") for n in (1, 2))
    expect(left).to_contain_text("melts in late summer")
    expect(right).to_contain_text("when the summer is late")
    assert top(left) == top(right), "beside each other"
    accessible(page)
    page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    assert top(left) < top(right), "one below the other"
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
    left.get_by_role("button", name="This one is better").click()

    expect(page).to_have_url(re.compile(rf"leaf={first.pk}"))
    expect(page.locator(".answer .branches")).to_contain_text("1 / 2")
    expect(page.get_by_role("button", name="This answer is right")).to_have_attribute(
        "aria-pressed", "true"
    )
    triage.collect()
    pair = InstructionPair.objects.get()
    assert pair.origin == InstructionPair.Origin.PREFERENCE
    assert "melts in late summer" in pair.output
    assert "when the summer is late" in pair.rejected


def top(part: Locator) -> float:
    box = part.bounding_box()
    assert box
    return box["y"]


def test_what_nobody_wrote_down_is_told_listed_and_assigned(alice: User, visit: Visit) -> None:
    page = visit(alice)
    ask(page, "Who invented the bicycle chain?")
    page.get_by_role("button", name="Tell the curators it is missing").click()
    expect(page.locator(".toast")).to_contain_text("The curators see this.")
    triage.collect()

    page.goto(f"/curate/triage/{TriageItem.objects.get().pk}/")
    page.keyboard.press("3")
    page.get_by_role("link", name="Open it").click()
    page.get_by_label("Assigned to").select_option(label="alice")
    page.get_by_label("Note").fill("Ask the workshop.")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".toast")).to_contain_text("Saved.")
    gap = KnowledgeGap.objects.get()
    assert (gap.assigned_to, gap.note) == (alice, "Ask the workshop.")

    page.goto("/curate/triage/")
    page.keyboard.press("u")
    expect(page).to_have_url(re.compile(r"/curate/triage/\d+/"))
    assert not KnowledgeGap.objects.exists()


def test_drafts_are_asked_for_and_come(alice: User, collection: Collection, visit: Visit) -> None:
    dataset = Dataset.objects.create(collection=collection, name="Glaciers")
    page = visit(alice, f"/curate/{dataset.pk}/draft/")
    page.get_by_label("How many pairs").fill("2")
    page.get_by_role("button", name="Draft pairs").click()
    expect(page.locator(".drafting")).to_contain_text("Waits for a worker")

    job = Job.objects.claim(Job.Kind.DRAFT)
    assert job is not None
    drafting.draft(job)

    expect(page.locator(".drafting")).to_contain_text("2 of 2 pairs")
    page.locator(".drafting").get_by_role("link", name="Review").click()
    expect(page).to_have_url(re.compile("/review/"))


@pytest.fixture
def paths(alice: User, collection: Collection, visit: Visit) -> list[str]:
    """Every page of this part, with something on it."""
    dataset = Dataset.objects.create(collection=collection, name="Glaciers")
    page = visit(alice)
    ask(page)
    rate_wrong(page, RIGHT)
    page.goto("/")
    ask(page, "Who invented the bicycle chain?")
    page.get_by_role("button", name="Tell the curators it is missing").click()
    expect(page.locator(".toast")).to_contain_text("The curators see this.")
    triage.collect()
    missing = TriageItem.objects.get(signal="nothing_found")
    gap = triage.list_gap(missing, alice)
    item = TriageItem.objects.exclude(pk=missing.pk).get()
    for wanted in (2, 3):
        drafting.start(dataset, alice, wanted=wanted, choice=drafting.Choice((Style.FACTUAL,)))
        if job := Job.objects.claim(Job.Kind.DRAFT):
            drafting.draft(job)
    return [
        "/curate/",
        "/curate/triage/",
        "/curate/triage/?show=done",
        f"/curate/triage/{item.pk}/",
        f"/curate/triage/{missing.pk}/",
        "/curate/gaps/",
        f"/curate/gaps/{gap.pk}/",
        f"/curate/{dataset.pk}/draft/",
    ]


@pytest.mark.parametrize("dark", [False, True])
def test_the_pages_are_accessible_and_fit_a_phone(
    alice: User, paths: list[str], visit: Visit, accessible: Accessible, dark: bool
) -> None:
    page = visit(alice, paths[0], dark=dark)
    for path in paths:
        page.goto(path)
        accessible(page)
    page = visit(alice, paths[0], size=PHONE, dark=dark)
    for path in paths:
        page.goto(path)
        accessible(page)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= PHONE[0], path
