"""The list of pairs, what is done with many of them, one pair's page, and typing a new one."""

import pytest
from django.test import Client
from django.urls import reverse

from finetune import curation
from finetune.forms import SORTS
from finetune.models import (
    AuditEvent,
    Dataset,
    DatasetSnapshot,
    InstructionPair,
    PairSource,
    Review,
    SavedView,
    SnapshotRow,
)
from kb.models import Chunk, Collection, Job, User
from tests.conftest import AddDocument

pytestmark = pytest.mark.django_db


@pytest.fixture
def curator(client: Client, alice: User) -> Client:
    client.force_login(alice)
    return client


def make(dataset: Dataset, count: int, **fields: object) -> list[InstructionPair]:
    return InstructionPair.objects.bulk_create(
        InstructionPair(
            dataset=dataset, collection=dataset.collection, instruction=f"Question {n}?",
            output=f"Answer {n}.", content_hash=str(n), word_count=n, **{"origin": "import", **fields},
        )
        for n in range(count)
    )  # fmt: skip


def shown(client: Client, dataset: Dataset, **query: object) -> list[str]:
    answer = client.get(reverse("dataset", args=[dataset.pk]), query)
    return [pair.instruction for pair in answer.context["rows"]]


def test_the_home_counts_what_one_may_see(
    curator: Client, pair: InstructionPair, dataset: Dataset, bob: User
) -> None:
    make(dataset, 2, state="approved")
    closed = make(dataset, 1)[0]
    PairSource.objects.create(
        pair=closed, marker=1, collection=Collection.objects.create(name="Closed"),
        document_name="a", document_key=1, title="A", start=0, end=1, text="a",
    )  # fmt: skip
    answer = curator.get(reverse("curate"))
    (card,) = answer.context["cards"]
    assert (card.total, card.approved, card.waiting) == (3, 2, 1)
    curator.force_login(bob)
    assert curator.get(reverse("curate")).context["cards"] == []


def test_a_data_set_is_made_and_named_once(curator: Client, collection: Collection) -> None:
    values = {
        "collection": collection.pk,
        "name": "Ice",
        "purpose": "training",
        "reviews_wanted": 2,
    }
    assert curator.post(reverse("dataset_new"), values).status_code == 302
    made = Dataset.objects.get(name="Ice")
    assert made.reviews_wanted == 2
    curator.post(reverse("dataset_edit", args=[made.pk]), {**values, "reviews_wanted": 3})
    log = curator.get(reverse("audit", args=[made.pk])).context["rows"]
    assert [event.action for event in log] == ["edited", "created"]
    assert log[0].detail == {"after": {"reviews_wanted": 3}}
    again = curator.post(reverse("dataset_new"), values)
    assert "already" in again.content.decode()
    assert (
        "From 1 to 5"
        in curator.post(
            reverse("dataset_new"), {**values, "name": "Snow", "reviews_wanted": 9}
        ).content.decode()
    )


def test_filters_narrow_the_list(
    curator: Client, pair: InstructionPair, dataset: Dataset, alice: User
) -> None:
    make(dataset, 1, flags=["secret"], tags=["ice"], language="german")
    assert shown(curator, dataset) == ["Question 0?", "When does the glacier melt?"]
    narrowed = [
        {"q": "glacier"}, {"state": "approved"}, {"origin": "typed"}, {"flag": "secret"},
        {"flag": "none"}, {"tag": "ice"}, {"language": "german"}, {"reviewer": "alice"},
        {"document": "ice.md"}, {"state": "nonsense"}, {"flag": "disputed"},
    ]  # fmt: skip
    found = [len(shown(curator, dataset, **query)) for query in narrowed]
    assert found == [1, 0, 1, 1, 1, 1, 1, 0, 0, 2, 0]
    curation.approve(pair, alice)
    assert shown(curator, dataset, reviewer="alice") == ["When does the glacier melt?"]


@pytest.mark.parametrize("sort", SORTS)
def test_every_order_reaches_every_pair_once(curator: Client, dataset: Dataset, sort: str) -> None:
    made = make(dataset, 120)
    for number, pair in enumerate(made[::3]):
        pair.support, pair.repetition, pair.priority = number / 50, number / 100, number / 10
        pair.output_words, pair.flags = number // 4, ["refusal", "encoding"][: number % 3]
        pair.language = ["english", "deutsch", "a~b"][number % 3]
    changed = ["support", "repetition", "priority", "output_words", "flags", "language"]
    InstructionPair.objects.bulk_update(made[::3], changed)
    seen: list[int] = []
    after = ""
    for _page in range(3):
        answer = curator.get(reverse("dataset", args=[dataset.pk]), {"sort": sort, "after": after})
        seen += [pair.pk for pair in answer.context["rows"]]
        after = answer.context["after"]
    assert after == ""
    assert len(seen) == len(set(seen)) == 120


def test_the_list_sorts_by_what_was_measured(curator: Client, dataset: Dataset) -> None:
    kinds = (("english", 3, []), ("arabic", 9, ["refusal"]), ("", 5, ["template", "encoding"]))
    for language, words, flags in kinds:
        make(dataset, 1, language=language, output_words=words, flags=flags)

    def order(sort: str) -> list[str]:
        answer = curator.get(reverse("dataset", args=[dataset.pk]), {"sort": sort})
        return [pair.language for pair in answer.context["rows"]]

    assert order("language") == ["", "arabic", "english"]
    assert order("output") == ["arabic", "", "english"]
    assert order("flags") == ["", "arabic", "english"]


@pytest.mark.parametrize("sort", SORTS)
def test_a_page_after_nonsense_is_shown(curator: Client, dataset: Dataset, sort: str) -> None:
    make(dataset, 1)
    address = reverse("dataset", args=[dataset.pk])
    for value in (
        "nan", "inf", "-inf", "1e400", "-1e30", "1.5", "99999999999", "",
        "2026-01-01T00:00:00", "2026-99-01T00:00:00Z", "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
    ):  # fmt: skip
        answer = curator.get(address, {"sort": sort, "after": f"{value}~1"})
        assert answer.status_code == 200, value


def test_the_list_costs_the_same_queries_for_any_length(
    curator: Client, dataset: Dataset, django_assert_max_num_queries: object
) -> None:
    make(dataset, 60, flags=["long"], tags=["a"], language="english")
    with django_assert_max_num_queries(13):  # type: ignore[operator]
        curator.get(reverse("dataset", args=[dataset.pk]))


def test_a_view_is_kept_and_forgotten(curator: Client, dataset: Dataset, bob: User) -> None:
    save = reverse("view_save", args=[dataset.pk])
    answer = curator.post(save, {"name": "Secrets", "query": "flag=secret&after=3&tag="})
    assert answer["Location"].endswith("?flag=secret")
    view = SavedView.objects.get()
    assert "Secrets" in curator.get(answer["Location"]).content.decode()
    curator.post(reverse("view_delete", args=[view.pk]))
    assert not SavedView.objects.exists()


# --- Many at once ---


def act(client: Client, dataset: Dataset, action: str, **values: object) -> int:
    return client.post(reverse("pairs_act", args=[dataset.pk, action]), values).status_code


def test_imported_pairs_are_approved_together_and_others_are_not(
    curator: Client, dataset: Dataset, alice: User
) -> None:
    clean = make(dataset, 3)
    drafted, flagged = make(dataset, 1, origin="passage")[0], make(dataset, 1, flags=["secret"])[0]
    page = curator.get(
        reverse("pairs_act", args=[dataset.pk, "approve"]), {"whole": "1", "query": ""}
    )
    assert (page.context["possible"], page.context["left"]) == (3, 2)
    assert act(curator, dataset, "approve", whole="1", query="") == 302
    approved = dataset.pairs.approved()
    assert set(approved) == set(clean)
    assert approved[0].reviewer == alice
    assert Review.objects.count() == AuditEvent.objects.filter(action="approved").count() == 3
    drafted.refresh_from_db()
    flagged.refresh_from_db()
    assert drafted.state == flagged.state == "suggested"


def test_rejecting_a_filter_needs_a_reason(curator: Client, dataset: Dataset) -> None:
    make(dataset, 2, tags=["noise"])
    make(dataset, 2)
    assert act(curator, dataset, "reject", whole="1", query="tag=noise") == 200
    assert not dataset.pairs.filter(state="rejected").exists()
    assert act(curator, dataset, "reject", whole="1", query="tag=noise", reason="noise") == 302
    assert dataset.pairs.filter(state="rejected", reject_reason="noise").count() == 2


def test_together_means_one_judgement_where_two_are_wanted(
    curator: Client, dataset: Dataset, alice: User, collection: Collection
) -> None:
    Dataset.objects.update(reviews_wanted=2)
    pairs = make(dataset, 2)
    dora = User.objects.create_user("dora")
    collection.grant(dora, "curator")
    curation.approve(pairs[0], dora)
    act(curator, dataset, "reject", whole="1", query="", reason="noise")
    states = dataset.pairs.order_by("pk").values_list("state", "is_disputed")
    assert list(states) == [("suggested", True), ("suggested", False)]


def test_tagging_opening_and_deleting_many(curator: Client, dataset: Dataset) -> None:
    pairs = make(dataset, 3)
    ids = [pair.pk for pair in pairs[:2]]
    act(curator, dataset, "tag", pair=ids, tags="ice, snow")
    assert dataset.pairs.filter(tags=["ice", "snow"]).count() == 2
    act(curator, dataset, "approve", pair=ids)
    act(curator, dataset, "reopen", pair=ids)
    assert dataset.pairs.filter(state="suggested", round=2).count() == 2
    act(curator, dataset, "delete", pair=ids)
    assert dataset.pairs.get() == pairs[2]
    assert AuditEvent.objects.filter(action="deleted").count() == 2
    assert act(curator, dataset, "delete", pair=ids) == 404
    assert act(curator, dataset, "dance", pair=[pairs[2].pk]) == 404


def test_a_pair_that_one_may_not_see_is_not_touched_by_all(
    curator: Client, dataset: Dataset
) -> None:
    make(dataset, 2)
    closed = dataset.pairs.first()
    PairSource.objects.create(
        pair=closed, marker=1, collection=Collection.objects.create(name="Closed"),
        document_name="a", document_key=1, title="A", start=0, end=1, text="a",
    )  # fmt: skip
    act(curator, dataset, "delete", whole="1", query="")
    assert dataset.pairs.get() == closed


# --- One pair ---


def test_the_second_reviewer_does_not_see_what_the_first_said(
    client: Client, pair: InstructionPair, alice: User, bob: User
) -> None:
    pair.collection.grant(bob, "curator")
    Dataset.objects.update(reviews_wanted=2)
    curation.reject(pair, alice, "Plainly wrong")
    addresses = [reverse("pair", args=[pair.pk]), reverse("audit", args=[pair.dataset_id])]

    def seen(user: User) -> list[bool]:
        client.force_login(user)
        pages = [client.get(address).content.decode() for address in addresses]
        log = [event.detail.get("reason") for event in curation.log_of(user, pair.dataset)]
        return ["Plainly wrong" in text for text in (*pages, log)]

    assert seen(bob) == [False, False, False]
    assert seen(alice) == [True, True, True]
    client.force_login(bob)
    assert "alice" not in client.get(addresses[0]).content.decode()
    curation.undo(alice, pair.dataset)
    assert "undone" not in curation.log_of(bob, pair.dataset).values_list("action", flat=True)
    curation.reject(pair, alice, "Plainly wrong")
    curation.reject(pair, bob, "Wrong too")
    assert seen(bob) == [True, True, True]
    # Decided and opened again, the round before tells nothing of this one.
    curation.reopen(pair, alice)
    assert seen(bob) == [True, True, True]


def test_a_pair_shows_its_passage_its_history_and_every_edit(
    curator: Client, dataset: Dataset, alice: User, add_document: AddDocument
) -> None:
    add_document("ice.md", "# Ice\n\nThe glacier melts in August. The river rises.")
    chunk = Chunk.objects.select_related("document", "version").get()
    pair = curation.create_pair(
        alice, dataset, origin="typed",
        content={"instruction": "When?", "output": "The glacier melts in July [1]."},
        sources=[curation.source_of_chunk(chunk, 1)],
    )  # fmt: skip
    curation.approve(pair, alice, content={"output": "The glacier melts in August [1]."})
    page = curator.get(reverse("pair", args=[pair.pk])).content.decode()
    assert '<mark class="said" title="">The glacier melts in August.</mark>' in page
    assert "<del>July</del><ins>August</ins>" in page
    assert "version 1, characters" in page


def test_a_pair_is_judged_edited_and_opened_on_its_page(
    curator: Client, pair: InstructionPair
) -> None:
    curator.post(reverse("pair_judge", args=[pair.pk]), {"verdict": "reject"})
    pair.refresh_from_db()
    assert pair.state == "suggested"
    curator.post(reverse("pair_judge", args=[pair.pk]), {"verdict": "reject", "reason": "wrong"})
    pair.refresh_from_db()
    assert pair.state == "rejected"
    curator.post(reverse("pair_reopen", args=[pair.pk]))
    curator.post(
        reverse("pair_edit", args=[pair.pk]),
        {"instruction": "When?", "output": "In July.", "tags": "ice, melt"},
    )
    pair.refresh_from_db()
    assert (pair.state, pair.output, pair.tags) == ("suggested", "In July.", ["ice", "melt"])
    assert curator.post(reverse("pair_edit", args=[pair.pk]), {"output": ""}).status_code == 200
    curator.post(reverse("pair_delete", args=[pair.pk]))
    assert not InstructionPair.objects.exists()


def test_what_a_pair_says_is_never_markup(curator: Client, pair: InstructionPair) -> None:
    InstructionPair.objects.update(
        instruction="<script>alert(1)</script>", findings=[["template", "instruction", 0, 8]]
    )
    page = curator.get(reverse("pair", args=[pair.pk])).content.decode()
    assert "<script>alert" not in page
    assert '<mark class="finding" title="Template residue">&lt;script&gt;</mark>' in page


# --- Typed by hand ---


def test_a_pair_is_typed_with_passages_found_by_search(
    curator: Client, dataset: Dataset, add_document: AddDocument
) -> None:
    add_document("ice.md", "# Ice\n\nThe glacier melts in August.")
    add_document("secret.md", "The glacier key.", to=Collection.objects.create(name="Closed"))
    address = reverse("pair_new", args=[dataset.pk])
    typed = {"instruction": "When does it melt?", "output": "In August [1]."}
    found = curator.post(address, {**typed, "q": "glacier melts", "search": "1"})
    (hit,) = found.context["hits"]
    assert not InstructionPair.objects.exists()
    assert "When does it melt?" in found.content.decode()
    closed = Chunk.objects.get(document__name="secret.md")
    made = curator.post(address, {**typed, "chunk": [hit.chunk_id, closed.pk]})
    pair = InstructionPair.objects.get()
    assert made["Location"] == reverse("pair", args=[pair.pk])
    source = pair.sources.get()
    assert (source.document_name, source.marker, source.text) == ("ice.md", 1, hit.text)
    assert (source.start, source.end) == (hit.start, hit.end)
    assert pair.origin == "typed"


def test_a_typed_pair_needs_question_and_answer(curator: Client, dataset: Dataset) -> None:
    answer = curator.post(reverse("pair_new", args=[dataset.pk]), {"instruction": "When?"})
    assert "Say what the model should answer." in answer.content.decode()
    assert not InstructionPair.objects.exists()


# --- Before a document is deleted ---


def test_deleting_a_document_says_which_pairs_and_snapshots_rest_on_it(
    curator: Client, dataset: Dataset, alice: User, bob: User, add_document: AddDocument
) -> None:
    document = add_document("ice.md", "# Ice\n\nThe glacier melts in August.")
    chunk = Chunk.objects.select_related("document", "version").get()
    pair = curation.create_pair(
        alice, dataset, origin="typed",
        content={"instruction": "When?", "output": "In August [1]."},
        sources=[curation.source_of_chunk(chunk, 1)],
    )  # fmt: skip
    curation.approve(pair, alice)
    snapshot = DatasetSnapshot.objects.create(
        dataset=dataset, number=4, job=Job.objects.create(kind=Job.Kind.FREEZE)
    )
    SnapshotRow.objects.create(
        snapshot=snapshot, position=1, split="train", pair=pair, content_hash="", line="{}",
        token_count=1, document_keys=[document.pk],
    )  # fmt: skip
    address = f"{reverse('document_uses')}?document={document.pk}"
    assert address in curator.get(reverse("document_delete", args=[document.pk])).content.decode()
    said = curator.get(address).content.decode()
    assert "1 instruction pair rests on it." in said
    assert "Glaciers #4" not in said
    other = add_document("snow.md", "# Snow\n\nIt falls in winter.")
    both = curator.get(f"{address}&document={other.pk}").content.decode()
    assert "Glaciers #4" in both
    curator.force_login(bob)
    assert curator.get(address).content.decode().strip() == ""
