"""Pairs whose passage changed, went away, or may be read by fewer people."""

import pytest
from django.contrib.auth.models import Group

from finetune import curation, staleness
from finetune.models import AuditEvent, Dataset, DatasetSnapshot, InstructionPair, SnapshotRow
from finetune.staleness import Watch, find_text, is_narrower
from kb.models import Chunk, Collection, Document, Job, User
from tests.conftest import AddDocument, work_off

pytestmark = pytest.mark.django_db
TEXT = (
    "# Ice\n\nThe glacier melts in August. The river below it rises then.\n\n"
    "# Keeping\n\nThe vault is kept by the chapter. It opens at nine in the morning.\n"
)


@pytest.fixture
def document(add_document: AddDocument) -> Document:
    return add_document("ice.md", TEXT)


def pair_about(document: Document, words: str, dataset: Dataset, user: User) -> InstructionPair:
    chunk = Chunk.objects.select_related("document", "version").get(
        document=document, text__contains=words
    )
    return curation.create_pair(
        user, dataset, origin="typed",
        content={"instruction": "When?", "output": "In August [1]."},
        sources=[curation.source_of_chunk(chunk, 1)],
    )  # fmt: skip


@pytest.fixture
def approved(document: Document, dataset: Dataset, alice: User) -> InstructionPair:
    return curation.approve(pair_about(document, "glacier", dataset, alice), alice)


def replace(add_document: AddDocument, text: str) -> None:
    add_document("ice.md", text)


def test_a_pair_whose_passage_changed_goes_stale_and_says_so(
    approved: InstructionPair, add_document: AddDocument, alice: User
) -> None:
    watch = Watch()
    assert watch.look() == 0
    replace(add_document, TEXT.replace("in August", "in late September"))
    assert watch.look() == 1
    approved.refresh_from_db()
    assert approved.state == "stale"
    assert "was changed" in approved.stale_reason
    assert watch.look() == 0
    event = AuditEvent.objects.get(action="stale")
    assert (event.user, event.subject_id) == (None, approved.pk)
    source = approved.sources.get()
    assert "in August" in source.text
    found = staleness.present_text(source)
    assert found is not None
    version, (start, end) = found
    assert version.number == 2
    assert "melts in late September" in version.text[start:end]
    assert "vault" not in version.text[start:end]


def test_approving_a_stale_pair_takes_the_new_passage_and_undo_the_old_one(
    approved: InstructionPair, add_document: AddDocument, alice: User
) -> None:
    replace(add_document, TEXT.replace("in August", "in late September"))
    watch = Watch()
    watch.look()
    again = curation.approve(approved, alice, content={"output": "In late September [1]."})
    assert (again.state, again.stale_reason) == ("approved", "")
    source = again.sources.get()
    assert (source.version_number, source.standing) == (2, "stands")
    assert "late September" in source.text
    assert watch.look() == 0
    taken_back = curation.undo(alice, again.dataset)
    assert taken_back is not None
    assert (taken_back.state, taken_back.output) == ("stale", "In August [1].")
    assert "was changed" in taken_back.stale_reason
    assert "in August" in taken_back.sources.get().text


def test_a_pair_whose_passage_only_moved_stays_and_follows(
    approved: InstructionPair, add_document: AddDocument
) -> None:
    replace(add_document, "# Preface\n\nNew words at the start.\n\n" + TEXT)
    assert Watch().look() == 0
    source = approved.sources.get()
    assert (source.version_number, source.standing) == (2, "stands")
    assert source.version is not None
    assert source.version.text[source.start : source.end] == source.text


def test_a_change_elsewhere_leaves_the_pair_alone(
    approved: InstructionPair, add_document: AddDocument
) -> None:
    replace(add_document, TEXT.replace("at nine", "at ten"))
    assert Watch().look() == 0
    approved.refresh_from_db()
    assert approved.state == "approved"


def test_a_suggested_pair_is_flagged_and_not_stale(
    document: Document, dataset: Dataset, alice: User, add_document: AddDocument
) -> None:
    suggested = pair_about(document, "glacier", dataset, alice)
    replace(add_document, TEXT.replace("in August", "in late September"))
    assert Watch().look() == 0
    suggested.refresh_from_db()
    assert suggested.state == "suggested"
    assert suggested.sources.get().standing == "changed"
    assert "was changed" in staleness.reason_of(suggested)


def test_a_deleted_document_names_the_snapshots_that_used_it(
    approved: InstructionPair, document: Document, alice: User
) -> None:
    snapshot = DatasetSnapshot.objects.create(
        dataset=approved.dataset, number=3, job=Job.objects.create(kind=Job.Kind.FREEZE)
    )
    SnapshotRow.objects.create(
        snapshot=snapshot, position=1, split="train", pair=approved, content_hash="", line="{}",
        token_count=1,
    )  # fmt: skip
    document.remove()
    watch = Watch()
    assert watch.look() == 1
    approved.refresh_from_db()
    assert approved.stale_reason == (
        "“Ice” was deleted. Snapshot “Glaciers” #3 was frozen with it."
    )
    assert AuditEvent.objects.get(action="stale").detail["snapshots"] == [["Glaciers", 3]]
    # Who approves it all the same has seen that; it does not go stale again.
    assert curation.approve(approved, alice).state == "approved"
    assert watch.look() == 0


def test_a_narrower_audience_makes_a_pair_stale(
    document: Document, dataset: Dataset, alice: User, bob: User, collection: Collection
) -> None:
    hikers = Group.objects.create(name="Hikers")
    collection.memberships.create(group=hikers, role="reader")
    pair = curation.approve(pair_about(document, "glacier", dataset, alice), alice)
    watch = Watch()
    assert watch.look() == 0
    collection.memberships.filter(group=hikers).delete()
    assert watch.look() == 1
    pair.refresh_from_db()
    assert pair.stale_reason == "Fewer people may read “Ice” than when the pair was approved."
    assert curation.approve(pair, alice).state == "approved"
    assert watch.look() == 0
    collection.grant(User.objects.create_user("dora"), "reader")
    assert watch.look() == 0
    collection.memberships.filter(user=bob).delete()
    assert watch.look() == 1


def test_rejected_pairs_are_left_alone(
    approved: InstructionPair, document: Document, alice: User
) -> None:
    curation.reopen(approved, alice)
    curation.reject(approved, alice, "wrong")
    document.remove()
    assert Watch().look() == 0


def test_who_lost_what() -> None:
    open_, closed = {"public": True, "users": [], "groups": []}, {"public": False, "users": [1], "groups": [2]}  # fmt: skip
    assert is_narrower(closed, open_)
    assert not is_narrower(open_, closed)
    assert not is_narrower(closed, {})
    assert not is_narrower({**closed, "users": [1, 5]}, closed)
    assert is_narrower({**closed, "groups": []}, closed)


def test_a_text_is_found_again_nearest_to_where_it_stood() -> None:
    assert find_text("ice", "ice and ice and ice", near=9) == (8, 11)
    assert find_text("the ice\nmelts", "So the ice  melts.", near=0) == (3, 17)
    assert find_text("the ice melts", "the ice grows", near=0) is None
    assert find_text("", "anything", near=0) is None


def test_a_document_that_is_still_read_changes_nothing(
    approved: InstructionPair, collection: Collection, add_document: AddDocument
) -> None:
    add_document("ice.md", "# Other\n\nAll new.", wait=False)
    assert Watch().look() == 0
    work_off()
    assert Watch().look() == 1
