"""Pairs that say the same are found and decided about once."""

import json
from pathlib import Path
from typing import Any

import pytest

from finetune import duplicates, quality
from finetune.duplicates import DecisionRefused
from finetune.models import (
    AuditEvent,
    Dataset,
    DuplicateCluster,
    InstructionPair,
    PairSource,
    PairVector,
)
from kb.models import Collection, Job, User

pytestmark = pytest.mark.django_db
Write = Any
ANSWER = (
    "The glacier of the valley loses most of its ice in August, when the days are warm and the"
    " snow of the last winter is gone from its tongue."
)
# The hashing embedder of the tests counts words, whatever their order.
WORDS = ("glacier", "ice", "August", "winter", "snow", "tongue", "valley", "warm", "days", "melts")


@pytest.fixture
def write(dataset: Dataset) -> Write:
    def write(instruction: str, output: str = ANSWER, **fields: Any) -> InstructionPair:
        fields = {"dataset": dataset, "origin": "typed", **fields}
        fields.setdefault("collection", fields["dataset"].collection)
        measured = quality.measure(instruction=instruction, output=output)
        columns = {name: getattr(measured, name) for name in measured.__slots__}
        return InstructionPair.objects.create(
            instruction=instruction, output=output, **columns | fields
        )

    return write


def clean(dataset: Dataset, user: User | None) -> list[DuplicateCluster]:
    cleaning = duplicates.start(dataset, user)
    job = Job.objects.claim(Job.Kind.CLEAN)
    assert job is not None
    duplicates.clean(job)
    cleaning.refresh_from_db()
    assert cleaning.job.state == Job.State.DONE
    return list(DuplicateCluster.objects.filter(dataset=dataset).order_by("kind", "pk"))


def members(cluster: DuplicateCluster) -> list[int]:
    return list(cluster.members.order_by("position").values_list("pair_id", flat=True))


def test_the_same_words_are_exact_duplicates(dataset: Dataset, alice: User, write: Write) -> None:
    one = write("When does the glacier melt?", "In August.")
    two = write("When  does the glacier melt?", "In August. ")
    write("Who is there?", "Nobody at all came by.")
    [cluster] = clean(dataset, alice)
    assert (cluster.kind, members(cluster)) == ("exact", [one.pk, two.pk])
    assert cluster.size == 2


def test_nearly_the_same_words_are_near_duplicates(
    dataset: Dataset, alice: User, write: Write
) -> None:
    one = write("When does the glacier melt?")
    two = write("When does the glacier melt?", ANSWER.replace("valley", "mountain"))
    [cluster] = clean(dataset, alice)
    assert (cluster.kind, members(cluster)) == ("near", [one.pk, two.pk])
    assert 0.6 <= cluster.members.get(position=1).similarity < 1


def test_the_same_meaning_in_other_order_is_found_by_vectors(
    dataset: Dataset, alice: User, write: Write
) -> None:
    one = write("Which words belong together?", " ".join(WORDS))
    two = write("Together belong which words?", " ".join(reversed(WORDS)))
    [cluster] = clean(dataset, alice)
    assert (cluster.kind, members(cluster)) == ("meaning", [one.pk, two.pk])
    assert PairVector.objects.count() == 2


def test_beyond_a_number_pairs_are_not_compared_by_meaning(
    dataset: Dataset, alice: User, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "MOST_VECTORS", 2)
    for question in ("When?", "Who is it?", "Where are they?"):
        write(question, f"{question} I do not know.")
    clean(dataset, alice)
    counts = dataset.cleanings.get().counts
    assert (counts["meaning_compared"], counts["meaning_left_out"]) == (2, 1)
    assert PairVector.objects.count() == 2
    # What was embedded costs nothing again, so that the next search gets further.
    clean(dataset, alice)
    assert dataset.cleanings.latest("pk").counts["meaning_left_out"] == 0
    assert PairVector.objects.count() == 3


def test_a_large_set_is_compared_with_evaluations_by_meaning_all_the_same(
    dataset: Dataset, alice: User, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "MOST_VECTORS", 4)
    exam = Dataset.objects.create(
        collection=dataset.collection, name="Exam", purpose=Dataset.Purpose.EVALUATION
    )
    mine = write("Which words belong together?", " ".join(WORDS))
    for question in ("When?", "Who is it?", "Where are they?", "Why?", "What for?"):
        write(question, f"{question} I do not know.")
    asked = write("Together belong which words?", " ".join(reversed(WORDS)), dataset=exam)

    [cluster] = clean(dataset, alice)

    assert (cluster.kind, members(cluster)) == ("meaning", [asked.pk, mine.pk])
    assert cluster.touches_evaluation


def test_vectors_are_computed_once_and_again_after_an_edit(
    dataset: Dataset, alice: User, write: Write
) -> None:
    pair, other = write("When?", "In August."), write("Who?", "The two of them.")
    clean(dataset, alice)
    PairVector.objects.update(content_hash=other.content_hash)
    vectors = dict(PairVector.objects.values_list("pk", "vector"))
    PairVector.objects.filter(pair=pair).update(vector=[0.0] * len(vectors[pair.pk]))
    PairVector.objects.filter(pair=other).update(vector=[0.0] * len(vectors[pair.pk]))
    clean(dataset, alice)
    after = dict(PairVector.objects.values_list("pk", "vector"))
    assert any(after[pair.pk]), "an outdated vector is computed again"
    assert not any(after[other.pk]), "one that fits its content is kept"


def test_the_approved_pair_is_the_one_to_keep_then_the_fullest(
    dataset: Dataset, alice: User, write: Write
) -> None:
    short = write("When does the glacier melt?", ANSWER)
    full = write("When does the glacier melt?", ANSWER + " It is so.")
    approved = write("When does the glacier melt?", ANSWER[:-1], state="approved")
    [cluster] = clean(dataset, alice)
    assert members(cluster) == [approved.pk, full.pk, short.pk]


def test_keeping_one_rejects_the_others_and_is_not_asked_again(
    dataset: Dataset, alice: User, write: Write
) -> None:
    one, two = write("When?", "In August."), write("When?", "In August.")
    [cluster] = clean(dataset, alice)
    assert duplicates.keep_one(cluster, alice, two.pk) == 1
    one.refresh_from_db()
    two.refresh_from_db()
    assert (one.state, one.reviewer, two.state) == ("rejected", alice, "suggested")
    assert one.reject_reason == f"Duplicate of pair {two.pk}"
    assert [c.decision for c in clean(dataset, alice)] == ["kept_one"]
    actions = AuditEvent.objects.values_list("action", "subject_id")
    assert {("rejected", one.pk), ("duplicates", cluster.pk)} <= set(actions)


def test_keeping_all_is_remembered_until_another_joins(
    dataset: Dataset, alice: User, write: Write
) -> None:
    write("When?", "In August.")
    write("When?", "In August.")
    duplicates.keep_all(clean(dataset, alice)[0], alice)
    assert [c.decision for c in clean(dataset, alice)] == ["kept_all"]
    write("When?", "In August.")
    assert sorted(c.decision for c in clean(dataset, alice)) == ["kept_all", "open"]


def test_a_decision_is_taken_once_and_can_be_taken_back(
    dataset: Dataset, alice: User, write: Write
) -> None:
    one, two = write("When?", "In August."), write("When?", "In August.")
    [cluster] = clean(dataset, alice)
    duplicates.keep_one(cluster, alice)
    with pytest.raises(DecisionRefused, match="in the meantime"):
        duplicates.keep_all(cluster, alice)
    duplicates.ask_again(cluster, alice)
    two.refresh_from_db()
    cluster.refresh_from_db()
    assert (two.state, two.reject_reason, cluster.decision) == ("suggested", "", "open")
    assert one.state == "suggested"


def test_clusters_that_are_none_any_more_go(dataset: Dataset, alice: User, write: Write) -> None:
    write("When?", "In August.")
    two = write("When?", "In August.")
    assert len(clean(dataset, alice)) == 1
    two.delete()
    assert clean(dataset, alice) == []


def test_rejected_pairs_are_no_duplicates(dataset: Dataset, alice: User, write: Write) -> None:
    write("When?", "In August.")
    write("When?", "In August.", state="rejected")
    assert clean(dataset, alice) == []


def test_other_data_sets_count_only_where_the_person_may_see_them(
    dataset: Dataset, alice: User, bob: User, write: Write
) -> None:
    mine = write("When?", "In August.")
    closed = Collection.objects.create(name="Closed")
    write("When?", "In August.", dataset=Dataset.objects.create(collection=closed, name="C"))
    assert clean(dataset, alice) == []
    open_ = Dataset.objects.create(collection=dataset.collection, name="Other")
    other = write("When?", "In August.", dataset=open_)
    [cluster] = clean(dataset, alice)
    assert (cluster.crosses, sorted(members(cluster))) == (True, [mine.pk, other.pk])
    # A source that she may not read hides the pair, and the cluster with it.
    PairSource.objects.create(
        pair=other, marker=1, collection=closed, document_name="a", document_key=1, title="A",
        start=0, end=1, text="a",
    )  # fmt: skip
    assert not DuplicateCluster.objects.visible_to(alice)
    with pytest.raises(DecisionRefused, match="not there"):
        duplicates.keep_one(cluster, alice)
    assert not DuplicateCluster.objects.visible_to(bob)


def test_what_an_evaluation_asks_is_kept_and_the_training_pair_goes(
    dataset: Dataset, alice: User, write: Write
) -> None:
    exam = Dataset.objects.create(
        collection=dataset.collection, name="Exam", purpose=Dataset.Purpose.EVALUATION
    )
    approved = write("When?", "In August.", state="approved")
    asked = write("When?", "In August.", dataset=exam)
    [cluster] = clean(dataset, alice)
    assert cluster.touches_evaluation
    assert members(cluster) == [asked.pk, approved.pk]
    duplicates.keep_one(cluster, alice, approved.pk)
    asked.refresh_from_db()
    assert asked.state == "suggested"


def test_a_second_start_gives_the_search_that_waits(dataset: Dataset, alice: User) -> None:
    assert duplicates.start(dataset, alice) == duplicates.start(dataset, alice)


def test_an_embedder_that_is_away_puts_the_search_back(
    dataset: Dataset, alice: User, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kb.backends import get_backend
    from kb.embedders import EmbeddingError

    def away(texts: list[str]) -> None:
        raise EmbeddingError("The embedding service is away.")

    write("When?", "In August.")
    write("Who?", "They did.")
    monkeypatch.setattr(get_backend("EMBEDDER"), "embed_passages", away)
    cleaning = duplicates.start(dataset, alice)
    job = Job.objects.claim(Job.Kind.CLEAN)
    assert job is not None
    duplicates.clean(job)
    cleaning.job.refresh_from_db()
    assert (cleaning.job.state, cleaning.job.error) == ("waiting", "The embedding service is away.")


@pytest.mark.data
@pytest.mark.parametrize(("name", "expected"), [("alpaca_en_demo", 14), ("alpaca_zh_demo", 8)])
def test_the_exact_duplicates_of_real_sets_are_found(
    name: str, expected: int, shared_data: Path
) -> None:
    path = shared_data / "instructions" / "llamafactory" / f"{name}.json"
    hashes = [quality.content_hash(**row) for row in json.loads(path.read_text("utf-8"))]
    assert len(hashes) - len(set(hashes)) == expected
