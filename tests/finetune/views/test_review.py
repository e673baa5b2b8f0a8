"""The review page, request by request; tests/browser has it by keyboard."""

import pytest
from django.test import Client
from django.urls import reverse

from finetune import curation
from finetune.models import Dataset, InstructionPair
from kb.models import Collection, User

pytestmark = pytest.mark.django_db


@pytest.fixture
def curator(client: Client, alice: User) -> Client:
    client.force_login(alice)
    return client


@pytest.fixture
def dora(collection: Collection) -> Client:
    person = User.objects.create_user("dora", "dora@example.org", "x")
    collection.grant(person, "curator")
    client = Client()
    client.force_login(person)
    return client


def another(pair: InstructionPair, text: str) -> InstructionPair:
    return InstructionPair.objects.create(
        dataset=pair.dataset, collection=pair.collection, origin="typed", instruction=text,
        output="Yes.", content_hash=text,
    )  # fmt: skip


def test_two_people_get_two_pairs(
    pair: InstructionPair, dataset: Dataset, curator: Client, dora: Client
) -> None:
    other = another(pair, "How deep?")
    address = reverse("review", args=[dataset.pk])
    got = [client.get(address).context["shown"].pair for client in (curator, dora)]
    assert got == [pair, other]
    assert dora.post(reverse("review_next", args=[dataset.pk])).status_code == 204
    again = curator.get(address, {"pair": pair.pk})
    assert again.context["shown"].pair == pair
    assert dora.get(address, {"pair": pair.pk}).context["shown"] is None


def test_a_judgement_gives_the_progress_and_a_refusal_a_sentence(
    pair: InstructionPair, dataset: Dataset, curator: Client
) -> None:
    address = reverse("review_judge", args=[pair.pk])
    answer = curator.post(
        address, {"verdict": "approve", "output": "In July.\r\nOr so.", "seconds": "7"}
    )
    assert "<strong>1</strong> judged today" in answer.content.decode()
    pair.refresh_from_db()
    assert (pair.state, pair.output) == ("approved", "In July.\nOr so.")
    assert pair.reviews.get().seconds == 7
    refused = curator.post(address, {"verdict": "approve"})
    assert (refused.status_code, refused.content) == (
        409,
        b"This pair was decided in the meantime.",
    )
    assert curator.post(address, {"verdict": "dance"}).status_code == 409


def test_undo_draws_the_pair_again(
    pair: InstructionPair, dataset: Dataset, curator: Client, alice: User
) -> None:
    address = reverse("review_undo", args=[dataset.pk])
    assert curator.post(address).status_code == 204
    curation.reject(pair, alice, "wrong")
    assert "In August." in curator.post(address).content.decode()


def test_a_skipped_pair_goes_to_others(
    pair: InstructionPair, dataset: Dataset, curator: Client, dora: Client
) -> None:
    hold, following = (reverse(name, args=[dataset.pk]) for name in ("review_hold", "review_next"))
    assert curator.post(following).status_code == 200
    assert curator.post(hold, {"action": "skip", "pair": pair.pk}).status_code == 204
    assert curator.post(following).status_code == 204
    assert dora.post(following).status_code == 200
    assert dora.post(hold, {"action": "keep", "pair": pair.pk}).status_code == 204
    assert dora.post(hold, {"action": "release", "pair": pair.pk}).status_code == 204
    assert dora.post(hold, {"action": "dance", "pair": pair.pk}).status_code == 404
    pair.refresh_from_db()
    assert pair.claimed_by is None


def test_who_disagreed_is_shown_without_names(
    pair: InstructionPair, dataset: Dataset, curator: Client, dora: Client, collection: Collection
) -> None:
    Dataset.objects.update(reviews_wanted=2)
    curator.post(reverse("review_judge", args=[pair.pk]), {"verdict": "approve"})
    dora.post(reverse("review_judge", args=[pair.pk]), {"verdict": "reject", "reason": "odd"})
    emil = User.objects.create_user("emil")
    collection.grant(emil, "curator")
    client = Client()
    client.force_login(emil)
    page = client.get(reverse("review", args=[dataset.pk])).content.decode()
    assert "Somebody accepted it." in page
    assert "Somebody rejected it: odd" in page
    assert "dora" not in page


def test_progress_and_log_tell_who_judged_what(
    pair: InstructionPair, dataset: Dataset, curator: Client, dora: Client
) -> None:
    Dataset.objects.update(reviews_wanted=2)
    for number in range(3):
        made = another(pair, f"Question {number}?")
        curator.post(reverse("review_judge", args=[made.pk]), {"verdict": "approve"})
        verdict = "reject" if number else "approve"
        dora.post(reverse("review_judge", args=[made.pk]), {"verdict": verdict, "reason": "odd"})
    page = curator.get(reverse("progress", args=[dataset.pk]))
    assert [(week.name, week.judged, week.rejected) for week in page.context["weeks"]] == [
        ("alice", 3, 0), ("dora", 3, 2),
    ]  # fmt: skip
    (two,) = page.context["twos"]
    # One of three the same, and by chance 1·1/3: nothing beyond it.
    assert (two.common, two.kappa) == (3, 0.0)
    log = curator.get(reverse("audit", args=[dataset.pk]), {"action": "rejected"})
    assert [event.username for event in log.context["rows"]] == ["dora", "dora"]
