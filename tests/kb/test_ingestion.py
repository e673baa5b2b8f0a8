from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.utils import timezone

from kb import ingestion, search
from kb.backends import get_backend
from kb.embedders import EmbeddingError
from kb.models import (
    Chunk,
    Collection,
    Document,
    DocumentVersion,
    Embedding,
    Job,
    PendingVector,
    Posting,
    User,
)
from kb.models.documents import Added, UploadRefused
from tests.conftest import AddDocument, work_off

pytestmark = pytest.mark.django_db

GUIDE = """# Field guide

## Glaciers

The glacier melts in late summer. It feeds the river below.

## Birds

The wheatear nests under stones. It leaves in September.
"""


def test_a_markdown_file_becomes_passages_with_headings_spans_and_vectors(
    add_document: AddDocument,
) -> None:
    document = add_document("guide.md", GUIDE)

    assert document.state == Document.State.READY
    chunks = list(document.chunks.order_by("position"))
    assert [chunk.heading_path[-1] for chunk in chunks] == ["Glaciers", "Birds"]
    text = document.current_version.text
    assert all(text[chunk.start : chunk.end] == chunk.text for chunk in chunks)
    assert Embedding.objects.filter(chunk__in=chunks).count() == len(chunks)
    assert Posting.objects.filter(chunk__in=chunks).exists()
    assert not PendingVector.objects.exists()
    assert document.chunk_count == 2


def test_the_same_file_again_says_so_and_does_nothing(
    add_document: AddDocument, collection: Collection, alice: User
) -> None:
    document = add_document("guide.md", GUIDE)

    again, outcome = collection.add_document(
        ContentFile(GUIDE.encode()), name="guide.md", added_by=alice
    )

    assert (again, outcome) == (document, Added.SAME)
    assert document.versions.count() == 1


def test_the_same_name_makes_a_version_that_embeds_only_what_changed(
    add_document: AddDocument,
) -> None:
    document = add_document("guide.md", GUIDE)
    old = document.current_version

    document = add_document("guide.md", GUIDE.replace("September", "October"))

    assert document.current_version.number == 2
    assert document.current_version.embedded_count == 1
    old.refresh_from_db()
    assert "September" in old.text
    assert "October" in document.current_version.text
    assert not Chunk.objects.filter(version=old).exists()


def test_the_old_version_serves_until_the_new_one_is_ready(
    add_document: AddDocument,
) -> None:
    document = add_document("guide.md", GUIDE)
    old = document.current_version

    add_document("guide.md", GUIDE + "\n\nMore.", wait=False)

    document.refresh_from_db()
    assert (document.state, document.current_version) == (Document.State.QUEUED, old)
    assert document.chunks.exists()


# --- Another title ----------------------------------------------------------------------------


def retitle() -> None:
    while job := Job.objects.claim(Job.Kind.RETITLE):
        ingestion.retitle(job)


def found_by_word(user: User, query: str) -> list[int]:
    return [hit.document_id for hit in search.search(user, query) if hit.text_score]


def test_a_renamed_document_is_found_by_its_title_and_keeps_its_passages(
    add_document: AddDocument, alice: User
) -> None:
    document = add_document("guide.md", GUIDE)
    before = list(document.chunks.order_by("pk").values_list("pk", "text"))
    document.rename("Andermatt in summer")
    retitle()
    vectors = {e.chunk_id: list(e.vector) for e in Embedding.objects.all()}

    document.rename("Zermatt in winter")
    retitle()

    assert found_by_word(alice, "Zermatt") == [document.pk] * len(before)
    assert not found_by_word(alice, "Andermatt")
    assert list(document.chunks.order_by("pk").values_list("pk", "text")) == before
    assert all(list(e.vector) != vectors[e.chunk_id] for e in Embedding.objects.all())
    assert Embedding.objects.count() == len(before)
    assert not Job.objects.exclude(state=Job.State.DONE).exists()
    assert not PendingVector.objects.exists()


def test_a_new_version_of_a_renamed_document_embeds_only_what_changed(
    add_document: AddDocument,
) -> None:
    document = add_document("guide.md", GUIDE)
    document.rename("Zermatt in winter")
    retitle()

    document = add_document("guide.md", GUIDE.replace("September", "October"))

    assert document.title == "Zermatt in winter"
    assert document.current_version.embedded_count == 1


def test_of_two_titles_only_the_last_is_indexed(add_document: AddDocument, alice: User) -> None:
    document = add_document("guide.md", GUIDE)
    document.rename("Zermatt")
    earlier = Job.objects.claim(Job.Kind.RETITLE)
    assert earlier is not None
    document.rename("Andermatt")

    retitle()
    ingestion.retitle(earlier)

    assert found_by_word(alice, "Andermatt")
    assert not found_by_word(alice, "Zermatt")
    assert not Job.objects.exclude(state=Job.State.DONE).exists()


def test_passages_that_were_cut_anew_meanwhile_are_left_alone(
    add_document: AddDocument, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = add_document("guide.md", GUIDE)
    document.rename("Zermatt")
    job = Job.objects.claim(Job.Kind.RETITLE)
    assert job is not None
    embed = ingestion._embed

    def embed_while_a_version_is_published(*args: Any) -> Any:
        monkeypatch.setattr(ingestion, "_embed", embed)
        add_document("guide.md", "# Birds\n\nThe wheatear nests under stones.\n")
        return embed(*args)

    monkeypatch.setattr(ingestion, "_embed", embed_while_a_version_is_published)
    ingestion.retitle(job)

    assert Chunk.objects.count() == Embedding.objects.count() == 1
    assert found_by_word(alice, "Zermatt") == [document.pk]


@pytest.mark.parametrize("is_first", [True, False])
def test_a_title_given_while_the_file_is_read_stays_and_is_indexed(
    is_first: bool,
    add_document: AddDocument,
    collection: Collection,
    alice: User,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not is_first:
        add_document("guide.md", GUIDE)
    embed = ingestion._embed

    def embed_while_it_is_renamed(*args: Any) -> Any:
        monkeypatch.setattr(ingestion, "_embed", embed)
        collection.documents.get().rename("Zermatt")
        return embed(*args)

    monkeypatch.setattr(ingestion, "_embed", embed_while_it_is_renamed)
    document = add_document("guide.md", GUIDE.replace("September", "October"))
    retitle()

    document.refresh_from_db()
    assert document.title == "Zermatt"
    assert len(found_by_word(alice, "Zermatt")) == document.chunk_count == 2


def test_a_title_given_before_the_file_is_read_stays(
    add_document: AddDocument, alice: User
) -> None:
    document = add_document("guide.md", GUIDE, wait=False)
    document.rename("Zermatt")
    assert not Job.objects.filter(kind=Job.Kind.RETITLE).exists()
    work_off()

    document.refresh_from_db()
    assert document.title == "Zermatt"
    assert found_by_word(alice, "Zermatt")


def test_a_deleted_document_leaves_no_job_for_its_title(add_document: AddDocument) -> None:
    document = add_document("guide.md", GUIDE)
    document.rename("Zermatt")

    document.remove()

    assert not Job.objects.exists()


def test_a_new_version_that_cannot_be_read_leaves_the_old_one_serving(
    add_document: AddDocument,
) -> None:
    document = add_document("guide.md", GUIDE)

    document = add_document("guide.md", b"")

    assert document.state == Document.State.FAILED
    assert document.current_version.number == 1
    assert document.chunks.exists()
    assert "empty" in document.newest_version.job.error.lower()


def test_a_later_version_replaces_one_that_still_waits(add_document: AddDocument) -> None:
    add_document("guide.md", GUIDE, wait=False)

    document = add_document("guide.md", GUIDE.upper())

    states = document.versions.order_by("number").values_list("job__state", flat=True)
    assert list(states) == [Job.State.CANCELLED, Job.State.DONE]
    assert document.current_version.number == 2


def test_a_version_that_ends_late_does_not_replace_a_newer_one(
    add_document: AddDocument,
) -> None:
    add_document("guide.md", GUIDE, wait=False)
    late = Job.objects.claim(Job.Kind.INGEST)
    assert late
    document = add_document("guide.md", GUIDE.replace("September", "October"))

    ingestion.ingest(late)

    document.refresh_from_db()
    assert document.current_version.number == 2
    assert document.state == Document.State.READY
    assert not document.chunks.filter(text__contains="September").exists()


def test_a_result_whose_lease_was_lost_changes_nothing(add_document: AddDocument) -> None:
    document = add_document("guide.md", GUIDE, wait=False)
    slow = Job.objects.claim(Job.Kind.INGEST)
    assert slow
    Job.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    quick = Job.objects.claim(Job.Kind.INGEST)
    assert quick
    ingestion.ingest(quick)
    first = list(document.chunks.values_list("pk", flat=True))

    ingestion.ingest(slow)

    assert list(document.chunks.values_list("pk", flat=True)) == first


def test_vectors_of_a_killed_worker_are_not_computed_again(
    add_document: AddDocument, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = add_document("guide.md", GUIDE, wait=False)
    embedder, calls = get_backend("EMBEDDER"), []
    real = type(embedder).embed_passages

    def counting(self: object, texts: list[str]) -> np.ndarray:
        calls.append(list(texts))
        return real(self, texts)  # type: ignore[arg-type]

    monkeypatch.setattr(type(embedder), "embed_passages", counting)
    monkeypatch.setattr(ingestion, "SAVE_EVERY", 1)
    killed = Job.objects.claim(Job.Kind.INGEST)
    assert killed

    def die(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ingestion, "_publish", die)
        with pytest.raises(KeyboardInterrupt):
            ingestion.ingest(killed)
    Job.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    computed = len(calls)
    work_off()

    document.refresh_from_db()
    assert document.state == Document.State.READY
    assert len(calls) == computed == 2


def test_an_embedding_server_that_is_away_puts_the_job_back(
    add_document: AddDocument, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = add_document("guide.md", GUIDE, wait=False)

    def away(self: object, texts: list[str]) -> np.ndarray:
        raise EmbeddingError("The embedding server cannot be reached.")

    with monkeypatch.context() as patched:
        patched.setattr(type(get_backend("EMBEDDER")), "embed_passages", away)
        work_off()
    job = document.newest_version.job
    assert (job.state, job.attempts) == (Job.State.WAITING, 0)
    assert "embedding server" in job.error

    Job.objects.update(not_before=timezone.now())
    work_off()
    document.refresh_from_db()
    assert document.state == Document.State.READY


def test_a_fault_of_ours_is_said_in_words_and_raised(
    add_document: AddDocument, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = add_document("guide.md", GUIDE, wait=False)
    monkeypatch.setattr(ingestion, "_publish", lambda *args: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        work_off()

    document.refresh_from_db()
    assert document.state == Document.State.FAILED
    assert document.newest_version.job.error == ingestion.BROKEN


def test_a_failed_document_can_be_retried(
    add_document: AddDocument, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = add_document("guide.md", GUIDE, wait=False)
    with monkeypatch.context() as patched:
        patched.setattr(ingestion, "_publish", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            work_off()

    assert document.retry()
    work_off()

    document.refresh_from_db()
    assert document.state == Document.State.READY


def test_exhausted_jobs_end_failed_with_a_sentence(
    add_document: AddDocument, settings: object
) -> None:
    document = add_document("guide.md", GUIDE, wait=False)
    Job.objects.update(
        state=Job.State.RUNNING, attempts=5, lease_until=timezone.now() - timedelta(seconds=1)
    )

    assert ingestion.fail_exhausted() == 1

    document.refresh_from_db()
    assert document.state == Document.State.FAILED
    assert "5 times" in document.newest_version.job.error


@pytest.mark.django_db(transaction=True)
def test_deleting_a_document_leaves_no_row_vector_posting_or_file(
    add_document: AddDocument,
) -> None:
    document = add_document("guide.md", GUIDE)
    document = add_document("guide.md", GUIDE + "\nMore.")
    files = [version.file.name for version in document.versions.all()]

    document.remove()

    for model in (Document, DocumentVersion, Chunk, Embedding, Posting, Job, PendingVector):
        assert not model.objects.exists(), model
    assert not any(default_storage.exists(name) for name in files)


@pytest.mark.django_db(transaction=True)
def test_a_file_that_two_documents_share_stays_until_the_last_is_deleted(
    add_document: AddDocument,
) -> None:
    one, two = add_document("one.md", GUIDE), add_document("two.md", GUIDE)
    name = one.current_version.file.name
    assert name == two.current_version.file.name

    one.remove()
    assert default_storage.exists(name)
    two.remove()
    assert not default_storage.exists(name)


def test_a_second_document_with_the_same_text_is_not_embedded_again(
    add_document: AddDocument,
) -> None:
    add_document("a/guide.md", GUIDE)

    assert add_document("b/guide.md", GUIDE).current_version.embedded_count == 0


def test_a_file_that_is_too_large_is_refused_with_a_sentence(
    collection: Collection, alice: User, settings: object
) -> None:
    settings.MAX_UPLOAD_BYTES = 1024 * 1024  # type: ignore[attr-defined]

    with pytest.raises(UploadRefused, match="larger than 1 MB"):
        collection.add_document(
            ContentFile(b"x" * (1024 * 1024 + 1)), name="big.txt", added_by=alice
        )

    assert not Document.objects.exists()
    assert not list((Path(default_storage.location) / "incoming").glob("*"))


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a\x00b.md", "c:\\x\\y.md"])
def test_names_never_become_paths(collection: Collection, alice: User, name: str) -> None:
    document, _ = collection.add_document(ContentFile(b"text"), name=name, added_by=alice)

    assert not document.name.startswith("/")
    assert ".." not in document.name.split("/")
    assert document.newest_version.file.name == (
        f"{document.newest_version.sha256[:2]}/{document.newest_version.sha256}"
    )


@pytest.mark.django_db(transaction=True)
def test_reembedding_fills_a_second_space_and_switches(
    add_document: AddDocument, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_document("guide.md", GUIDE)
    monkeypatch.setattr(type(get_backend("EMBEDDER")), "model_name", "another model")
    job = Job.objects.create(kind=Job.Kind.REEMBED)
    claimed = Job.objects.claim(Job.Kind.REEMBED)
    assert claimed == job

    ingestion.reembed(claimed)

    spaces = {e.space.model_name: e.space.state for e in Embedding.objects.select_related("space")}
    assert spaces["another model"] == "active"
