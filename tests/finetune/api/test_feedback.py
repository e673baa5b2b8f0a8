import pytest

from finetune import triage
from finetune.models import (
    Dataset,
    InstructionPair,
    KnowledgeGap,
    RetrievalQuestion,
    TriageItem,
)
from kb.models import Collection, Document, Job, User
from kb.prompts import NOT_IN_DOCUMENTS
from tests.conftest import AddDocument
from tests.finetune.rated import QUESTION, answer, ask, rate
from tests.kb.api.client import ApiClient

pytestmark = pytest.mark.django_db
JSON = "application/json"


@pytest.fixture
def ice(add_document: AddDocument) -> Document:
    return add_document(
        "ice.md",
        "# Ice\n\n## Glaciers\n\nThe glacier melts in late summer, and its long tongue"
        " reaches the floor of the valley.\n",
    )


@pytest.fixture
def item(alice: User, ice: Document) -> TriageItem:
    message = answer(ask(alice), "In winter. [1]", ice)
    rate(message, -1, corrected="The glacier melts in late summer.")
    triage.collect()
    return TriageItem.objects.get()


def test_rated_answers_are_listed_read_and_sorted(as_alice: ApiClient, item: TriageItem) -> None:
    listed = as_alice.get("/api/v1/triage/?state=open&signal=corrected").json()
    assert [row["question"] for row in listed["results"]] == [QUESTION]
    assert as_alice.get("/api/v1/triage/?signal=up").json()["count"] == 0
    read = as_alice.get(f"/api/v1/triage/{item.pk}/").json()
    assert (read["answer"], read["guess"]) == ("In winter. [1]", "wrong_answer")
    assert read["passages"][0]["text"].startswith("The glacier melts")

    done = as_alice.post(
        f"/api/v1/triage/{item.pk}/sort/", {"category": "wrong_answer"}, content_type=JSON
    ).json()
    pair = InstructionPair.objects.get()
    assert (done["state"], done["pair"], done["decided_by"]) == ("done", pair.pk, "alice")
    again = as_alice.post(
        f"/api/v1/triage/{item.pk}/sort/", {"category": "dismiss"}, content_type=JSON
    )
    assert (again.status_code, again.json()["code"]) == (409, "not_now")
    assert as_alice.post("/api/v1/triage/undo/").json()["state"] == "open"
    assert as_alice.post("/api/v1/triage/undo/").status_code == 409


def test_the_right_passage_is_kept(as_alice: ApiClient, item: TriageItem, ice: Document) -> None:
    address = f"/api/v1/triage/{item.pk}/sort/"
    assert as_alice.post(address, {"category": "not_found"}, content_type=JSON).status_code == 400
    body = {"category": "not_found", "passage": ice.chunks.get().pk, "pair": True}
    assert as_alice.post(address, body, content_type=JSON).status_code == 200
    listed = as_alice.get("/api/v1/retrieval-questions/").json()["results"]
    assert [row["question"] for row in listed] == [QUESTION]
    assert InstructionPair.objects.count() == 1


def test_questions_are_added_and_deleted(
    as_alice: ApiClient, ice: Document, add_document: AddDocument
) -> None:
    body = {"question": "When?", "passage": ice.chunks.get().pk}
    made = as_alice.post("/api/v1/retrieval-questions/", body, content_type=JSON)
    assert made.status_code == 201
    closed = add_document("c.md", "# C\n\nClosed.\n", to=Collection.objects.create(name="Closed"))
    for passage in (closed.chunks.get().pk, 987_654_321):
        refused = as_alice.post(
            "/api/v1/retrieval-questions/", body | {"passage": passage}, content_type=JSON
        )
        assert refused.status_code == 400
        assert refused.json()["errors"][0]["code"] == "does_not_exist"
    address = f"/api/v1/retrieval-questions/{made.json()['id']}/"
    assert as_alice.delete(address).status_code == 204
    assert not RetrievalQuestion.objects.exists()


@pytest.fixture
def gap(alice: User, ice: Document) -> KnowledgeGap:
    message = answer(ask(alice, "Who pays for the boat?"), NOT_IN_DOCUMENTS, found_nothing=True)
    rate(message, -1)
    triage.collect()
    return triage.list_gap(TriageItem.objects.get(message=message), alice)


def test_a_gap_is_read_changed_closed_and_opened(
    as_alice: ApiClient, gap: KnowledgeGap, add_document: AddDocument
) -> None:
    address = f"/api/v1/gaps/{gap.pk}/"
    read = as_alice.get(address).json()
    assert (read["asked"], read["answered_by"]) == (1, None)
    assert [q["text"] for q in read["questions"]] == ["Who pays for the boat?"]
    assert read["could_answer"][0]["username"] == "alice"
    changed = as_alice.patch(
        address, {"assigned_to": "bob", "note": "Ask."}, content_type=JSON
    ).json()
    assert (changed["state"], changed["assigned_to"]) == ("assigned", "bob")
    nobody = as_alice.patch(address, {"assigned_to": "charlie"}, content_type=JSON)
    assert nobody.status_code == 400
    new = add_document("boat.md", "# The boat\n\nThe ministry pays for the boat.\n")
    assert as_alice.get(address).json()["answered_by"] == new.chunks.get().pk
    closed = as_alice.patch(address, {"is_closed": True}, content_type=JSON).json()
    assert closed["state"] == "closed"
    assert as_alice.get("/api/v1/gaps/?state=open").json()["count"] == 0
    opened = as_alice.patch(address, {"is_closed": False}, content_type=JSON).json()
    assert opened["state"] == "assigned"


def test_gaps_are_merged_and_split(as_alice: ApiClient, gap: KnowledgeGap, alice: User) -> None:
    message = answer(ask(alice, "Which shoes fit ice?"), NOT_IN_DOCUMENTS, found_nothing=True)
    rate(message, -1)
    triage.collect()
    other = triage.list_gap(TriageItem.objects.get(message=message), alice)
    merged = as_alice.post(
        f"/api/v1/gaps/{other.pk}/merge/", {"into": gap.pk}, content_type=JSON
    ).json()
    assert merged["asked"] == 2
    question = merged["questions"][1]["id"]
    made = as_alice.post(f"/api/v1/gap-questions/{question}/split/")
    assert (made.status_code, made.json()["asked"]) == (201, 1)
    assert as_alice.post(f"/api/v1/gap-questions/{question}/split/").status_code == 409


def test_a_gap_keeps_questions_that_one_may_not_read(
    as_alice: ApiClient, gap: KnowledgeGap, alice: User
) -> None:
    closed = Collection.objects.create(name="Closed")
    for question in gap.questions.all():
        question.triage.passage_collections.add(closed)
    for address in (f"/api/v1/gaps/{gap.pk}/", "/api/v1/gaps/"):
        assert "boat" not in as_alice.get(address).content.decode()
    read = as_alice.get(f"/api/v1/gaps/{gap.pk}/").json()
    assert (read["title"], read["asked"], read["questions"]) == ("", 1, [])
    address = f"/api/v1/gap-questions/{gap.questions.get().pk}/split/"
    assert as_alice.post(address).status_code == 404


def test_pairs_are_drafted_stopped_and_resumed(
    as_alice: ApiClient, dataset: Dataset, ice: Document
) -> None:
    address = f"/api/v1/datasets/{dataset.pk}/draftings/"
    started = as_alice.post(
        address, {"wanted": 2, "styles": ["factual"], "documents": [ice.pk]}, content_type=JSON
    )
    assert started.status_code == 202
    run = f"/api/v1/draftings/{started.json()['id']}/"
    assert as_alice.get(run).json()["state"] == "waiting"
    assert as_alice.post(f"{run}stop/").json()["state"] == Job.State.CANCELLED
    assert as_alice.post(f"{run}stop/").status_code == 409
    assert as_alice.post(f"{run}resume/").status_code == 202
    assert as_alice.post(f"{run}resume/").status_code == 409
    assert as_alice.get(address).json()["count"] == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"styles": ["comparison"]}, "styles"),
        ({"collections": [987_654_321]}, "collections"),
        ({"documents": [987_654_321]}, "documents"),
        ({"wanted": 0}, "wanted"),
        ({"distractors": 60, "abstentions": 60}, ""),
    ],
)
def test_a_wrong_choice_is_named(
    as_alice: ApiClient, dataset: Dataset, body: dict[str, object], field: str
) -> None:
    refused = as_alice.post(f"/api/v1/datasets/{dataset.pk}/draftings/", body, content_type=JSON)
    assert refused.status_code == 400
    assert refused.json()["errors"][0]["field"] == field


def test_readers_see_none_of_it(as_bob: ApiClient, item: TriageItem, gap: KnowledgeGap) -> None:
    for path in ("triage", "gaps", "retrieval-questions"):
        assert as_bob.get(f"/api/v1/{path}/").json()["count"] == 0
    assert as_bob.get(f"/api/v1/triage/{item.pk}/").status_code == 404
    assert as_bob.get(f"/api/v1/gaps/{gap.pk}/").status_code == 404
