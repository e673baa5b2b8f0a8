import pytest

from kb import search
from kb.models import Collection, User
from tests.kb.rows import make_document

pytestmark = pytest.mark.django_db


def test_a_reader_never_sees_another_collection(
    collection: Collection, bob: User, charlie: User, alice: User
) -> None:
    make_document(collection, "ice.md", ["The glacier melts in late summer.", "foo is bar"])

    assert [hit.text for hit in search.search(bob, "When does the glacier melt?")]
    assert search.search(charlie, "glacier") == []
    print(search.search_page(alice, "glacier melting"))
