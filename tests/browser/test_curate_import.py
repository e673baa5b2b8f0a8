"""A curator brings a file in through its preview, reads what was left out, and takes pairs out."""

import json
import os
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from finetune.models import Dataset
from kb.models import Collection, Job, User
from tests.browser.conftest import DESKTOP, PHONE, Accessible, Visit
from workers import tasks

pytestmark = pytest.mark.browser

ROWS = [
    {
        "instruction": "When does the glacier melt?",
        "input": "Observations of 2025",
        "output": "In late summer, mostly in August.",
        "rejected": "In winter.",
        "tags": ["ice", "seasons"],
        "id": 1,
    },
    {"instruction": "Why does it melt?", "input": "", "output": ""},
    {
        "system": "Be brief.",
        "history": [["Hello", "Hi, ask me about ice."]],
        "instruction": "How deep is the lake below it?",
        "output": "30 metres.\nIt was 28 in 2020.",
    },
]
SIZES = [(DESKTOP, False), (DESKTOP, True), (PHONE, False), (PHONE, True)]


def look(page: Page, name: str) -> None:
    """Keep a picture where a folder for pictures is named."""
    if folder := os.environ.get("PICTURES"):
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


@pytest.fixture
def dataset(collection: Collection) -> Dataset:
    return Dataset.objects.create(collection=collection, name="Glaciers", description="Ice pairs.")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "glaciers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.mark.parametrize(("size", "dark"), SIZES)
def test_a_file_is_seen_as_pairs_imported_and_taken_out_again(
    visit: Visit,
    alice: User,
    dataset: Dataset,
    file: Path,
    accessible: Accessible,
    size: tuple[int, int],
    dark: bool,
) -> None:
    suffix = f"{size[0]}-{'dark' if dark else 'light'}"
    page = visit(alice, f"/curate/{dataset.pk}/import/", size=size, dark=dark)
    accessible(page)
    look(page, f"imports-empty-{suffix}")
    page.get_by_label("File of pairs").set_input_files(file)
    page.get_by_role("button", name="Look at the file").click()

    expect(page.get_by_text("3 rows, 2 pairs.")).to_be_visible()
    page.get_by_text("Which ones, and why").click()
    expect(page.get_by_text("Row 2: The output is empty.")).to_be_visible()
    expect(page.get_by_role("article", name="Row 1")).to_contain_text("mostly in August")
    accessible(page)
    look(page, f"preview-{suffix}")
    page.get_by_role("button", name="Import 2 pairs").click()

    expect(page.get_by_text("Waits for a worker.")).to_be_visible()
    accessible(page)
    look(page, f"import-running-{suffix}")
    assert tasks.work_on_next(Job.Kind.IMPORT)
    expect(page.get_by_text("2 pairs are in, as suggestions.")).to_be_visible()
    accessible(page)
    look(page, f"import-done-{suffix}")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download them").click()
    assert json.loads(Path(download.value.path()).read_text())["row"] == 2

    page.get_by_role("link", name="Import", exact=True).click()
    expect(page.get_by_role("row").filter(has_text="glaciers.jsonl")).to_contain_text("Imported")
    accessible(page)
    look(page, f"imports-{suffix}")

    page.get_by_role("link", name="Export", exact=True).click()
    page.get_by_label("Suggested").check()
    page.get_by_label("File").select_option(label="Messages, JSON lines")
    accessible(page)
    look(page, f"export-{suffix}")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename == "glaciers.jsonl"
    taken = Path(download.value.path()).read_text().splitlines()
    assert json.loads(taken[0])["chosen"]["content"] == "In late summer, mostly in August."
    assert len(taken) == 2


def test_columns_are_mapped_and_the_preview_follows_each_choice(
    visit: Visit, alice: User, dataset: Dataset, tmp_path: Path, accessible: Accessible
) -> None:
    table = tmp_path / "fragen.csv"
    table.write_text("Frage;Antwort;Quelle\nWann schmilzt er?;Im August.;Handbuch\nWo?;;Handbuch\n")
    page = visit(alice, f"/curate/{dataset.pk}/import/")
    page.get_by_label("File of pairs").set_input_files(table)
    page.get_by_role("button", name="Look at the file").click()
    expect(page.get_by_text("Choose the column of the instruction.")).to_be_visible()
    accessible(page)
    look(page, "mapping-missing")

    page.get_by_label("Instruction").select_option("Frage")
    expect(page.get_by_text("2 rows would be left out.")).to_be_visible()
    page.get_by_label("Output", exact=True).select_option("Antwort")
    expect(page.get_by_text("2 rows, 1 pair.")).to_be_visible()
    expect(page.get_by_role("article", name="Row 1")).to_contain_text("Im August.")
    accessible(page)
    look(page, "mapping-done")
    page.get_by_role("button", name="Import 1 pair").click()
    expect(page.get_by_text("Waits for a worker.")).to_be_visible()
    assert tasks.work_on_next(Job.Kind.IMPORT)

    expect(page.get_by_text("1 pair is in, as a suggestion.")).to_be_visible()
    assert dataset.pairs.get().extra == {"Quelle": "Handbuch"}
