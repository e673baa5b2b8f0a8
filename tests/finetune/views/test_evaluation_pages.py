"""The pages of evaluations and the arena: for whom they are, and what they say."""

import pytest
from django.test import Client
from django.urls import reverse

from finetune.models import Adapter, ArenaVote, Dataset, Evaluation
from kb.models import Collection, Job, User
from tests.finetune.answered import adapter_of, answered

pytestmark = pytest.mark.django_db


@pytest.fixture
def adapter(dataset: Dataset) -> Adapter:
    return adapter_of(dataset)


def text(client: Client, name: str, pk: int) -> str:
    answer = client.get(reverse(name, args=[pk]))
    assert answer.status_code == 200
    return answer.content.decode()


def test_an_evaluation_is_started_followed_and_read(
    client: Client, alice: User, adapter: Adapter
) -> None:
    client.force_login(alice)
    assert "Evaluate" in text(client, "adapter", adapter.pk)
    answer = client.post(reverse("adapter_evaluate", args=[adapter.pk]))
    made = Evaluation.objects.get()
    assert answer["Location"] == reverse("evaluation", args=[made.pk])
    assert "Waits for the agent" in text(client, "evaluation", made.pk)
    Job.objects.filter(pk=made.job_id).update(state="failed", error="The base is not there.")
    assert "The base is not there." in text(client, "evaluation", made.pk)


def test_the_gate_the_cells_and_the_answers_are_shown(
    client: Client, alice: User, adapter: Adapter
) -> None:
    client.force_login(alice)
    page = text(client, "evaluation", answered(adapter).pk)
    assert "Passed. This adapter may be activated." in page
    assert "Token F1 with sources changed by +" in page
    assert page.count('class="bar b3"') >= 8
    assert "100.0%" in page
    assert "&lt;b&gt;Nobody&lt;/b&gt; knows" in page
    assert "No model server is set up" in page
    assert "Passed" in text(client, "adapter", adapter.pk)

    page = text(client, "evaluation", answered(adapter, better=False, obeys=1).pk)
    assert "Not passed." in page
    assert "Worse" in page
    assert "in 1 of 12 cases, the base in 0; none more is allowed." in page


def test_a_reader_votes_without_knowing_and_is_told_afterwards(
    client: Client, bob: User, adapter: Adapter
) -> None:
    answered(adapter)
    client.force_login(bob)
    page = text(client, "arena", adapter.pk)
    for key in "1203":
        assert f'data-key="{key}"' in page
    assert "So far" not in page
    shown = ArenaVote.objects.get()
    side = "left" if shown.adapter_is_left else "right"
    address = reverse("arena", args=[adapter.pk])
    answer = client.post(address, {"vote": shown.pk, "verdict": side})
    page = answer.content.decode()
    assert "You preferred the adapter." in page
    assert "1 for the adapter, 0 for the base" in page
    again = client.post(address, {"vote": shown.pk, "verdict": side})
    assert again.status_code == 404


def test_who_may_not_read_every_source_gets_what_a_missing_id_gets(
    client: Client, bob: User, charlie: User, alice: User, adapter: Adapter
) -> None:
    made = answered(adapter)
    pages = {"evaluation": made.pk, "arena": adapter.pk, "adapter_evaluate": adapter.pk}

    def statuses(user: User) -> dict[str, int]:
        client.force_login(user)
        return {
            name: (client.post if name == "adapter_evaluate" else client.get)(
                reverse(name, args=[pk])
            ).status_code
            for name, pk in pages.items()
        }

    assert set(statuses(charlie).values()) == {404}
    # A reader is served by the adapter and votes on it, and does not curate.
    assert statuses(bob) == {"evaluation": 404, "arena": 200, "adapter_evaluate": 404}
    closed = Collection.objects.create(name="Closed")
    adapter.audience.add(closed)
    Adapter.objects.filter(pk=adapter.pk).update(audience_size=2)
    assert set(statuses(alice).values()) == {404}
