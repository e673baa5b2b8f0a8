"""Files dropped into a page become documents that can be opened, replaced and deleted."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from kb.models import Collection, Document, User
from tests.browser.conftest import PHONE, Accessible, Visit
from tests.conftest import AddDocument, work_off

pytestmark = pytest.mark.browser

TEXT = "# Glaciers\n\nThe glacier melts in late summer.\n\n## Rivers\n\nThe river below it rises.\n"
DROP = """
([files, target]) => {
  const transfer = new DataTransfer();
  for (const [name, text] of files) transfer.items.add(new File([text], name));
  for (const type of ["dragenter", "dragover", "drop"]) {
    const event = new DragEvent(type, { bubbles: true, cancelable: true, dataTransfer: transfer });
    document.querySelector(target).dispatchEvent(event);
  }
}
"""


def drop(page: Page, files: list[tuple[str, str]], target: str = "main") -> None:
    page.evaluate(DROP, [files, target])


def wait_until_sent(page: Page) -> None:
    expect(page.locator("#uploads [data-title]")).to_have_text("Done", timeout=60_000)


def folder(at: Path, count: int) -> Path:
    for n in range(count):
        path = at / "handbook" / f"part-{n % 5}" / f"page-{n}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# Page {n}\n\nThis is what page {n} says.\n")
    return at / "handbook"


def test_dropped_files_are_added_read_and_opened(
    visit: Visit, alice: User, collection: Collection, accessible: Accessible
) -> None:
    page = visit(alice, f"/collections/{collection.pk}/")
    accessible(page)

    drop(page, [("glaciers.md", TEXT), ("broken.pdf", "no pdf"), ("empty.md", "")])
    wait_until_sent(page)

    expect(page.locator("#uploads [data-summary]")).to_have_text("2 added · 1 not taken")
    expect(page.locator("#uploads [data-problems]")).to_contain_text("The file is empty")
    row = page.get_by_role("row").filter(has_text="glaciers.md")
    expect(row).to_contain_text("Queued")
    accessible(page)
    work_off()
    expect(row).to_contain_text("Ready")  # the rows follow their documents
    failed = page.get_by_role("row").filter(has_text="broken.pdf")
    expect(failed.get_by_role("button", name="Try again")).to_be_visible()
    expect(page.locator("#document-poller")).not_to_have_attribute("hx-trigger", re.compile("."))

    row.get_by_role("link", name="Glaciers").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Glaciers")
    accessible(page)
    page.get_by_role("link", name="The river below it rises").click()
    expect(page.locator('[data-text] [data-passage="1"]')).to_have_class(re.compile("is-current"))


def test_a_folder_of_files_is_added_with_its_paths(
    visit: Visit, alice: User, collection: Collection, tmp_path: Path
) -> None:
    page = visit(alice, f"/collections/{collection.pk}/")
    expect(page.locator("#filters")).not_to_be_visible()  # there is nothing to narrow yet
    page.get_by_role("button", name="Add documents").first.click()
    page.locator("#add-folder").set_input_files(folder(tmp_path, 55))
    page.get_by_label("Tags").fill("policy")
    page.get_by_role("button", name="Add", exact=True).click()
    wait_until_sent(page)

    expect(page.locator("#uploads [data-summary]")).to_have_text("55 added")
    assert Document.objects.count() == 55
    assert Document.objects.get(name="handbook/part-2/page-7.md").tags == ["policy"]
    expect(page.locator("#filters")).to_be_visible()
    expect(page.locator("tr[id^=document-]")).to_have_count(50)
    page.get_by_role("link", name="Show 50 more").click()
    expect(page.locator("tr[id^=document-]")).to_have_count(55)


def test_the_menu_of_the_last_row_is_not_cut_off(
    visit: Visit, alice: User, collection: Collection, add_document: AddDocument
) -> None:
    add_document("glaciers.md", TEXT)
    page = visit(alice, f"/collections/{collection.pk}/")
    page.get_by_label("Actions for Glaciers").click()

    expect(page.get_by_role("link", name="Delete")).to_be_in_viewport(ratio=1)


def test_what_was_asked_for_rows_that_were_drawn_anew_meanwhile_is_dropped(
    alice: User, visit: Visit, add_document: AddDocument
) -> None:
    add_document("waits.md", "# Waits", wait=False)
    page = visit(alice, "/documents/")
    held: list[Route] = []
    with page.expect_request(re.compile("/documents/progress/")):
        page.route(re.compile("/documents/progress/"), lambda route: held.append(route))
    page.evaluate("document.getElementById('document-table').dataset.old = ''")
    page.get_by_label("Tag", exact=True).fill("none")
    page.get_by_label("Tag", exact=True).press("Enter")
    expect(page.locator("[data-old]")).to_have_count(0)

    with page.expect_response(re.compile("/documents/progress/")):
        held.pop(0).continue_()

    # An error in the console fails the test at its end.
    expect(page.get_by_text("No document matches")).to_be_visible()


def test_a_row_that_is_being_read_stays_chosen_and_its_menu_open(
    alice: User, visit: Visit, add_document: AddDocument
) -> None:
    add_document("waits.md", "# Waits", wait=False)
    page = visit(alice, "/documents/")
    box = page.get_by_role("checkbox", name="Select waits")
    box.check()
    page.get_by_label("Actions for waits").click()
    # The row is drawn anew each two seconds.
    page.locator("#selection tbody tr").evaluate("row => { row.dataset.old = ''; }")
    expect(page.locator("[data-old]")).to_have_count(0)

    expect(box).to_be_checked()
    expect(page.locator("[data-selected-count]")).to_have_text("1")
    expect(page.get_by_role("link", name="Download")).to_be_visible()
    expect(page.get_by_label("Actions for waits")).to_be_focused()


def test_the_same_file_and_a_new_version_say_so(
    visit: Visit, alice: User, collection: Collection, add_document: AddDocument
) -> None:
    add_document("same.md", TEXT)
    add_document("changed.md", TEXT)
    page = visit(alice, f"/collections/{collection.pk}/")

    drop(page, [("same.md", TEXT), ("changed.md", "# Glaciers\n\nThe ice is gone.")])
    wait_until_sent(page)

    summary = page.locator("#uploads [data-summary]")
    expect(summary).to_have_text("1 as a new version · 1 already here")


def test_where_several_collections_could_take_a_file_the_page_asks(
    visit: Visit, alice: User, collection: Collection
) -> None:
    Collection.objects.create(name="Board minutes").grant(alice, "curator")
    page = visit(alice, "/documents/")

    drop(page, [("glaciers.md", TEXT)])
    page.get_by_label("Collection", exact=True).select_option("Board minutes")
    page.get_by_role("button", name="Add", exact=True).click()
    wait_until_sent(page)

    assert Document.objects.get().collection.name == "Board minutes"


def test_documents_are_chosen_and_deleted(
    visit: Visit,
    alice: User,
    collection: Collection,
    add_document: AddDocument,
    accessible: Accessible,
) -> None:
    for n in range(3):
        add_document(f"paper-{n}.md", f"# Paper {n}\n\nWords of paper {n}.\n")
    page = visit(alice, f"/collections/{collection.pk}/")

    page.get_by_label("Select Paper 0").check()
    page.get_by_label("Select Paper 2").check()
    expect(page.locator("[data-selection]")).to_contain_text("2 selected")
    page.locator("[data-selection]").get_by_role("button", name="Delete").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Delete 2 documents?")
    accessible(page)
    dialog.get_by_role("button", name="Delete").click()

    expect(page.get_by_role("status").filter(has_text="2 documents were deleted.")).to_be_visible()
    assert [document.name for document in Document.objects.all()] == ["paper-1.md"]
    expect(page).to_have_url(re.compile(f"/collections/{collection.pk}/$"))


def test_one_document_is_renamed_in_a_dialog(
    visit: Visit,
    alice: User,
    collection: Collection,
    add_document: AddDocument,
    accessible: Accessible,
) -> None:
    document = add_document("glaciers.md", TEXT)
    page = visit(alice, f"/documents/{document.pk}/", size=PHONE)

    page.get_by_label("More actions").click()
    page.get_by_role("link", name="Title and tags").click()
    page.get_by_role("textbox", name="Title").fill("")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("dialog")).to_contain_text("This field is required")
    accessible(page)
    page.get_by_role("textbox", name="Title").fill("Ice")
    page.get_by_role("button", name="Save").click()

    expect(page.get_by_role("heading", level=1)).to_have_text("Ice")


def test_the_list_is_narrowed_while_one_types(
    visit: Visit, alice: User, collection: Collection, add_document: AddDocument
) -> None:
    add_document("alps.md", "# Alps\n\nHigh.\n")
    add_document("baltic.md", "# Baltic\n\nDeep.\n")
    add_document("broken.pdf", b"no pdf")
    page = visit(alice, "/documents/")

    page.get_by_label("Find by name").press_sequentially("alp")
    expect(page.locator("tr[id^=document-]")).to_have_count(1)
    expect(page).to_have_url(re.compile("q=alp"))
    page.get_by_label("Find by name").fill("")
    page.locator("label", has_text="Failed").click()
    expect(page.locator("tr[id^=document-]")).to_have_count(1)
    expect(page.locator("tr[id^=document-]")).to_contain_text("broken.pdf")


def test_the_preview_of_cutting_answers_at_once(
    visit: Visit, alice: User, add_document: AddDocument, accessible: Accessible
) -> None:
    text = "# Story\n\n" + "\n\n".join(f"Line {n} tells a bit more of it." for n in range(60))
    page = visit(alice, f"/documents/{add_document('story.md', text).pk}/passages/preview/")
    before = page.locator("[data-to-passage]").count()

    page.get_by_label("Target size").fill("32")

    expect(page.locator(f'[data-to-passage="{before}"]')).to_be_visible()
    page.get_by_label("Overlap").fill("99")
    expect(page.get_by_role("alert")).to_contain_text("At most half of the target size.")
    accessible(page)
