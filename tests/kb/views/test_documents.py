"""The list of documents, adding files, one document, its versions, downloads and preview."""

import re
from datetime import timedelta

import pytest
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from kb.models import Chunk, Collection, Document, DocumentVersion, Job, User
from kb.views import documents as list_views
from tests.conftest import AddDocument, work_off

HTMX = {"HX-Request": "true"}
TEXT = "# Glaciers\n\nThe glacier melts in late summer.\n\n## Rivers\n\nThe river below it rises.\n"


def file(name: str, content: str = TEXT) -> SimpleUploadedFile:
    return SimpleUploadedFile(name, content.encode())


def add(page: Client, collection: Collection, *files: SimpleUploadedFile, **more: object) -> str:
    data = {"collection": collection.pk, "file": files, **more}
    return page.post(reverse("documents_add"), data, headers=HTMX).content.decode()


def outcomes(html: str) -> list[str]:
    return re.findall(r'data-outcome="(\w+)"', html)


def rows(collection: Collection, count: int) -> list[Document]:
    """Make documents of every state without their files."""
    now = timezone.now()
    jobs = Job.objects.bulk_create(Job(kind="ingest", state="done") for _ in range(count))
    made = Document.objects.bulk_create(
        Document(
            collection=collection,
            name=f"paper-{n:05}.md",
            title=f"Paper {n}",
            state=["ready", "ready", "failed", "queued"][n % 4],
            updated_at=now - timedelta(minutes=n),
        )
        for n in range(count)
    )
    DocumentVersion.objects.bulk_create(
        DocumentVersion(document=d, number=1, file="x", sha256="0" * 64, size_bytes=1, job=job)
        for d, job in zip(made, jobs, strict=True)
    )
    return made


# --- The list ---------------------------------------------------------------------------------


def test_the_list_shows_state_version_and_sentence(
    page: Client, collection: Collection, add_document: AddDocument
) -> None:
    add_document("glaciers.md", TEXT)
    add_document("broken.pdf", b"no pdf at all")

    html = page.get(reverse("collection", args=[collection.pk])).content.decode()

    assert "Glaciers" in html
    assert "Ready" in html
    assert "Try again" in html


@pytest.mark.parametrize("count", [5, 60])
def test_the_list_asks_the_same_number_of_questions_however_long_it_is(
    count: int,
    page: Client,
    collection: Collection,
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    rows(collection, count)
    page.get(reverse("documents"))

    with django_assert_num_queries(9):
        page.get(reverse("documents"))


@pytest.mark.parametrize("sort", ["updated", "name"])
def test_paging_shows_every_document_once(page: Client, collection: Collection, sort: str) -> None:
    rows(collection, 130)
    seen: list[str] = []
    address = f"{reverse('documents')}?sort={sort}"
    while address:
        html = page.get(address).content.decode()
        seen += re.findall(r'<tr id="document-(\d+)"', html)
        following = re.search(r'href="(\?[^"]*after=[^"]*)" hx-get', html)
        address = reverse("documents") + following[1].replace("&amp;", "&") if following else ""

    assert len(seen) == len(set(seen)) == 130


def test_a_cursor_that_makes_no_sense_shows_the_first_page(
    page: Client, collection: Collection
) -> None:
    rows(collection, 3)
    for cursor in ("x", "~1", "2026-13-45T99:99~1", "2026-01-01~1", "~", "a~b"):
        answer = page.get(reverse("documents"), {"after": cursor})
        assert answer.content.count(b"<tr id=") == 3


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"state": "failed"}, 2),
        ({"state": "working"}, 2),
        ({"state": "ready"}, 4),
        ({"state": "nonsense"}, 8),
        ({"q": "PAPER 3"}, 1),
        ({"kind": "pdf"}, 1),
        ({"tag": "policy"}, 1),
        ({"tag": "pol"}, 0),
    ],
)
def test_the_list_is_narrowed_by_state_name_type_and_tag(
    query: dict[str, str], expected: int, page: Client, collection: Collection
) -> None:
    made = rows(collection, 8)
    Document.objects.filter(pk=made[1].pk).update(media_type="application/pdf", tags=["policy"])

    html = page.get(reverse("documents"), query).content.decode()

    assert html.count("<tr id=") == expected


def test_the_chosen_collection_narrows_the_list(
    page: Client, alice: User, collection: Collection
) -> None:
    other = Collection.objects.create(name="Other")
    other.grant(alice, "owner")
    rows(collection, 2)
    rows(other, 3)

    page.post(reverse("scope"), {"collection": other.pk, "next": "/documents/"})

    assert page.get(reverse("documents")).content.count(b"<tr id=") == 3


def test_one_request_follows_all_unfinished_rows_until_none_is_left(
    page: Client, collection: Collection, add_document: AddDocument
) -> None:
    waiting = [add_document(f"{n}.md", TEXT + str(n), wait=False) for n in range(3)]
    address = reverse("documents_progress")
    asked = {"row": [document.pk for document in waiting], "collection": collection.pk}

    before = page.get(address, asked, headers=HTMX).content.decode()
    work_off()
    after = page.get(address, asked, headers=HTMX).content.decode()

    assert before.count('hx-swap-oob="true"') == 3 + 2  # rows, the poller, the counts
    assert "every 2s" in before
    assert after.count("Ready") == 3 + 1
    assert "hx-trigger" not in re.search(r'id="document-poller"[^>]*', after)[0]  # type: ignore[index]


def test_a_reader_is_offered_nothing_to_change(
    client: Client, bob: User, collection: Collection, add_document: AddDocument
) -> None:
    add_document("glaciers.md", TEXT)
    client.force_login(bob)

    html = client.get(reverse("collection", args=[collection.pk])).content.decode()

    assert "Glaciers" in html
    assert "Add documents" not in html
    assert "data-in-dialog" not in html
    assert 'type="checkbox" name="document"' not in html


# --- Adding files -----------------------------------------------------------------------------


def test_files_are_added_and_the_same_or_a_changed_one_says_so(
    page: Client, collection: Collection
) -> None:
    assert outcomes(add(page, collection, file("a.md"), file("b.md"))) == ["new", "new"]
    work_off()
    assert outcomes(add(page, collection, file("a.md"))) == ["same"]
    assert outcomes(add(page, collection, file("a.md", "Other words."))) == ["new_version"]


def test_files_of_a_folder_keep_their_path_and_take_tags(
    page: Client, collection: Collection
) -> None:
    add(page, collection, file("a.md"), path="handbook/leave/a.md", tags="policy, 2026,policy")

    document = Document.objects.get()
    assert document.name == "handbook/leave/a.md"
    assert document.tags == ["policy", "2026"]


def test_a_path_cannot_climb(page: Client, collection: Collection) -> None:
    add(page, collection, file("a.md"), path="../../etc/passwd")

    assert Document.objects.get().name == "etc/passwd"


def test_a_file_that_is_too_large_is_refused_with_a_sentence(
    page: Client, collection: Collection, settings: Settings
) -> None:
    settings.MAX_UPLOAD_BYTES = 100

    html = add(page, collection, file("big.md", "x" * 101), file("small.md"))

    assert outcomes(html) == ["refused", "new"]
    assert "larger than" in html


def test_too_many_tags_are_refused(page: Client, collection: Collection) -> None:
    data = {
        "collection": collection.pk,
        "file": file("a.md"),
        "tags": ",".join("abcdefghijklmnopqrstuvwxyz"),
    }

    assert page.post(reverse("documents_add"), data).status_code == 400
    assert not Document.objects.exists()


def test_uploading_faster_than_allowed_is_put_off(
    page: Client, collection: Collection, settings: Settings
) -> None:
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "upload": 1}
    data = {"collection": collection.pk, "file": file("a.md")}
    page.post(reverse("documents_add"), data)

    answer = page.post(reverse("documents_add"), {**data, "file": file("b.md")})

    assert answer.status_code == 429
    assert answer["Retry-After"] == "60"


def test_without_a_script_the_page_comes_back_with_the_outcome(
    page: Client, collection: Collection
) -> None:
    data = {"collection": collection.pk, "file": [file("a.md"), file("b.md")]}

    answer = page.post(reverse("documents_add"), data, follow=True)

    assert answer.redirect_chain[0][0] == reverse("collection", args=[collection.pk])
    assert b"b.md: Added." in answer.content


# --- Many at once -----------------------------------------------------------------------------


def test_deleting_says_what_goes_and_takes_it(
    page: Client, collection: Collection, add_document: AddDocument
) -> None:
    documents = [add_document(f"{n}.md", f"{TEXT} {n}") for n in range(2)]
    add_document("stays.md", TEXT)
    stored = [version.file.name for d in documents for version in d.versions.all()]
    chosen = {"document": [document.pk for document in documents]}

    asked = page.get(reverse("documents_delete"), chosen, headers=HTMX).content.decode()
    with_commit = page.post(reverse("documents_delete"), {**chosen, "collection": collection.pk})

    assert "Delete 2 documents?" in asked
    assert "4 passages" in asked
    assert with_commit["Location"] == reverse("collection", args=[collection.pk])
    assert [document.name for document in Document.objects.all()] == ["stays.md"]
    assert Chunk.objects.values("document").distinct().count() == 1
    assert len(stored) == 2


def test_tags_are_added_to_those_there_are(page: Client, add_document: AddDocument) -> None:
    document = add_document("a.md", TEXT)
    Document.objects.filter(pk=document.pk).update(tags=["old"])

    page.post(reverse("documents_tag"), {"document": document.pk, "tags": "new, old"})

    document.refresh_from_db()
    assert document.tags == ["old", "new"]


def test_failed_documents_are_read_again(page: Client, add_document: AddDocument) -> None:
    document = add_document("broken.pdf", b"no pdf at all")
    assert document.state == "failed"

    page.post(reverse("documents_retry"), {"document": document.pk})

    document.refresh_from_db()
    assert document.state == "queued"


# --- One document -----------------------------------------------------------------------------


def test_a_document_shows_its_text_beside_its_passages(
    page: Client, add_document: AddDocument
) -> None:
    document = add_document("glaciers.md", TEXT)

    html = page.get(reverse("document", args=[document.pk])).content.decode()

    spans = set(re.findall(r'class="tint \w+" data-passage="(\d+)"', html))
    assert spans == set(re.findall(r'data-to-passage="(\d+)"', html)) == {"0", "1"}


def test_a_long_document_comes_in_parts_and_loses_nothing(
    page: Client, add_document: AddDocument
) -> None:
    text = "\n\n".join(
        f"## Part {n}\n\nSentence {n} of a long story. {'More. ' * 60}" for n in range(150)
    )
    document = add_document("long.md", text)
    address: str | None = reverse("document", args=[document.pk])
    html = ""
    parts = 0
    while address:
        part = page.get(address, headers=HTMX if parts else {}).content.decode()
        following = re.search(r'hx-get="(/documents/\d+/\?[^"]*at=[^"]*)"', part)
        address = following[1].replace("&amp;", "&") if following else None
        html, parts = html + part, parts + 1

    assert parts > 1
    passages = re.findall(r'data-to-passage="(\d+)"', html)
    assert passages == [str(n) for n in range(document.chunk_count)]
    assert set(re.findall(r'data-passage="(\d+)"', html)) == set(passages)
    assert all(html.count(f"Sentence {n} of a long story") >= 1 for n in range(150))


def test_an_old_version_can_still_be_read_and_saved(
    page: Client, collection: Collection, add_document: AddDocument
) -> None:
    document = add_document("glaciers.md", TEXT)
    add_document("glaciers.md", "# Glaciers\n\nThe ice is gone.")

    old = page.get(reverse("document", args=[document.pk]), {"version": 1}).content.decode()
    saved = page.get(reverse("document_download", args=[document.pk]), {"version": 1})
    versions = page.get(reverse("document_versions", args=[document.pk])).content.decode()

    assert "melts in late summer" in old
    assert "version 1 of 2" in old
    assert b"".join(saved.streaming_content).decode() == TEXT
    assert "Replaced" in versions
    assert page.get(reverse("document", args=[document.pk]), {"version": 9}).status_code == 404
    assert page.get(reverse("document", args=[document.pk]), {"version": "x"}).status_code == 404


def test_the_state_line_follows_a_document_until_it_is_read(
    page: Client, add_document: AddDocument
) -> None:
    document = add_document("glaciers.md", TEXT, wait=False)
    address = reverse("document_state", args=[document.pk])

    waiting = page.get(address, headers=HTMX)
    work_off()
    ready = page.get(address, headers=HTMX)

    assert b"waits to be read" in waiting.content
    assert "HX-Refresh" not in waiting
    assert ready["HX-Refresh"] == "true"


def test_a_download_is_saved_and_never_run(page: Client, add_document: AddDocument) -> None:
    document = add_document('évil "page".html', "<script>alert(1)</script><p>Some words here.</p>")

    answer = page.get(reverse("document_download", args=[document.pk]))

    assert answer["Content-Type"] == "application/octet-stream"
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in answer["Content-Security-Policy"]
    assert answer["Content-Disposition"].startswith("attachment;")
    assert "\n" not in answer["Content-Disposition"]


def test_a_download_of_a_lost_file_is_missing(page: Client, add_document: AddDocument) -> None:
    document = add_document("glaciers.md", TEXT)
    default_storage.delete(document.newest_version.file.name)

    assert page.get(reverse("document_download", args=[document.pk])).status_code == 404


@pytest.mark.django_db(transaction=True)
async def test_a_download_streams_from_an_asynchronous_server(
    async_client: object, alice: User, add_document: AddDocument
) -> None:
    from asgiref.sync import sync_to_async

    document = await sync_to_async(add_document)("glaciers.md", TEXT)
    await async_client.aforce_login(alice)  # type: ignore[attr-defined]

    answer = await async_client.get(reverse("document_download", args=[document.pk]))  # type: ignore[attr-defined]

    assert b"".join([part async for part in answer.streaming_content]).decode() == TEXT


def test_title_and_tags_are_changed(page: Client, add_document: AddDocument) -> None:
    document = add_document("glaciers.md", TEXT)

    page.post(reverse("document_edit", args=[document.pk]), {"title": "Ice", "tags": "a, b"})

    document.refresh_from_db()
    assert (document.title, document.tags) == ("Ice", ["a", "b"])
    assert Job.objects.filter(kind=Job.Kind.RETITLE).count() == 1

    page.post(reverse("document_edit", args=[document.pk]), {"title": "Ice", "tags": "c"})
    assert Job.objects.filter(kind=Job.Kind.RETITLE).count() == 1


def test_replacing_keeps_the_name_and_says_when_nothing_changed(
    page: Client, add_document: AddDocument
) -> None:
    document = add_document("glaciers.md", TEXT)
    address = reverse("document_replace", args=[document.pk])

    same = page.post(address, {"file": file("other-name.md")}, follow=True)
    page.post(address, {"file": file("other-name.md", "Now something else.")})
    none = page.post(address, {}, headers=HTMX)

    assert b"This is the same file" in same.content
    assert Document.objects.get().name == "glaciers.md"
    assert document.versions.count() == 2
    assert b"Choose a file first" in none.content


def test_a_dialog_that_saved_sends_the_page_on(page: Client, add_document: AddDocument) -> None:
    document = add_document("glaciers.md", TEXT)

    wrong = page.post(reverse("document_edit", args=[document.pk]), {"title": ""}, headers=HTMX)
    deleted = page.post(reverse("document_delete", args=[document.pk]), headers=HTMX)

    assert b"<html" not in wrong.content
    assert b"This field is required" in wrong.content
    assert deleted["HX-Redirect"] == reverse("collection", args=[document.collection_id])
    assert not Document.objects.exists()


# --- Preview of cutting -----------------------------------------------------------------------


def preview(page: Client, document: Document, **settings: object) -> str:
    answer = page.get(reverse("document_preview", args=[document.pk]), settings, headers=HTMX)
    return answer.content.decode()


def test_the_preview_cuts_anew_with_other_settings(page: Client, add_document: AddDocument) -> None:
    document = add_document(
        "story.md",
        "# Story\n\n" + "\n\n".join(f"Line {n} tells a bit more of it." for n in range(80)),
    )

    few = preview(page, document)
    many = preview(page, document, target=32, maximum=128, overlap=0)

    assert many.count("data-to-passage") > 2 * few.count("data-to-passage")
    assert "the standard settings" in few
    assert Chunk.objects.filter(document=document).count() == few.count("data-to-passage")


@pytest.mark.parametrize(
    "chosen",
    [
        {"target": 999},
        {"maximum": 5},
        {"overlap": -1},
        {"target": "x"},
        {"maximum": 10**12},
        {"overlap": 150},
    ],
)
def test_settings_that_do_not_hold_together_are_explained(
    chosen: dict[str, object], page: Client, add_document: AddDocument
) -> None:
    html = preview(page, add_document("story.md", TEXT), **chosen)

    assert 'role="alert"' in html
    assert "data-to-passage" in html


def test_a_document_that_was_never_read_has_no_preview(
    page: Client, add_document: AddDocument
) -> None:
    assert "Nothing to cut yet" in preview(page, add_document("broken.pdf", b"no pdf"))


def test_script_in_a_document_is_text(page: Client, add_document: AddDocument) -> None:
    document = add_document(
        "evil.txt", "Hello <script>alert(1)</script> <img src=x onerror=y> there."
    )

    for address in ("document", "document_preview"):
        html = page.get(reverse(address, args=[document.pk])).content.decode()
        assert "<script>alert" not in html
        assert "<img src=x" not in html


def test_a_page_of_rows_is_no_longer_than_it_says(page: Client, collection: Collection) -> None:
    rows(collection, list_views.PAGE_ROWS + 1)

    assert page.get(reverse("documents")).content.count(b"<tr id=") == list_views.PAGE_ROWS
