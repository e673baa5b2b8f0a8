from datetime import UTC, date, datetime

import numpy as np
import pytest
from django.contrib.auth.models import AnonymousUser, Group
from pytest_django import DjangoAssertNumQueries

from kb import search
from kb.backends import get_backend
from kb.embedders import EmbeddingError
from kb.models import Collection, Document, EmbeddingSpace, Membership, User
from kb.search import Filters
from tests.kb.rows import make_document

pytestmark = pytest.mark.django_db


def names(user: User | AnonymousUser, query: str, **filters: object) -> list[str]:
    """Search, and name the documents whose passages hold a word of the query, best first."""
    hits = search.search(user, query, filters=Filters(**filters))  # type: ignore[arg-type]
    return list(dict.fromkeys(hit.name for hit in hits if hit.text_score))


# --- Who finds what ---------------------------------------------------------------------------


def test_a_reader_never_sees_another_collection(
    collection: Collection, bob: User, charlie: User
) -> None:
    make_document(collection, "ice.md", ["The glacier melts in late summer."])

    assert names(bob, "When does the glacier melt?") == ["ice.md"]
    assert search.search(charlie, "glacier") == []
    assert search.search_page(charlie, "glacier").total == 0
    assert search.search(AnonymousUser(), "glacier") == []


def test_asking_for_a_foreign_collection_or_document_finds_nothing(
    collection: Collection, charlie: User
) -> None:
    document = make_document(collection, "ice.md", ["The glacier melts."])

    for filters in (
        Filters(collection_ids=(collection.pk,)),
        Filters(document_ids=(document.pk,)),
    ):
        assert search.search(charlie, "glacier", filters=filters) == []
        assert search.search_page(charlie, "glacier", filters=filters).facets["collection"] == []


def test_groups_and_public_collections_open_what_they_should(
    collection: Collection, charlie: User
) -> None:
    make_document(collection, "ice.md", ["The glacier melts."])
    group = Group.objects.create(name="Hikers")
    charlie.groups.add(group)
    Membership.objects.create(collection=collection, group=group)
    assert names(charlie, "glacier") == ["ice.md"]

    charlie.groups.clear()
    assert names(charlie, "glacier") == []

    Collection.objects.filter(pk=collection.pk).update(is_public=True)
    assert names(charlie, "glacier") == ["ice.md"]


def test_taking_a_membership_away_ends_what_is_found_at_once(
    collection: Collection, bob: User
) -> None:
    make_document(collection, "ice.md", ["The glacier melts."])
    bob.memberships.all().delete()

    assert search.search(bob, "glacier") == []


# --- What is found ----------------------------------------------------------------------------


def test_the_passage_that_answers_comes_first(collection: Collection, bob: User) -> None:
    make_document(collection, "a.md", ["Trains leave hourly.", "Book trains two weeks early."])
    make_document(collection, "b.md", ["Soup is served at noon.", "The library opens at nine."])

    hit = search.search(bob, "How early should I book a train?")[0]

    assert (hit.name, hit.text) == ("a.md", "Book trains two weeks early.")
    assert 0 < hit.score <= 1
    assert hit.similarity > 0
    assert hit.text_score > 0
    assert [hit.text[slice(*mark)] for mark in hit.marks] == ["Book", "trains", "early"]
    assert hit.text[hit.snippet_start : hit.snippet_end] == hit.text


def test_a_natural_question_does_not_need_all_its_words(collection: Collection, bob: User) -> None:
    make_document(collection, "a.md", ["Expense reports go to finance by Friday."])

    assert names(bob, "To whom do I have to send my expense sheet, and when?") == ["a.md"]


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("Set max_upload_mb = 50.", "max_upload_mb"),
        ("Set max_upload_mb = 50.", "upload"),
        ("Call foo.bar() twice.", "foo.bar"),
        ("Call foo.bar() twice.", "bar"),
        ("Write to ann@example.org.", "ann@example.org"),
        ("Write an e-mail.", "email"),
        ("A state-of-the-art kettle", "state of the art"),
        ("About 1,000 people", "1000"),
        ("Error 0x80070057 occurred", "0x80070057"),
        ("Use C++ here", "c++"),
        ("Un café très noir", "cafe"),
        ("see kb/search.py", "search.py"),
        ("東京は日本の首都です。", "日本の首都"),
        ("กรุงเทพมหานครเป็นเมืองหลวง", "เมืองหลวง"),
        ("서울은 대한민국의 수도이다.", "대한민국"),
        ("Москва является столицей", "столица"),
    ],
)
def test_identifiers_numbers_and_other_scripts_are_found_by_their_words(
    collection: Collection, bob: User, text: str, query: str
) -> None:
    language = "russian" if "М" in text else "french" if "Un" in text else "english"
    make_document(collection, "wanted.md", [text], language=language)
    make_document(collection, "other.md", ["Nothing of the kind.", "Quite another matter."])

    assert names(bob, query) == ["wanted.md"]


def test_a_passage_is_stemmed_in_its_own_language(collection: Collection, bob: User) -> None:
    make_document(collection, "de.md", ["Viele Häuser stehen leer."], language="german")
    make_document(collection, "en.md", ["Many houses stand empty."])

    assert names(bob, "Haus") == ["de.md"]
    assert names(bob, "house") == ["en.md"]


def test_foreign_stop_words_do_not_lift_a_passage(collection: Collection, bob: User) -> None:
    # To a German stemmer "the" and "of" are rare and telling words.
    make_document(collection, "de.md", ["The Best of the Beatles, das Album"], language="german")
    make_document(collection, "en.md", ["Pay slips show the amount.", "Ask about the pay."])

    assert names(bob, "what is the amount of my pay") == ["en.md"]


@pytest.mark.parametrize("query", ["", "   ", "\x00", "\n"])
def test_an_empty_query_finds_nothing(collection: Collection, bob: User, query: str) -> None:
    make_document(collection, "a.md", ["river"])

    page = search.search_page(bob, query)

    assert (search.search(bob, query), page.hits, page.total) == ([], [], 0)


@pytest.mark.parametrize(
    "query",
    ["river " * 2_000, "r" * 10_000, "%s %(x)s %", "'); DROP TABLE kb_chunk; --", "river\x00bank"]
    + ["\ud800river", "a\\b:*&|!<->", '"river"', "🏔️ river", "-" * 500, "_" * 10_000],
)
def test_no_query_breaks_a_search(collection: Collection, bob: User, query: str) -> None:
    make_document(collection, "a.md", ["The river bank", "100 % of it"])

    assert search.search_page(bob, query).total <= 2


def test_a_collection_without_documents_finds_nothing(collection: Collection, bob: User) -> None:
    assert search.search(bob, "river") == []


# --- Filters, paging, counts ------------------------------------------------------------------


@pytest.fixture
def library(collection: Collection, bob: User) -> None:
    other = Collection.objects.create(name="Other notes")
    other.grant(bob, "reader")
    make_document(
        collection,
        "a.pdf",
        ["river one", "river two"],
        media_type="application/pdf",
        tags=["water", "map"],
        updated_at=datetime(2024, 5, 1, 23, 0, tzinfo=UTC),
    )
    make_document(
        collection,
        "b.md",
        ["river three"],
        media_type="text/markdown",
        tags=["water"],
        updated_at=datetime(2025, 5, 1, tzinfo=UTC),
    )
    make_document(
        other,
        "c.md",
        ["Fluss river"],
        language="german",
        media_type="text/markdown",
        updated_at=datetime(2025, 6, 1, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, {"a.pdf", "b.md", "c.md"}),
        ({"media_types": ("application/pdf",)}, {"a.pdf"}),
        ({"languages": ("german",)}, {"c.md"}),
        ({"tags": ("water",)}, {"a.pdf", "b.md"}),
        ({"tags": ("map", "nothing")}, {"a.pdf"}),
        ({"since": date(2025, 5, 1)}, {"b.md", "c.md"}),
        ({"until": date(2024, 5, 1)}, {"a.pdf"}),
        ({"since": date(2024, 5, 2), "until": date(2025, 5, 31)}, {"b.md"}),
        ({"tags": ("water",), "media_types": ("text/markdown",)}, {"b.md"}),
        ({"languages": ("finnish",)}, set()),
    ],
)
def test_filters_narrow_together(
    library: None, bob: User, filters: dict[str, object], expected: set[str]
) -> None:
    assert set(names(bob, "river", **filters)) == expected


def test_filters_by_collection_and_document(library: None, bob: User) -> None:
    other = Collection.objects.get(name="Other notes")
    document = Document.objects.get(name="b.md")

    assert names(bob, "river", collection_ids=(other.pk,)) == ["c.md"]
    assert names(bob, "river", document_ids=(document.pk,)) == ["b.md"]


def test_counts_say_what_each_filter_would_leave_under_the_others(library: None, bob: User) -> None:
    collection, other = Collection.objects.order_by("pk")
    page = search.search_page(bob, "river", filters=Filters(media_types=("text/markdown",)))

    assert page.total == 2
    assert page.facets == {
        "collection": [
            (str(collection.pk), "Field notes", 1),
            (str(other.pk), "Other notes", 1),
        ],
        # The filter by type does not narrow the types.
        "type": [("application/pdf", "PDF", 2), ("text/markdown", "Markdown", 2)],
        "language": [("english", "English", 1), ("german", "German", 1)],
        "tag": [("water", "water", 1)],
        "year": [("2025", "2025", 2)],
    }


def test_the_count_of_a_value_is_what_its_filter_finds(library: None, bob: User) -> None:
    for value, _, count in search.search_page(bob, "river").facets["type"]:
        page = search.search_page(bob, "river", filters=Filters(media_types=(value,)))
        assert page.total == count


def test_pages_follow_each_other_without_gaps_or_repeats(collection: Collection, bob: User) -> None:
    make_document(collection, "a.md", [f"river {'mud ' * (i % 7)}{i}" for i in range(60)])

    whole = [hit.chunk_id for hit in search.search_page(bob, "river mud", limit=60).hits]
    pages = [search.search_page(bob, "river mud", limit=7, offset=o) for o in range(0, 70, 7)]

    assert len(whole) == 60
    assert [hit.chunk_id for page in pages for hit in page.hits] == whole
    assert {page.total for page in pages} == {60}


def test_matches_beyond_the_fused_ones_can_still_be_paged_to(
    collection: Collection, bob: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "MATCHING", 5)
    monkeypatch.setattr(search, "NEAREST", 5)
    make_document(collection, "a.md", [f"river {i}" for i in range(40)])

    page = search.search_page(bob, "river", limit=40)

    assert page.total == len(page.hits) == 40
    assert [hit.score for hit in page.hits] == sorted(
        (hit.score for hit in page.hits), reverse=True
    )


def test_a_search_takes_few_queries_however_much_it_finds(
    collection: Collection, bob: User, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for i in range(12):
        make_document(collection, f"{i}.md", ["river one", "river two"])

    with django_assert_max_num_queries(8):
        assert len(search.search(bob, "river", limit=20)) == 20
    with django_assert_max_num_queries(9):
        search.search_page(bob, "river", limit=20)


# --- Without meaning --------------------------------------------------------------------------


def test_words_alone_rank_while_the_embedding_service_is_away(
    collection: Collection, bob: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_document(collection, "a.md", ["the river", "the sand"])

    def refuse(text: str) -> np.ndarray:
        raise EmbeddingError("The embedding service cannot be reached.")

    monkeypatch.setattr(get_backend("EMBEDDER"), "embed_query", refuse)
    (hit,) = search.search(bob, "river")

    assert hit.text == "the river"
    assert np.isnan(hit.similarity)


def test_words_alone_rank_while_another_model_made_the_vectors(
    collection: Collection, bob: User
) -> None:
    make_document(collection, "a.md", ["the river", "the sand"])
    EmbeddingSpace.objects.update(model_name="another")

    (hit,) = search.search(bob, "river")

    assert np.isnan(hit.similarity)


# --- Fusion -----------------------------------------------------------------------------------


def test_fusing_counts_how_far_a_passage_stands_out() -> None:
    # 1 is clearly nearest; 2 and 3 share the words.
    fused = search.fuse([1, 2, 3], {1: 0.9, 2: 0.2, 3: 0.1}, {2: 3.0, 3: 3.0})

    assert sorted(fused, key=lambda id_: -fused[id_]) == [1, 2, 3]
    assert sum(fused.values()) == pytest.approx(0)


def test_fusing_does_not_depend_on_the_range_of_either_score() -> None:
    similarity, text = {1: 0.9, 2: 0.2, 3: 0.1}, {2: 3.0, 3: 1.0}
    narrow = {id_: 0.5 + score / 100 for id_, score in similarity.items()}
    long_query = {id_: 20 * score for id_, score in text.items()}

    assert search.fuse([1, 2, 3], narrow, long_query) == pytest.approx(
        search.fuse([1, 2, 3], similarity, text)
    )


def test_a_passage_among_good_ones_rises_above_an_equal_one_that_stands_alone() -> None:
    east, north, up = np.eye(3, dtype=np.float32)
    vectors = {1: east, 2: east, 3: north, 4: up, 5: east, 6: north, 7: up}
    scores = {1: 2.0, 2: 1.0, 3: 1.0, 4: -1.0, 5: 2.0, 6: -1.0, 7: -1.0}

    smoothed = search.smooth(scores, vectors)

    assert smoothed[2] > smoothed[3]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_few_passages_are_smoothed_as_well(count: int) -> None:
    vectors = {i: np.ones(2, np.float32) for i in range(count)}

    assert search.smooth(dict.fromkeys(range(count), 1.0), vectors) == pytest.approx(
        dict.fromkeys(range(count), 1.0)
    )
