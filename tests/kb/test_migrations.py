"""What was stored before is put right when a newer version starts."""

from functools import cache
from importlib import import_module
from typing import Any

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from kb import ingestion, search
from kb.models import Document, Job, User
from tests.conftest import AddDocument

pytestmark = pytest.mark.django_db
GUIDE = "# Lakes\n\nThe lake freezes in January.\n\n## Fish\n\nPike hunt in the reeds.\n"


@cache
def apps_at(name: str) -> Any:
    """Give the models as a migration knows them."""
    return MigrationExecutor(connection).loader.project_state([("kb", name)]).apps


def queue_renamed() -> list[Document]:
    """Give the documents that are queued to be indexed under their title."""
    name = "0007_titles_of_before"
    import_module(f"kb.migrations.{name}").queue_renamed(apps_at(name), None)
    queued = Document.objects.filter(title_job__kind="retitle", title_job__state="waiting")
    return list(queued.order_by("pk"))


def titles_found(user: User, words: str) -> set[str]:
    return {hit.title for hit in search.search(user, words) if hit.text_score}


def test_documents_renamed_before_there_was_a_job_are_found_by_their_titles(
    add_document: AddDocument, alice: User
) -> None:
    renamed = add_document("guide.md", GUIDE)
    add_document("kept.md", GUIDE.replace("Lakes", "Ponds"))
    add_document("waits.md", GUIDE, wait=False)
    # As the pages wrote it then.
    Document.objects.filter(pk=renamed.pk).update(title="Zermatt")

    assert queue_renamed() == [renamed]
    assert queue_renamed() == [renamed], "what waits is not queued again"
    assert Job.objects.filter(kind=Job.Kind.RETITLE).count() == 1
    job = Job.objects.claim(Job.Kind.RETITLE)
    assert job is not None
    ingestion.retitle(job)
    assert titles_found(alice, "Zermatt") == {"Zermatt"}
    assert queue_renamed() == [], "each stands under its title by now"


def test_many_documents_are_queued_with_few_queries(
    add_document: AddDocument, django_assert_max_num_queries: Any
) -> None:
    apps_at("0007_titles_of_before")  # which asks once
    for number in range(12):
        add_document(f"{number}.md", f"# Part {number}\n\nIt freezes in month {number}.\n")
    with django_assert_max_num_queries(2):
        assert queue_renamed() == []
    Document.objects.update(title="Zermatt")
    with django_assert_max_num_queries(10):
        assert len(queue_renamed()) == 12
    assert len({document.title_job_id for document in Document.objects.all()}) == 12
