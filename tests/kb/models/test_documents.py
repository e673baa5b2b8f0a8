"""Files and the rows that name them."""

import threading
import time
from pathlib import Path

import pytest
from django.core.files.base import ContentFile
from django.db import connection

from kb.files import content_storage
from kb.models import Document
from kb.models.documents import delete_unused_files, storing
from tests.conftest import AddDocument

pytestmark = pytest.mark.django_db(transaction=True)
TEXT = "The glacier melts in August."


def test_a_file_that_is_being_added_is_not_deleted_with_another_document_of_its_content(
    add_document: AddDocument,
) -> None:
    first = add_document("first.md", TEXT, wait=False)

    with storing(ContentFile(TEXT.encode())) as stored:
        # Between the file and its row, another request deletes the only document that names it.
        deleting = threading.Thread(target=_remove, args=[first.pk])
        deleting.start()
        while Document.objects.filter(pk=first.pk).exists():
            time.sleep(0.05)
        deleting.join(timeout=0.5)  # long enough to delete a file, if nothing held it
        second = first.collection.documents.create(name="second.md", title="second")
        second.add_version(stored, added_by=None)
    deleting.join(timeout=20)

    assert Path(content_storage().path(stored.name)).read_text() == TEXT


def test_a_file_that_is_added_while_the_same_content_is_deleted_comes_anew(
    add_document: AddDocument,
) -> None:
    first = add_document("first.md", TEXT, wait=False)
    first.remove()

    second = add_document("second.md", TEXT, wait=False)

    assert content_storage().exists(str(second.newest_version.file.name))


def test_many_unused_files_are_deleted_one_by_one_and_counted(add_document: AddDocument) -> None:
    used = str(add_document("first.md", TEXT, wait=False).newest_version.file.name)
    unused = [
        content_storage().put(iter([bytes([n])]), max_bytes=10).name for n in range(3)
    ]  # fmt: skip

    assert delete_unused_files([used, *unused]) == 3

    assert content_storage().exists(used)
    assert not any(map(content_storage().exists, unused))


def _remove(pk: int) -> None:
    try:
        Document.objects.get(pk=pk).remove()
    finally:
        connection.close()
