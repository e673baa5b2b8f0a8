"""The pages that bring pairs in and take them out: for curators of the collection, and no one else."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from finetune import exporting, importing
from finetune.models import AuditEvent, Dataset, InstructionPair, PairImport
from kb.models import Job, User
from workers import tasks

GOOD = {"instruction": "When does it melt?", "input": "", "output": "In <b>August</b>."}
BAD = {"instruction": "Why?", "input": "", "output": ""}


def lines(*rows: object) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def file(data: bytes, name: str = "pairs.jsonl") -> SimpleUploadedFile:
    return SimpleUploadedFile(name, data)


@pytest.fixture
def signed_in(client: Client, alice: User) -> Client:
    client.force_login(alice)
    return client


@pytest.fixture
def looked_at(dataset: Dataset, alice: User) -> PairImport:
    return importing.add_file(
        dataset, ContentFile(lines(GOOD, BAD, GOOD)), name="pairs.jsonl", user=alice
    )[0]


def test_a_file_is_looked_at_confirmed_and_followed(signed_in: Client, dataset: Dataset) -> None:
    address = reverse("imports", args=[dataset.pk])
    assert b"Look at the file" in signed_in.get(address).content

    page = signed_in.post(address, {"file": file(lines(GOOD, BAD))}, follow=True)

    assert b"2 rows, 1 pair." in page.content
    assert b"1 row would be left out." in page.content
    assert b"Row 2: The output is empty." in page.content
    assert b"In &lt;b&gt;August&lt;/b&gt;." in page.content
    assert b"Nothing is imported yet." in page.content
    assert not dataset.pairs.exists()

    made = dataset.imports.get()
    page = signed_in.post(
        reverse("pair_import", args=[made.pk]), {"format": "alpaca", "start": "1"}, follow=True
    )
    assert b"Waits for a worker." in page.content
    assert b"hx-get" in page.content
    assert tasks.work_on_next(Job.Kind.IMPORT)

    state = signed_in.get(reverse("pair_import_state", args=[made.pk]))
    assert state["HX-Refresh"] == "true"
    page = signed_in.get(reverse("pair_import", args=[made.pk]))
    assert b"1 pair is in, as a suggestion." in page.content
    assert b"The output is empty." in page.content
    assert b"100 %" not in signed_in.get(address).content
    assert b"pairs.jsonl" in signed_in.get(address).content


def test_the_same_file_again_says_so(
    signed_in: Client, dataset: Dataset, looked_at: PairImport
) -> None:
    importing.start(looked_at, looked_at.created_by)  # type: ignore[arg-type]
    tasks.work_on_next(Job.Kind.IMPORT)

    page = signed_in.post(
        reverse("imports", args=[dataset.pk]),
        {"file": file(lines(GOOD, BAD, GOOD), "again.jsonl")},
        follow=True,
    )

    assert b"has this very file already; nothing was changed." in page.content
    assert dataset.pairs.count() == 2
    assert dataset.imports.count() == 1


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 sheet", b"just words", b"PAR1 broken PAR1"])
def test_a_file_that_cannot_be_read_gets_a_sentence(
    signed_in: Client, dataset: Dataset, data: bytes
) -> None:
    page = signed_in.post(reverse("imports", args=[dataset.pk]), {"file": file(data, "x.csv")})

    assert page.status_code == 400
    assert b'role="alert"' in page.content
    assert not PairImport.objects.exists()


def test_no_file_gets_a_sentence(signed_in: Client, dataset: Dataset) -> None:
    page = signed_in.post(reverse("imports", args=[dataset.pk]))
    assert b"Choose a file first." in page.content


def test_columns_are_mapped_on_the_page(signed_in: Client, dataset: Dataset) -> None:
    signed_in.post(
        reverse("imports", args=[dataset.pk]),
        {"file": file(b"Frage,Antwort\nWann?,Im August.\n", "a.csv")},
    )
    made = dataset.imports.get()
    address = reverse("pair_import", args=[made.pk])
    page = signed_in.get(address)
    assert b"Choose the column of the instruction." in page.content
    assert b"Frage" in page.content

    twice = {"format": "columns", "instruction": "Frage", "output": "Frage"}
    assert "can give one field only" in signed_in.post(address, twice).content.decode()

    mapped = {"format": "columns", "instruction": "Frage", "output": "Antwort"}
    part = signed_in.post(address, mapped, headers={"HX-Request": "true"})
    assert b"<html" not in part.content
    assert b"Im August." in part.content
    signed_in.post(address, {**mapped, "start": "1"})
    tasks.work_on_next(Job.Kind.IMPORT)
    assert dataset.pairs.get().output == "Im August."


def test_a_column_that_the_file_has_not_is_refused(
    signed_in: Client, looked_at: PairImport
) -> None:
    page = signed_in.post(
        reverse("pair_import", args=[looked_at.pk]),
        {"format": "columns", "instruction": "password", "start": "1"},
    )
    assert b"Select a valid choice" in page.content
    looked_at.refresh_from_db()
    assert looked_at.job is None


def test_a_file_that_was_only_looked_at_can_be_discarded(
    signed_in: Client, dataset: Dataset, looked_at: PairImport
) -> None:
    page = signed_in.post(reverse("pair_import_discard", args=[looked_at.pk]), follow=True)

    assert "“pairs.jsonl” was discarded." in page.content.decode()
    assert not dataset.imports.exists()


def test_rows_left_out_are_downloaded_as_json_lines(
    signed_in: Client, looked_at: PairImport, alice: User
) -> None:
    importing.start(looked_at, alice)
    tasks.work_on_next(Job.Kind.IMPORT)

    answer: Any = signed_in.get(reverse("pair_import_problems", args=[looked_at.pk]))

    [problem] = map(json.loads, answer.getvalue().splitlines())
    assert (problem["row"], problem["reason"]) == (2, "The output is empty.")
    assert json.loads(problem["raw"]) == BAD
    assert answer["Content-Disposition"] == 'attachment; filename="pairs.jsonl.problems.jsonl"'


def test_a_failed_import_goes_on(signed_in: Client, looked_at: PairImport, alice: User) -> None:
    importing.start(looked_at, alice)
    job = Job.objects.claim(Job.Kind.IMPORT)
    assert job is not None
    job.fail("The disk is full.")
    address = reverse("pair_import", args=[looked_at.pk])
    assert b"The disk is full." in signed_in.get(address).content

    signed_in.post(reverse("pair_import_retry", args=[looked_at.pk]))
    tasks.work_on_next(Job.Kind.IMPORT)

    looked_at.refresh_from_db()
    assert looked_at.imported_count == 2


@pytest.mark.parametrize("kind", exporting.KINDS)
def test_pairs_are_downloaded(
    signed_in: Client, dataset: Dataset, pair: InstructionPair, kind: str
) -> None:
    address = reverse("export", args=[dataset.pk])
    assert b"Suggested" in signed_in.get(address).content

    answer: Any = signed_in.post(
        address, {"kind": kind, "state": ["suggested"], "tag": "", "provenance": "on"}
    )

    assert answer.getvalue() == b"".join(
        exporting.stream(InstructionPair.objects.filter(pk=pair.pk), kind)
    )
    assert answer["Content-Disposition"].startswith('attachment; filename="glaciers.')
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert AuditEvent.objects.get(action=AuditEvent.Action.EXPORTED).detail["pairs"] == 1


def test_an_unknown_kind_of_file_is_refused(signed_in: Client, dataset: Dataset) -> None:
    page = signed_in.post(reverse("export", args=[dataset.pk]), {"kind": "sqlite"})
    assert b"Select a valid choice" in page.content
    assert not AuditEvent.objects.exists()


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("who", ["bob", "charlie"])
@pytest.mark.parametrize(
    "name",
    [
        "imports",
        "export",
        "pair_import",
        "pair_import_state",
        "pair_import_discard",
        "pair_import_retry",
        "pair_import_problems",
    ],
)
def test_nobody_but_curators_sees_that_there_is_anything(
    client: Client,
    looked_at: PairImport,
    request: pytest.FixtureRequest,
    name: str,
    who: str,
    method: str,
) -> None:
    client.force_login(request.getfixturevalue(who))
    pk = looked_at.dataset_id if name in ("imports", "export") else looked_at.pk

    foreign = getattr(client, method)(reverse(name, args=[pk]))
    missing = getattr(client, method)(reverse(name, args=[999_999]))

    assert foreign.status_code == missing.status_code
    assert foreign.status_code in (404, 405)
    assert foreign.content == missing.content
    assert PairImport.objects.exists()


def test_the_pages_need_few_queries(
    signed_in: Client,
    dataset: Dataset,
    alice: User,
    django_assert_max_num_queries: Callable[[int], Any],
) -> None:
    for n in range(20):
        importing.add_file(dataset, ContentFile(lines(GOOD | {"n": n})), name=str(n), user=alice)
    with django_assert_max_num_queries(12):
        signed_in.get(reverse("imports", args=[dataset.pk]))
