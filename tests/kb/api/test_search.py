from typing import Any

from kb.models import Document
from tests.conftest import AddDocument
from tests.kb.api.client import ApiClient
from tests.kb.api.conftest import GLACIER

JSON = "application/json"
SEARCH = "/api/v1/search/"


def test_a_reader_finds_the_passage_with_its_words_marked(
    as_bob: ApiClient, add_document: AddDocument
) -> None:
    document = add_document("notes.md", GLACIER)

    body = as_bob.get(SEARCH, {"query": "When do glaciers melt?"}).json()

    hit = body["hits"][0]
    assert hit["document"] == document.pk
    assert {hit["text"][a:b].lower() for a, b in hit["marks"]} >= {"glacier", "melts"}
    assert hit["text_score"] > 0
    assert body["facets"]["collection"][0]["label"] == "Field notes"


def test_a_body_asks_the_same_as_an_address(as_bob: ApiClient, add_document: AddDocument) -> None:
    document = add_document("notes.md", GLACIER)
    add_document("moss.txt", "Moss covers the glacier.")
    wanted: dict[str, Any] = {
        "query": "glacier",
        "document_ids": [document.pk, 10**12],
        "media_types": ["text/markdown"],
        "collection_ids": [document.collection_id],
        "since": "2020-01-01",
        "limit": 1,
    }

    by_address = as_bob.get(SEARCH, wanted).json()
    by_body = as_bob.post(SEARCH, wanted, content_type=JSON).json()

    assert by_address["hits"] == by_body["hits"]
    assert [hit["document"] for hit in by_body["hits"]] == [document.pk]


def test_pages_of_hits_go_on_from_offset(as_bob: ApiClient, add_document: AddDocument) -> None:
    add_document("notes.md", GLACIER)
    both = as_bob.get(SEARCH, {"query": "glacier moss stones"}).json()
    second = as_bob.get(SEARCH, {"query": "glacier moss stones", "limit": 1, "offset": 1}).json()

    assert both["count"] == second["count"] == 2
    assert second["hits"] == both["hits"][1:]


def test_filters_that_make_no_sense_are_refused(as_bob: ApiClient, document: Document) -> None:
    for body in (
        {"query": "x", "tags": "ice"},
        {"query": "x", "until": "soon"},
        {"query": " "},
        {},
    ):
        response = as_bob.post(SEARCH, body, content_type=JSON)
        assert response.json()["code"] == "invalid"
