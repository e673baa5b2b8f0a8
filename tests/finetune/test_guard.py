"""An adapter that makes answers worse is stopped; chance alone stops none."""

import random
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from finetune import activation, guard
from finetune.guard import Answers, Comparison, verdict
from finetune.models import Activation, Adapter, AuditEvent, Dataset
from kb.backends import get_backend
from kb.generators.chat_completions import AWAY
from kb.models import Collection, Message, ModelDeployment, User
from tests.finetune.activating import answers, deployed, make_adapter, speaker

DAY = timedelta(days=1)


def rated(bad: int, total: int) -> Answers:
    return Answers(answered=total, failed=0, rated=total, bad=bad)


# --- The verdict ---------------------------------------------------------------------------------


def test_a_clear_fall_is_a_verdict_with_its_numbers() -> None:
    said = verdict(Comparison(before=rated(10, 100), after=rated(20, 40)))
    assert said.startswith("20 of 40 answers rated wrong (50%")
    assert "10 of 100" in said


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (rated(10, 100), rated(9, 9)),  # too few
        (rated(10, 100), rated(8, 40)),  # may be chance
        (rated(50, 100), rated(5, 40)),  # better
        (rated(20_000, 100_000), rated(22_000, 100_000)),  # sure, but small
        (rated(0, 0), rated(20, 40)),  # nothing to compare with, no clear majority
    ],
)
def test_what_is_no_verdict(before: Answers, after: Answers) -> None:
    assert verdict(Comparison(before, after)) == ""


def test_without_a_before_a_clear_majority_stops() -> None:
    assert "too few before" in verdict(Comparison(rated(0, 0), rated(36, 40)))


def test_failed_answers_count_as_well() -> None:
    before, after = Answers(200, 2, 0, 0), Answers(20, 15, 0, 0)
    assert verdict(Comparison(before, after)).startswith("15 of 20 answers failed")


def test_looking_after_every_rating_seldom_stops_an_equal_one() -> None:
    """Of 300 adapters that are as good as before, looked at 190 times each."""
    rng, stopped = random.Random(7), 0
    for _ in range(300):
        before = rated(sum(rng.random() < 0.2 for _ in range(200)), 200)
        bad = 0
        for total in range(1, 201):
            bad += rng.random() < 0.2
            if verdict(Comparison(before, rated(bad, total))):
                stopped += 1
                break
    assert stopped <= 0.03 * 300


# --- The rows ------------------------------------------------------------------------------------


@pytest.fixture
def generated(away: None) -> str:
    return get_backend("GENERATOR").label


def rate(messages: list[Message], bad: int) -> None:
    for at, message in enumerate(messages):
        message.rate(message.conversation.user, -1 if at < bad else 1)


@pytest.mark.django_db
def test_a_worse_adapter_is_stopped_and_what_was_before_serves_again(
    adapter: Adapter, alice: User, dataset: Dataset, tmp_path: Path, generated: str
) -> None:
    good = deployed(adapter, alice, deployed_at=timezone.now() - 2 * DAY)
    early = {"label": generated, "created_at": timezone.now() - 2 * DAY}
    rate(answers(alice, 30, deployment=good.deployment, **early), bad=3)
    worse = make_adapter(dataset, "glacier-v2-0000000b", data_dir=tmp_path)
    bad = deployed(worse, alice, deployed_at=timezone.now() - DAY)
    heard = answers(alice, 20, label=generated, deployment=bad.deployment)
    answers(alice, 5, label="Extractive", deployment=None)
    rate(heard[:9], bad=9)
    assert guard.look() == 0, "nine ratings are too few"
    rate(heard, bad=15)

    assert guard.look() == 1

    bad.refresh_from_db()
    assert bad.state == Activation.State.STOPPED
    assert "15 of 20 answers rated wrong" in bad.error
    assert speaker(alice) == adapter.name
    newest = ModelDeployment.objects.order_by("-pk")[0]
    assert (newest.created_by, newest.reason) == (None, bad.error)
    assert AuditEvent.objects.get(action="stopped").detail["because"] == bad.error
    assert guard.look() == 0


@pytest.mark.django_db
def test_a_trial_is_compared_with_the_others_at_the_same_time(
    adapter: Adapter, alice: User, generated: str
) -> None:
    trial = deployed(adapter, alice, share=0.2, deployed_at=timezone.now() - DAY)
    rate(answers(alice, 20, label=generated, deployment=trial.deployment), bad=12)
    rate(answers(alice, 40, label=generated, deployment=None), bad=4)

    found = guard.compare(trial)
    assert (found.before.rated, found.after.rated) == (40, 20)
    assert guard.look() == 1
    assert speaker(alice) == ""


@pytest.mark.django_db
def test_the_share_of_bad_ratings_counts_answers_once(alice: User, bob: User) -> None:
    [one] = answers(alice, 1, label="x", deployment=None)
    one.rate(alice, -1)
    one.rate(bob, 1)
    answers(alice, 1, label="x", deployment=None, state="failed")
    answers(alice, 1, label="x", deployment=None, state="streaming")
    counted = guard.count(Message.objects.all())
    assert counted == Answers(answered=2, failed=1, rated=2, bad=1)


@pytest.mark.django_db
def test_an_adapter_is_not_stopped_for_a_server_that_was_away(
    adapter: Adapter, alice: User, generated: str
) -> None:
    standing = deployed(adapter, alice, deployed_at=timezone.now() - DAY)
    asked = {"label": generated, "deployment": standing.deployment, "state": "failed"}
    answers(alice, 30, label=generated, deployment=None, created_at=timezone.now() - 2 * DAY)
    for sentence in AWAY:
        answers(alice, 10, error=sentence, **asked)
    assert guard.look() == 0
    answers(alice, 10, error="The model server failed while it was working.", **asked)
    assert guard.look() == 1


@pytest.mark.django_db
def test_taking_back_twice_changes_nothing_the_second_time(
    adapter: Adapter, alice: User, generated: str
) -> None:
    standing = deployed(adapter, alice)
    activation.take_back(standing, alice, state="rolled_back", reason="")
    rows = ModelDeployment.objects.count()
    with pytest.raises(activation.ActivationRefused):
        activation.take_back(standing, None, state="stopped", reason="")
    assert ModelDeployment.objects.count() == rows


@pytest.mark.django_db
def test_only_what_some_reader_reaches_speaks(
    adapter: Adapter, dataset: Dataset, alice: User, tmp_path: Path, generated: str
) -> None:
    secret = Collection.objects.create(name="Secret", created_by=alice)
    narrow = make_adapter(dataset, "glacier-v2-0000000b", secret, data_dir=tmp_path)
    deployed(adapter, alice)
    deployed(narrow, alice)
    assert activation.speaking_names() == {adapter.name, narrow.name}
    trial = make_adapter(dataset, "glacier-v3-0000000c", data_dir=tmp_path)
    deployed(trial, alice, share=0.5)
    assert activation.speaking_names() == {adapter.name, narrow.name, trial.name}
    whole = make_adapter(dataset, "glacier-v4-0000000d", data_dir=tmp_path)
    deployed(whole, alice)
    assert activation.speaking_names() == {whole.name}, "it takes all whom the others could answer"
    secret.delete()
    assert [layer.adapter_name for layer in activation.chain("tgi")][-1] == adapter.name
    assert activation.speaking_names() == {whole.name}
    ModelDeployment.objects.create(base_model="tgi")
    assert activation.speaking_names() == set()
