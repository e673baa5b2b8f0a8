import re

import pytest
from playwright.sync_api import Page, expect

from kb.models import Feedback, Message, User
from tests.browser.conftest import DESKTOP, PHONE, Accessible, Visit
from tests.conftest import AddDocument
from tests.model_server import ModelServer

pytestmark = pytest.mark.browser

ICE = (
    "# Ice\n\n## Glaciers\n\nThe glacier melts in late summer. Its tongue is four kilometres long.\n\n"
    "## Rivers\n\nThe river freezes in January and carries trout.\n"
)
QUESTION = "When does the glacier melt?"


@pytest.fixture(autouse=True)
def documents(add_document: AddDocument) -> None:
    add_document("ice.md", ICE)


def ask(page: Page, question: str = QUESTION) -> None:
    before = page.locator(".answer-foot").count()
    page.get_by_label("Your question").fill(question)
    page.keyboard.press("Enter")
    expect(page.locator(".answer-foot")).to_have_count(before + 1)


def test_a_question_is_answered_and_its_citation_opens_at_the_passage(
    alice: User, visit: Visit
) -> None:
    page = visit(alice)
    ask(page)

    expect(page).to_have_url(re.compile(r"/c/\d+/$"))
    expect(page.locator(".prose")).to_contain_text("The glacier melts in late summer.")
    page.locator(".cite a").first.click()
    said = page.locator("#source mark.said").first
    expect(said).to_contain_text("The glacier melts in late summer.")
    expect(said).to_be_in_viewport()
    page.keyboard.press("Escape")
    expect(page.locator("#source")).not_to_be_visible()
    expect(page.locator(".cite a").first).to_be_focused()


def test_a_citation_shows_its_passage_to_mouse_and_keyboard(alice: User, visit: Visit) -> None:
    page = visit(alice)
    ask(page)
    card = page.get_by_role("tooltip")

    page.locator(".cite a").first.hover()
    expect(card).to_contain_text("The glacier melts")
    page.mouse.move(5, 5)
    expect(card).not_to_be_visible()
    page.locator(".question-actions button").focus()
    page.keyboard.press("Tab")
    expect(page.locator(".cite a").first).to_be_focused()
    expect(card).to_contain_text("Glaciers")


def test_a_follow_up_stays_in_the_conversation(alice: User, visit: Visit) -> None:
    page = visit(alice)
    ask(page)
    ask(page, "And when does the river freeze?")

    expect(page.locator(".question h2")).to_have_count(2)
    expect(page.locator(".prose").last).to_contain_text("January")
    page.reload()
    expect(page.locator(".answer-foot")).to_have_count(2)


def test_shift_enter_makes_a_line_and_the_box_grows_to_eight(alice: User, visit: Visit) -> None:
    page = visit(alice)
    box = page.get_by_label("Your question")
    box.fill("one")
    low = box.bounding_box()
    for _ in range(12):
        page.keyboard.press("Shift+Enter")
    high = box.bounding_box()

    assert low
    assert high
    assert box.input_value().count("\n") == 12
    assert low["height"] + 100 < high["height"] < 260


def test_editing_a_question_keeps_both_wordings(alice: User, visit: Visit) -> None:
    page = visit(alice)
    ask(page)
    page.get_by_role("button", name="Edit the question").click()
    box = page.locator("form.editing textarea")
    expect(box).to_have_value(QUESTION)
    box.fill("When does the river freeze?")
    page.get_by_role("button", name="Ask again").click()

    expect(page.locator(".prose")).to_contain_text("January")
    expect(page.locator(".question .branches")).to_contain_text("2 / 2")
    page.get_by_role("link", name="The version before").click()
    expect(page.locator(".question h2")).to_have_text(QUESTION)


def test_cancelling_an_edit_brings_the_question_back(alice: User, visit: Visit) -> None:
    page = visit(alice)
    ask(page)
    page.get_by_role("button", name="Edit the question").click()
    page.locator("form.editing textarea").press("Escape")

    expect(page.locator(".question h2")).to_have_text(QUESTION)


def test_answering_again_makes_a_branch(alice: User, visit: Visit) -> None:
    page = visit(alice)
    ask(page)
    page.get_by_role("button", name="Answer again").click()

    expect(page.locator(".answer .branches")).to_contain_text("2 / 2")


def test_an_answer_is_rated_up_and_then_down_with_a_reason(alice: User, visit: Visit) -> None:
    page = visit(alice)
    ask(page)
    up = page.get_by_role("button", name="This answer is right")
    up.click()
    expect(up).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="This answer is wrong").click()
    dialog = page.get_by_role("dialog", name="What is wrong with this answer?")
    dialog.get_by_label("It leaves something out").check()
    dialog.get_by_label("A better answer").fill("In late August.")
    dialog.get_by_role("button", name="Send").click()

    expect(dialog).not_to_be_visible()
    expect(page.get_by_role("button", name="This answer is wrong")).to_have_attribute(
        "aria-pressed", "true"
    )
    rated = Feedback.objects.get()
    assert (rated.value, rated.reason) == (-1, "It leaves something out")
    assert rated.corrected_answer == "In late August."


def test_a_rating_is_explained_and_taken_back(alice: User, visit: Visit) -> None:
    page = visit(alice)
    ask(page)
    up = page.get_by_role("button", name="This answer is right")
    up.click()
    page.get_by_role("link", name="Say why").click()
    dialog = page.get_by_role("dialog", name="What is right about this answer?")
    dialog.get_by_label("It is short and clear").check()
    dialog.get_by_role("button", name="Send").click()
    expect(dialog).not_to_be_visible()
    expect(page.get_by_role("link", name="Your reason")).to_be_visible()
    assert Feedback.objects.get().reason == "It is short and clear"

    up.click()
    expect(up).to_have_attribute("aria-pressed", "false")
    expect(page.locator(".toast").last).to_contain_text("taken back")
    assert not Feedback.objects.exists()


def test_an_answer_is_copied_with_its_markers(alice: User, visit: Visit) -> None:
    page = visit(alice)
    ask(page)
    page.get_by_role("button", name="Copy the answer").click()

    expect(page.locator(".toast")).to_contain_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == Message.objects.get(role="assistant").text


def test_why_this_answer_opens_and_leads_to_the_passages(alice: User, visit: Visit) -> None:
    page = visit(alice)
    ask(page)
    page.get_by_role("link", name="Why this answer").click()
    dialog = page.get_by_role("dialog", name="Why this answer")

    expect(dialog).to_contain_text("Extractive")
    dialog.get_by_role("link", name="Ice").first.click()
    expect(dialog).not_to_be_visible()
    expect(page.locator("#source mark").first).to_be_visible()


def test_what_the_documents_do_not_hold_is_said_and_reported(alice: User, visit: Visit) -> None:
    page = visit(alice)
    ask(page, "Which tyre pressure does the lunar rover need?")

    expect(page.get_by_text("Not in the documents")).to_be_visible()
    page.get_by_role("button", name="Tell the curators").click()
    expect(page.locator(".toast")).to_be_visible()
    assert Feedback.objects.get().reason == "This is missing from the documents"


def test_a_conversation_is_found_renamed_and_deleted(alice: User, visit: Visit) -> None:
    page = visit(alice)
    ask(page)
    page.get_by_role("link", name="Rename the conversation").click()
    page.get_by_label("Name", exact=True).fill("Late summer")
    page.get_by_role("button", name="Rename").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Late summer")
    find = page.get_by_label("Find in conversations")
    find.fill("zebra")
    expect(page.get_by_text("No conversation has these words.")).to_be_visible()
    find.fill("glacier")
    expect(page.locator("#conversations a")).to_have_text("Late summer")
    page.get_by_role("link", name="Delete the conversation").click()
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("What do you want to know?")
    expect(page.get_by_text("The conversation is deleted.")).to_be_visible()


def test_the_chips_say_what_is_searched(alice: User, visit: Visit) -> None:
    page = visit(alice)
    page.locator('[data-chip="collections"]').click()
    page.get_by_role("checkbox", name="Field notes").check()
    expect(page.locator('[data-chip="collections"]')).to_have_text("Field notes")
    page.locator('[data-chip="filters"]').click()
    page.get_by_role("checkbox", name="PDF").check()
    expect(page.locator('[data-chip="filters"] .chip-count')).to_have_text("1")
    ask(page)

    expect(page.get_by_text("Not in the documents")).to_be_visible()  # it is in no PDF
    expect(page.locator('[data-chip="filters"] .chip-count')).to_have_text("1")


def test_an_example_is_asked_with_one_click(alice: User, visit: Visit) -> None:
    page = visit(alice)
    page.locator(".example").first.click()

    expect(page.locator(".answer-foot")).to_be_visible()


def test_words_of_an_answer_appear_while_it_is_written_and_stop_on_demand(
    alice: User, visit_with_model: Visit, model_server: ModelServer
) -> None:
    model_server.behave("long")
    page = visit_with_model(alice)
    page.get_by_label("Your question").fill(QUESTION)
    page.keyboard.press("Enter")

    expect(page.locator(".writing")).not_to_be_empty()
    page.get_by_role("button", name="Stop the answer").click()
    expect(page.get_by_text("Stopped here.")).to_be_visible()
    assert Message.objects.get(role="assistant").state == "stopped"
    expect(page.get_by_role("button", name="Ask", exact=True)).to_be_visible()


def test_closing_the_tab_loses_nothing_and_opening_it_again_goes_on(
    alice: User, visit_with_model: Visit, model_server: ModelServer
) -> None:
    model_server.behave("long")
    first = visit_with_model(alice)
    first.get_by_label("Your question").fill(QUESTION)
    first.keyboard.press("Enter")
    expect(first.locator(".writing")).not_to_be_empty()
    expect(first).to_have_url(re.compile(r"/c/\d+/$"))
    address = first.url
    written = first.locator(".writing").inner_text()
    first.close()

    again = visit_with_model(alice, address)
    expect(again.locator(".writing")).to_contain_text(written[:40])
    length = len(again.locator(".writing").inner_text())
    expect(again.locator(".writing")).to_have_text(re.compile(f".{{{length + 1},}}", re.DOTALL))
    again.get_by_role("button", name="Stop the answer").click()
    expect(again.get_by_text("Stopped here.")).to_be_visible()


def test_a_cut_answer_keeps_its_part_and_the_passages_answer_instead(
    alice: User, visit_with_model: Visit, model_server: ModelServer
) -> None:
    model_server.behave("cut")
    page = visit_with_model(alice)
    ask(page)

    expect(page.get_by_role("alert")).to_contain_text("are kept")
    expect(page.locator(".prose")).not_to_be_empty()
    page.get_by_role("button", name="Answer from the passages instead").click()
    expect(page.locator(".generator")).to_contain_text("Extractive")
    expect(page.locator(".prose")).to_contain_text("late summer")
    expect(page.locator(".answer .branches")).to_contain_text("2 / 2")


def test_a_sentence_without_support_explains_itself(
    alice: User, visit_with_model: Visit, model_server: ModelServer
) -> None:
    model_server.behave("unsupported")
    page = visit_with_model(alice)
    ask(page)

    expect(page.get_by_text("1 sentence not supported")).to_be_visible()
    page.locator(".doubted").first.hover()
    expect(page.get_by_role("tooltip")).to_contain_text("Not supported")


def test_hostile_words_stay_words(
    alice: User, visit_with_model: Visit, model_server: ModelServer
) -> None:
    model_server.behave("hostile")
    page = visit_with_model(alice)
    ask(page)

    expect(page.locator(".prose")).to_contain_text("<script>")
    assert page.locator(".prose :is(script, img, iframe)").count() == 0
    assert page.locator('.prose a[href^="javascript"]').count() == 0


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_a_long_conversation_is_accessible(
    alice: User, visit: Visit, accessible: Accessible, size: tuple[int, int]
) -> None:
    page = visit(alice, size=size)
    ask(page)
    ask(page, "And when does the river freeze?")
    page.reload()
    accessible(page)
    page.locator(".cite a").last.focus()
    expect(page.get_by_role("tooltip")).to_be_visible()
    accessible(page)


def test_on_a_phone_the_conversation_is_renamed_from_the_bar(alice: User, visit: Visit) -> None:
    page = visit(alice, size=PHONE)
    ask(page)
    page.get_by_label("This conversation").click()
    page.get_by_role("link", name="Rename").click()
    page.get_by_label("Name", exact=True).fill("Late summer")
    page.get_by_role("button", name="Rename").click()

    expect(page.get_by_role("heading", level=1)).to_have_text("Late summer")


@pytest.mark.parametrize("dark", [False, True])
def test_ask_is_accessible(alice: User, visit: Visit, accessible: Accessible, dark: bool) -> None:
    page = visit(alice, dark=dark)
    accessible(page)
    ask(page)
    accessible(page)
    page.locator(".cite a").first.click()
    page.locator("#source mark").first.wait_for()
    accessible(page)
    page.get_by_role("link", name="Why this answer").click()
    page.locator(".why-body").wait_for()
    accessible(page)


def test_on_a_phone_nothing_runs_over_the_edge_and_the_source_is_a_sheet(
    alice: User, visit: Visit, accessible: Accessible
) -> None:
    page = visit(alice, size=PHONE)
    ask(page)
    page.locator('[data-chip="filters"]').click()
    expect(page.get_by_role("checkbox", name="E-mail")).to_be_in_viewport()
    width = "document.documentElement.scrollWidth"
    assert page.evaluate(width) == PHONE[0]
    page.keyboard.press("Escape")
    page.locator(".cite a").first.click()
    page.locator("#source mark").first.wait_for()
    expect(page.locator("#source:modal")).to_be_visible()
    accessible(page)
    page.get_by_role("button", name="Close the source").click()
    page.get_by_role("button", name="Open the menu").click()
    expect(page.get_by_role("link", name="Search")).to_be_visible()
    accessible(page)
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Open the menu")).to_be_focused()
