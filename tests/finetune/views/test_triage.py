"""Rated answers, gaps and drafts as pages: for curators of the collection, and no one else."""

from collections.abc import Callable

import pytest
from django.contrib.auth.models import Group
from django.test import Client
from django.urls import reverse

from finetune import triage
from finetune.models import (
    Dataset,
    InstructionPair,
    KnowledgeGap,
    RetrievalQuestion,
    TriageItem,
)
from kb.models import Collection, Document, Membership, User
from kb.prompts import NOT_IN_DOCUMENTS
from tests.conftest import AddDocument
from tests.finetune.rated import QUESTION, answer, ask, rate

pytestmark = pytest.mark.django_db


@pytest.fixture
def ice(add_document: AddDocument) -> Document:
    return add_document("ice.md", "# Ice\n\nThe glacier melts in late summer.\n")


@pytest.fixture
def river(add_document: AddDocument) -> Document:
    return add_document("river.md", "# River\n\nThe river freezes in January.\n")


Rated = Callable[..., TriageItem]


@pytest.fixture
def rated(alice: User, ice: Document) -> Rated:
    def make(text: str = "In winter. [1]", *, value: int = -1, question: str = QUESTION, **more):
        corrected = more.pop("corrected", "")
        message = answer(ask(alice, question), text, ice, **more)
        rate(message, value, corrected=corrected, reason="It is <b>wrong</b>")
        triage.collect()
        return TriageItem.objects.get(message=message)

    return make


def sort(page: Client, item: TriageItem, **fields: object) -> bytes:
    address = reverse("triage_sort", args=[item.pk])
    return page.post(address, fields, follow=True).content


def test_the_list_shows_what_is_to_sort_with_the_guess(page: Client, rated: Rated) -> None:
    rated(corrected="The glacier melts in late summer.")
    rated("Right. [1]", value=1, question="Is it long?")
    content = page.get(reverse("triage")).content.decode()

    assert QUESTION in content
    assert "Probably: The passage was there, the answer was wrong" in content
    assert "Is it long?" not in content
    assert "Is it long?" in page.get(reverse("triage") + "?show=up").content.decode()
    narrowed = page.get(reverse("triage") + "?guess=not_found").content.decode()
    assert QUESTION not in narrowed


def test_an_empty_list_says_how_answers_come(page: Client, collection: Collection) -> None:
    assert b"No rated answer yet" in page.get(reverse("triage")).content


def test_the_list_takes_the_same_queries_however_long(
    page: Client, rated: Rated, django_assert_max_num_queries: Callable
) -> None:
    for number in range(6):
        rated(question=f"{QUESTION} {number}")
    with django_assert_max_num_queries(22):
        page.get(reverse("triage"))


def test_an_item_shows_question_answer_reason_and_passages(page: Client, rated: Rated) -> None:
    item = rated(corrected="In late summer.")
    content = page.get(reverse("triage_item", args=[item.pk])).content.decode()

    for text in (QUESTION, "In winter. [1]", "In late summer.", "The glacier melts"):
        assert text in content
    assert "It is &lt;b&gt;wrong&lt;/b&gt;" in content


def test_a_corrected_answer_becomes_a_pair_in_one_step(page: Client, rated: Rated) -> None:
    item = rated(corrected="The glacier melts in late summer.")
    sort(page, item, category="wrong_answer", output=item.corrected_answer)

    pair = InstructionPair.objects.get()
    assert pair.output == "The glacier melts in late summer. [1]"
    assert pair.dataset.name == "From ratings"
    done = page.get(reverse("triage_item", args=[item.pk])).content.decode()
    assert reverse("pair", args=[pair.pk]) in done


def test_a_data_set_can_be_chosen_but_no_foreign_one(
    page: Client, rated: Rated, dataset: Dataset
) -> None:
    foreign = Dataset.objects.create(
        collection=Collection.objects.create(name="Closed"), name="Foreign"
    )
    item = rated(corrected="In late summer.")
    content = sort(page, item, category="wrong_answer", dataset=foreign.pk)
    assert b"Choose a data set" in content
    assert not InstructionPair.objects.exists()
    sort(page, item, category="wrong_answer", dataset=dataset.pk)
    assert InstructionPair.objects.get().dataset == dataset


def test_the_right_passage_is_offered_chosen_and_kept(
    page: Client, rated: Rated, river: Document
) -> None:
    item = rated(corrected="The river freezes in January.", question="When does the river freeze?")
    content = page.get(reverse("triage_item", args=[item.pk])).content.decode()
    chunk = river.chunks.get()
    assert f'value="{chunk.pk}" checked' in content

    sort(page, item, category="not_found", chunk=chunk.pk, pair="1")

    assert RetrievalQuestion.objects.get().document == river
    assert InstructionPair.objects.get().sources.get(marker=1).document == river


def test_without_a_chosen_passage_nothing_is_kept(
    page: Client, rated: Rated, add_document: AddDocument
) -> None:
    item = rated()
    assert b"Choose the passage" in sort(page, item, category="not_found")
    closed = add_document(
        "closed.md", "# Secret\n\nA secret.\n", to=Collection.objects.create(name="Closed")
    )
    content = sort(page, item, category="not_found", chunk=closed.chunks.get().pk)
    assert b"Choose the passage" in content
    assert not RetrievalQuestion.objects.exists()


def test_a_gap_is_listed_and_undone(page: Client, rated: Rated) -> None:
    item = rated(NOT_IN_DOCUMENTS, found_nothing=True, cites=())
    assert b"Listed as a knowledge gap." in sort(page, item, category="no_document")
    gap = KnowledgeGap.objects.get()
    assert QUESTION in page.get(reverse("gaps")).content.decode()
    assert QUESTION in page.get(reverse("gap", args=[gap.pk])).content.decode()

    assert b"Taken back." in page.post(reverse("triage_undo"), follow=True).content
    assert not KnowledgeGap.objects.exists()
    assert b"nothing to take back" in page.post(reverse("triage_undo"), follow=True).content


def test_after_sorting_the_next_one_is_shown(page: Client, rated: Rated) -> None:
    first, second = rated(), rated(question="Is it long?")
    answer_ = page.post(reverse("triage_sort", args=[second.pk]), {"category": ""})
    assert answer_["Location"] == reverse("triage_item", args=[first.pk])
    answer_ = page.post(reverse("triage_sort", args=[first.pk]), {"category": ""})
    assert answer_["Location"] == reverse("triage")


@pytest.fixture
def gap(page: Client, rated: Rated) -> KnowledgeGap:
    item = rated(NOT_IN_DOCUMENTS, found_nothing=True, cites=())
    sort(page, item, category="no_document")
    return KnowledgeGap.objects.get()


def test_a_gap_is_edited_assigned_and_closed(page: Client, gap: KnowledgeGap, alice: User) -> None:
    page.post(
        reverse("gap_edit", args=[gap.pk]),
        {"title": "The ice", "note": "Ask the guide", "assigned_to": alice.pk},
    )
    gap.refresh_from_db()
    assert (gap.title, gap.note, gap.assigned_to) == ("The ice", "Ask the guide", alice)
    assert b"The ice" in page.get(reverse("gaps") + "?show=assigned").content
    page.post(reverse("gap_close", args=[gap.pk]))
    assert b"The ice" not in page.get(reverse("gaps")).content
    assert b"The ice" in page.get(reverse("gaps") + "?show=closed").content
    page.post(reverse("gap_close", args=[gap.pk]))
    assert b"The ice" in page.get(reverse("gaps")).content


def test_gaps_are_merged_and_split(page: Client, gap: KnowledgeGap, rated: Rated) -> None:
    item = rated(NOT_IN_DOCUMENTS, question="Who pays the boat?", found_nothing=True, cites=())
    sort(page, item, category="no_document")
    other = KnowledgeGap.objects.exclude(pk=gap.pk).get()
    assert (
        b"Choose the gap" in page.post(reverse("gap_merge", args=[other.pk]), follow=True).content
    )
    page.post(reverse("gap_merge", args=[other.pk]), {"into": gap.pk})
    assert gap.questions.count() == 2
    question = gap.questions.order_by("pk")[1]
    page.post(reverse("gap_split", args=[question.pk]))
    assert KnowledgeGap.objects.count() == 2


@pytest.fixture
def closed_gap(ice: Document, bob: User, add_document: AddDocument) -> KnowledgeGap:
    """A gap of bob, whose one question rests on a passage that alice may not read."""
    closed = Collection.objects.create(name="Closed")
    closed.grant(bob, "owner")
    merger = add_document("merger.md", "# Merger\n\nThe merger is on Friday.\n", to=closed)
    message = answer(ask(bob, "Is the merger on Friday?"), "In winter. [1]", ice, merger)
    rate(message, -1)
    triage.collect()
    return triage.list_gap(TriageItem.objects.get(message=message), bob)


def test_a_gap_does_not_tell_a_question_that_one_may_not_read(
    page: Client, gap: KnowledgeGap, closed_gap: KnowledgeGap
) -> None:
    assert closed_gap != gap
    address = reverse("gap", args=[closed_gap.pk])
    for path in (reverse("gaps"), address, reverse("gap", args=[gap.pk])):
        shown = page.get(path).content.decode()
        assert "merger" not in shown
        assert "A question you may not read" in shown
    assert not page.get(address).context["hits"]

    page.post(reverse("gap_edit", args=[closed_gap.pk]), {"title": "", "note": "Ask the guide"})
    closed_gap.refresh_from_db()
    assert (closed_gap.note, closed_gap.is_renamed) == ("Ask the guide", False)
    page.post(reverse("gap_edit", args=[closed_gap.pk]), {"title": "A day", "note": ""})
    assert "A day" in page.get(reverse("gaps")).content.decode()


def test_a_gap_bears_the_first_question_that_one_may_read(
    page: Client, gap: KnowledgeGap, closed_gap: KnowledgeGap
) -> None:
    page.post(reverse("gap_merge", args=[gap.pk]), {"into": closed_gap.pk})
    address = reverse("gap", args=[closed_gap.pk])
    shown = page.get(address).content.decode()
    assert "merger" not in shown
    assert f"<h1>{QUESTION}</h1>" in shown
    page.post(reverse("gap_edit", args=[closed_gap.pk]), {"title": QUESTION, "note": "Soon"})
    closed_gap.refresh_from_db()
    assert (closed_gap.title, closed_gap.note) == ("Is the merger on Friday?", "Soon")

    hidden = closed_gap.questions.get(text=closed_gap.title)
    assert page.post(reverse("gap_split", args=[hidden.pk])).status_code == 404
    assert page.post(reverse("gap_split", args=[987_654_321])).status_code == 404
    assert KnowledgeGap.objects.count() == 1


def test_the_list_of_gaps_names_curators_by_their_groups(
    page: Client, gap: KnowledgeGap, collection: Collection
) -> None:
    guides = Group.objects.create(name="Guides")
    for name, is_active in (("gwen", True), ("gone", False)):
        User.objects.create_user(name, is_active=is_active).groups.add(guides)
    Membership.objects.create(collection=collection, group=guides, role="curator")

    (row,) = page.get(reverse("gaps")).context["rows"]

    assert [user.username for user in row.could_answer] == ["alice", "gwen"]
    people = page.get(reverse("gap", args=[gap.pk])).context["people"]
    assert {p.user.username for p in people if p.is_curator} == {"alice", "gwen"}


def test_a_later_document_is_suggested(
    page: Client, gap: KnowledgeGap, add_document: AddDocument
) -> None:
    assert b"seems to answer" not in page.get(reverse("gap", args=[gap.pk])).content
    add_document("new.md", "# When the glacier melts\n\nThe glacier does melt in June.\n")

    assert b"seems to answer" in page.get(reverse("gap", args=[gap.pk])).content
    assert b"New documents" in page.get(reverse("gaps")).content


def test_drafting_is_started_followed_stopped_and_goes_on(
    page: Client, dataset: Dataset, ice: Document
) -> None:
    address = reverse("draft", args=[dataset.pk])
    assert b"No model server is configured" in page.get(address).content
    fields = {
        "wanted": 3, "styles": ["factual"], "collections": [dataset.collection_id],
        "unused_first": "on", "distractors": 0, "abstentions": 0,
    }  # fmt: skip
    assert page.post(address, fields)["Location"] == address
    run = dataset.draftings.get()
    assert run.choice["styles"] == ["factual"]
    state = reverse("drafting_state", args=[run.pk])
    assert b"Waits for a worker" in page.get(state).content
    page.post(reverse("drafting_stop", args=[run.pk]))
    assert b"Stopped" in page.get(state).content
    page.post(reverse("drafting_go_on", args=[run.pk]))
    assert b"Waits for a worker" in page.get(state).content


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"wanted": 0}, b"greater than or equal to 1"),
        ({"styles": []}, b"required"),
        ({"styles": ["comparison"]}, b"Select a valid choice"),
        ({"abstentions": 80}, b"more than 100 percent"),
        ({"documents": "nowhere"}, b"No document of these collections"),
    ],
)
def test_a_wrong_choice_is_said(
    page: Client, dataset: Dataset, ice: Document, change: dict[str, object], error: bytes
) -> None:
    fields = {
        "wanted": 3, "styles": ["factual"], "collections": [dataset.collection_id],
        "distractors": 30, "abstentions": 0,
    }  # fmt: skip
    answer_ = page.post(reverse("draft", args=[dataset.pk]), fields | change)
    assert error in answer_.content
    assert not dataset.draftings.exists()


def test_a_foreign_collection_is_no_choice(page: Client, dataset: Dataset, ice: Document) -> None:
    closed = Collection.objects.create(name="Closed")
    fields = {"wanted": 3, "styles": ["factual"], "collections": [closed.pk],
              "distractors": 0, "abstentions": 0}  # fmt: skip
    page.post(reverse("draft", args=[dataset.pk]), fields)
    assert not dataset.draftings.exists()


def test_readers_and_strangers_find_nothing(
    client: Client, page: Client, gap: KnowledgeGap, rated: Rated, dataset: Dataset,
    alice: User, bob: User, charlie: User,
) -> None:  # fmt: skip
    from finetune import drafting
    from finetune.drafts import Style

    item = rated()
    run = drafting.start(dataset, alice, wanted=1, choice=drafting.Choice((Style.FACTUAL,)))
    ids = {
        "triage_item": item.pk, "triage_sort": item.pk, "gap": gap.pk, "gap_edit": gap.pk,
        "gap_close": gap.pk, "gap_merge": gap.pk, "gap_split": gap.questions.get().pk,
        "draft": dataset.pk, "drafting_state": run.pk, "drafting_stop": run.pk,
        "drafting_go_on": run.pk,
    }  # fmt: skip
    for person in (bob, charlie):
        client.force_login(person)
        for name, pk in ids.items():
            for method in ("get", "post"):
                foreign = getattr(client, method)(reverse(name, args=[pk]))
                missing = getattr(client, method)(reverse(name, args=[987_654_321]))
                assert foreign.status_code in (404, 405), (person, name, method)
                assert (foreign.status_code, foreign.content) == (
                    missing.status_code,
                    missing.content,
                )
        for name in ("triage", "gaps"):
            listed = client.get(reverse(name))
            assert listed.status_code == 200
            assert QUESTION.encode() not in listed.content
    client.logout()
    for name in [*ids, "triage", "gaps"]:
        args = [ids[name]] if name in ids else []
        assert client.get(reverse(name, args=args)).status_code == 302
