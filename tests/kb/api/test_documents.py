from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from kb.models import ApiToken, Collection, Document, Job, User
from tests.conftest import AddDocument, work_off
from tests.kb.api.client import ApiClient
from tests.kb.api.conftest import GLACIER, client_of

JSON = "application/json"
DOCUMENTS = "/api/v1/documents/"


def upload(client: ApiClient, collection: Collection, content: str = GLACIER, **fields: Any) -> Any:
    file = SimpleUploadedFile("notes.md", content.encode())
    return client.post(DOCUMENTS, {"collection": collection.pk, "file": file, **fields})


def test_an_upload_is_followed_to_its_passages_and_found(
    as_alice: ApiClient, collection: Collection
) -> None:
    added = upload(as_alice, collection, tags=["ice", "summer", "ice"])
    assert added.status_code == 201
    body = added.json()
    assert body["outcome"] == "new"
    assert (body["document"]["state"], body["document"]["percent"]) == ("queued", 0)
    assert body["document"]["tags"] == ["ice", "summer"]
    job = as_alice.get(f"/api/v1/jobs/{body['document']['job']}/").json()
    assert (job["state"], job["document"]) == ("waiting", body["document"]["id"])

    work_off()

    address = f"{DOCUMENTS}{body['document']['id']}/"
    ready = as_alice.get(address).json()
    assert (ready["state"], ready["percent"], ready["version"]) == ("ready", 100, 1)
    assert ready["error"] == ready["error_code"] == ""
    passages = as_alice.get(f"{address}passages/").json()
    assert passages["count"] == ready["passage_count"] > 1
    one = as_alice.get(f"/api/v1/passages/{passages['results'][0]['id']}/").json()
    assert one == passages["results"][0]
    assert one["heading_path"] == ["Glacier"]
    hits = as_alice.get("/api/v1/search/", {"query": "glacier"}).json()["hits"]
    assert hits[0]["passage"] == one["id"]


def test_the_same_file_again_says_so_and_another_makes_a_version(
    as_alice: ApiClient, collection: Collection, document: Document
) -> None:
    same = upload(as_alice, collection)
    again = as_alice.post(
        DOCUMENTS,
        {"collection": collection.pk, "file": SimpleUploadedFile("notes.md", GLACIER.encode())},
        headers={"Idempotency-Key": "a5c1"},
    )
    other = upload(as_alice, collection, "# New\n\nAll is new.\n")

    assert (same.status_code, same.json()["outcome"]) == (200, "same file")
    assert (again.status_code, again.json()["outcome"]) == (200, "same file")
    assert (other.status_code, other.json()["outcome"]) == (201, "new version")
    assert other.json()["document"]["id"] == document.pk
    assert (
        other.json()["document"] | {"version": 1, "newest_version": 2} == other.json()["document"]
    )


def test_a_replacement_is_a_new_version_whatever_the_file_is_called(
    as_alice: ApiClient, document: Document
) -> None:
    versions = f"{DOCUMENTS}{document.pk}/versions/"
    file = SimpleUploadedFile("final final 2.md", b"# New\n\nAll is new.\n")

    added = as_alice.post(versions, {"file": file})

    assert (added.status_code, added.json()["document"]["name"]) == (201, "notes.md")
    listed = as_alice.get(versions).json()["results"]
    assert [(v["number"], v["is_current"], v["state"]) for v in listed] == [
        (2, False, "waiting"),
        (1, True, "done"),
    ]


def test_a_curator_adds_and_a_reader_does_not(
    as_bob: ApiClient, bob: User, collection: Collection
) -> None:
    assert upload(as_bob, collection).json()["code"] == "permission_denied"
    collection.grant(bob, "curator")
    assert upload(as_bob, collection).status_code == 201


def test_a_file_beyond_the_limit_is_refused_in_words(
    as_alice: ApiClient, collection: Collection, settings: Any
) -> None:
    settings.MAX_UPLOAD_BYTES = 2**20
    response = upload(as_alice, collection, "x" * (2**20 + 1))

    assert (response.status_code, response.json()["code"]) == (413, "too_large")
    assert "1 MB" in response.json()["detail"]
    assert not Document.objects.exists()


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"state": "ready"}, "state"),
        ({"added_by": 1}, "added_by"),
        ({"tags": ["x" * 51]}, "tags.0"),
        ({"name": "x" * 256}, "name"),
    ],
)
def test_an_upload_sets_only_what_it_may(
    fields: dict[str, Any], field: str, as_alice: ApiClient, collection: Collection
) -> None:
    response = upload(as_alice, collection, **fields)

    assert response.status_code == 400
    assert [error["field"] for error in response.json()["errors"]] == [field]


def test_a_name_never_becomes_a_path(as_alice: ApiClient, collection: Collection) -> None:
    kept = upload(as_alice, collection, name="../../etc/passwd.md").json()["document"]
    refused = upload(as_alice, collection, name="../..")

    assert kept["name"] == "etc/passwd.md"
    assert refused.json()["code"] == "upload_refused"


def test_a_session_uploads_with_its_csrf_token(alice: User, collection: Collection) -> None:
    client = ApiClient(enforce_csrf_checks=True)
    client.force_login(alice)
    client.get("/api/v1/docs/")
    data = {"collection": collection.pk, "file": SimpleUploadedFile("a.txt", b"Moss.")}
    headers = {"X-CSRFToken": client.cookies["csrftoken"].value}

    assert client.post(DOCUMENTS, data).json()["code"] == "csrf_failed"
    assert client.post(DOCUMENTS, data, headers=headers).status_code == 201


def test_a_failed_document_says_why_and_is_tried_again(
    as_alice: ApiClient, add_document: AddDocument
) -> None:
    document = add_document("empty.txt", "")
    address = f"{DOCUMENTS}{document.pk}/"
    failed = as_alice.get(address).json()
    assert failed["state"] == "failed"
    assert failed["error"].endswith(".")
    assert failed["error_code"]

    retried = as_alice.post(f"{address}retry/")

    assert (retried.status_code, retried.json()["state"]) == (202, "queued")
    assert as_alice.post(f"{address}retry/").json()["code"] == "not_failed"


def test_title_and_tags_change_and_nothing_else(as_alice: ApiClient, document: Document) -> None:
    address = f"{DOCUMENTS}{document.pk}/"
    changed = as_alice.patch(address, {"title": "Ice", "tags": ["a", "a"]}, content_type=JSON)

    assert (changed.json()["title"], changed.json()["tags"]) == ("Ice", ["a"])
    assert Job.objects.filter(kind=Job.Kind.RETITLE).count() == 1
    for field in ("collection", "name", "state", "media_type", "added_by"):
        refused = as_alice.patch(address, {field: "x"}, content_type=JSON)
        assert refused.json()["errors"][0]["field"] == field


def test_a_download_is_the_file_as_it_was_and_never_shown_as_a_page(
    as_alice: ApiClient, add_document: AddDocument
) -> None:
    document = add_document('Über/a "page".html', "<script>alert(1)</script>", wait=False)
    document.collection.add_document(
        SimpleUploadedFile("x", b"second"), name=document.name, added_by=None
    )
    address = f"{DOCUMENTS}{document.pk}/download/"

    first, newest = as_alice.get(address, {"version": 1}), as_alice.get(address)

    assert b"".join(first.streaming_content) == b"<script>alert(1)</script>"
    assert b"".join(newest.streaming_content) == b"second"
    assert first["Content-Type"] == "application/octet-stream"
    assert first["Content-Disposition"].startswith("attachment")
    assert as_alice.get(address, {"version": 3}).status_code == 404


def test_a_deleted_document_is_gone_from_every_address(
    as_alice: ApiClient, document: Document
) -> None:
    passage = document.chunks.get().pk
    job = document.newest_version.job_id

    assert as_alice.delete(f"{DOCUMENTS}{document.pk}/").status_code == 204

    for address in (
        f"{DOCUMENTS}{document.pk}/",
        f"{DOCUMENTS}{document.pk}/download/",
        f"{DOCUMENTS}{document.pk}/versions/",
        f"{DOCUMENTS}{document.pk}/passages/",
        f"/api/v1/passages/{passage}/",
        f"/api/v1/jobs/{job}/",
    ):
        assert as_alice.get(address).status_code == 404


def test_the_list_is_narrowed_and_ordered(
    as_alice: ApiClient, collection: Collection, document: Document, add_document: AddDocument
) -> None:
    moss = add_document("Moss.txt", "Moss.", wait=False)
    Document.objects.filter(pk=moss.pk).update(tags=["wet", "green"], title="On moss")
    Document.objects.filter(pk=document.pk).update(media_type="text/markdown", tags=["wet"])

    def found(**query: Any) -> list[int]:
        return [row["id"] for row in as_alice.get(DOCUMENTS, query).json()["results"]]

    assert found() == [moss.pk, document.pk]
    assert found(ordering="name") == [moss.pk, document.pk]
    assert found(ordering="-name") == [document.pk, moss.pk]
    assert found(state="queued") == [moss.pk]
    assert found(state=["queued", "ready"]) == [moss.pk, document.pk]
    assert found(tag="green") == [moss.pk]
    assert found(type="text/markdown") == [document.pk]
    assert found(name="ON MO") == [moss.pk]
    assert found(collection=[collection.pk, 999]) == [moss.pk, document.pk]
    assert found(collection=999) == []
    assert found(updated_since="2100-01-01T00:00:00Z") == []
    assert found(updated_until="2100-01-01T00:00:00Z") == [moss.pk, document.pk]


def test_jobs_are_narrowed_by_state_and_document(
    as_alice: ApiClient, document: Document, add_document: AddDocument
) -> None:
    waiting = add_document("Moss.txt", "Moss.", wait=False)

    def found(**query: Any) -> list[int]:
        return [row["document"] for row in as_alice.get("/api/v1/jobs/", query).json()["results"]]

    assert found() == [waiting.pk, document.pk]
    assert found(state="waiting") == [waiting.pk]
    assert found(state=["waiting", "done"]) == [waiting.pk, document.pk]
    assert found(document=document.pk) == [document.pk]
    assert found(document=document.pk, state="waiting") == []


def test_passages_are_narrowed_to_a_page(as_alice: ApiClient, document: Document) -> None:
    document.chunks.update(page_first=2, page_last=3)
    address = f"{DOCUMENTS}{document.pk}/passages/"

    counts = [as_alice.get(address, {"page": page}).json()["count"] for page in (1, 2, 3, 4)]

    assert counts == [0, 1, 1, 0]
    assert as_alice.get(address, {"page": 0}).json()["code"] == "invalid"


def test_pages_follow_each_other_without_gaps(
    as_alice: ApiClient, add_document: AddDocument
) -> None:
    for n in range(5):
        add_document(f"{n}.txt", f"Text {n}", wait=False)
    Document.objects.update(updated_at="2026-01-01T00:00:00Z")
    seen, address = [], f"{DOCUMENTS}?limit=2&state=queued"
    while address:
        body = as_alice.get(address).json()
        assert body["count"] == 5
        seen += [row["id"] for row in body["results"]]
        address = body["next"]

    assert len(seen) == len(set(seen)) == 5


def test_a_list_costs_the_same_however_long(
    as_alice: ApiClient,
    document: Document,
    add_document: AddDocument,
    django_assert_num_queries: Any,
) -> None:
    lists = {
        DOCUMENTS: 4,
        "/api/v1/jobs/": 3,
        f"{DOCUMENTS}{document.pk}/versions/": 4,
        f"{DOCUMENTS}{document.pk}/passages/": 4,
    }
    as_alice.get("/api/v1/me/")
    for address, queries in lists.items():
        with django_assert_num_queries(queries):
            as_alice.get(address)
    for n in range(5):
        add_document(f"{n}.txt", f"Text {n}", wait=False)
        document.collection.add_document(
            SimpleUploadedFile("x", f"Version {n}".encode()), name=document.name, added_by=None
        )
    for address, queries in lists.items():
        with django_assert_num_queries(queries):
            as_alice.get(address)


def test_texts_of_whole_versions_are_never_fetched_for_a_list(
    as_alice: ApiClient, document: Document, django_capture_on_commit_callbacks: Any
) -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    for address in (
        DOCUMENTS,
        "/api/v1/jobs/",
        f"{DOCUMENTS}{document.pk}/",
        f"{DOCUMENTS}{document.pk}/versions/",
        f"{DOCUMENTS}{document.pk}/passages/",
    ):
        with CaptureQueriesContext(
            connection,
        ) as captured:
            as_alice.get(address)
        assert not [
            q for q in captured.captured_queries if '"kb_documentversion"."text"' in q["sql"]
        ]


def test_a_token_that_may_only_add_follows_its_job_and_reads_nothing(
    alice: User, collection: Collection
) -> None:
    scanner = client_of(alice, ApiToken.Scope.WRITE)
    job = upload(scanner, collection).json()["document"]["job"]

    assert scanner.get(f"/api/v1/jobs/{job}/").json()["state"] == Job.State.WAITING
    assert scanner.get("/api/v1/search/", {"query": "glacier"}).json()["code"] == "missing_scope"
