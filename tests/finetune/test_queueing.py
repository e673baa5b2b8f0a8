"""Which pair comes next: what reviewers change most, and the page can say why."""

from collections.abc import Callable
from typing import Any

import pytest

from finetune import curation, queueing
from finetune.models import Dataset, InstructionPair, PairSource
from kb.models import Conversation, Feedback, Message, User

pytestmark = pytest.mark.django_db
MakePair = Callable[..., InstructionPair]


@pytest.fixture
def make(dataset: Dataset) -> MakePair:
    """Return a function that writes a pair: fields; `document`, `score` make a source."""

    def make(text: str, *, document: int = 0, score: float = 0, **fields: Any) -> InstructionPair:
        pair = InstructionPair.objects.create(
            dataset=dataset, collection=dataset.collection, instruction=text, output="Yes.",
            content_hash=text, **{"origin": "typed", **fields},
        )  # fmt: skip
        if document:
            PairSource.objects.create(
                pair=pair, marker=1, collection=dataset.collection, document_key=document,
                document_name="a", title="A", start=0, end=1, text="a", score=score,
            )  # fmt: skip
        return pair

    return make


def signals(dataset: Dataset) -> dict[str, list[str]]:
    queueing.refresh(dataset)
    return dict(dataset.pairs.values_list("instruction", "signals"))


def test_each_sign_of_trouble_is_seen(dataset: Dataset, make: MakePair, alice: User) -> None:
    conversation = Conversation.objects.create(user=alice)
    answer = Message.objects.create(conversation=conversation, role="assistant", text="No.")
    Feedback.objects.create(message=answer, user=alice, value=-1)
    make("plain")
    make("disputed", is_disputed=True)
    make("stale", state="stale")
    make("rated", origin="answer", message=answer)
    make("absent", origin="abstention")
    make("flagged", flags=["secret"])
    make("approved", document=1, score=0.9, state="approved")
    make("covered", document=1, score=0.9)
    make("weak", document=1, score=0.1)
    make("uncovered", document=2, score=0.9)
    assert signals(dataset) == {
        "plain": [],
        "disputed": ["disputed"],
        "stale": ["stale"],
        "rated": ["rated_down"],
        "absent": ["no_answer"],
        "flagged": ["flagged"],
        "approved": [],
        "covered": [],
        "weak": ["weak_match"],
        "uncovered": ["uncovered"],
    }
    order = dataset.pairs.filter(state__in=["suggested", "stale"]).order_by("-priority", "pk")
    assert list(order.values_list("instruction", flat=True)) == [
        "disputed", "stale", "rated", "absent", "weak", "uncovered", "flagged", "plain", "covered",
    ]  # fmt: skip


def test_a_guess_gives_way_to_what_people_did() -> None:
    assert queueing.weight("flagged", 0, 0) == pytest.approx(0.4)
    assert queueing.weight("flagged", 10, 0) == pytest.approx(0.2)
    assert queueing.weight("flagged", 90, 90) == pytest.approx(0.94)


def test_the_order_learns_from_what_reviewers_change(
    dataset: Dataset, make: MakePair, alice: User
) -> None:
    for number in range(12):
        pair = make(f"absent {number}", origin="abstention", signals=["no_answer"])
        curation.approve(pair, alice)
        curation.reject(make(f"flagged {number}", signals=["flagged"]), alice, "wrong")
    absent, flagged = make("absent", origin="abstention"), make("flagged", flags=["long"])
    queueing.refresh(dataset)
    assert curation.claim_next(dataset, alice) == flagged
    dataset.refresh_from_db()
    flagged.refresh_from_db()
    (reason,) = queueing.reasons(flagged, dataset.queue)
    assert reason.experience == "12 of 12 such pairs were edited or rejected here."
    assert queueing.why(flagged, dataset.queue) == "It carries a flag."
    assert curation.claim_next(dataset, alice) == absent


def test_only_what_changed_is_ordered_again(dataset: Dataset, make: MakePair, alice: User) -> None:
    pair = make("flagged", flags=["long"])
    watch = queueing.Watch()
    assert (watch.look(), watch.look()) == (1, 0)
    curation.approve(pair, alice)
    assert watch.look() == 1
