"""The pages of activations, the loop, erasure and the ledger: for owners, and what is theirs."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from django.utils.html import strip_tags
from pytest_django import Settings

from finetune import activation as journey
from finetune import evaluation, loading
from finetune.models import Activation, Adapter, AuditEvent, Dataset, RetrainRule
from kb.backends import get_backend
from kb.models import Collection, Job, User
from tests.conftest import AddDocument
from tests.finetune.activating import answers, deployed, evaluate, make_adapter, make_run
from tests.finetune.test_snapshots import write_pair

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("away")]


@pytest.fixture
def client_of(client: Client) -> Any:
    def sign_in(user: User) -> Client:
        client.force_login(user)
        return client

    return sign_in


def text(client: Client, view: str, *args: object, **query: Any) -> str:
    answer = client.get(reverse(view, args=args), query)
    assert answer.status_code == 200, answer.status_code
    return answer.content.decode()


# --- Activations ---------------------------------------------------------------------------------


def test_an_owner_asks_for_an_activation_and_follows_it(page: Client, adapter: Adapter) -> None:
    evaluate(adapter)
    shown = text(page, "activate", adapter.pk)
    assert "passed every threshold" in shown
    assert "override_reason" not in shown

    answer = page.post(
        reverse("activate", args=[adapter.pk]), {"share": "25", "reason": "It answers better."}
    )

    made = Activation.objects.get()
    assert answer["Location"] == reverse("activation", args=[made.pk])
    assert (made.share, made.state) == (0.25, "requested")
    assert made.job is not None
    assert made.job.kind == Job.Kind.ACTIVATE
    on_its_way = text(page, "activation", made.pk)
    assert "25%" in on_its_way
    assert 'class="steps"' in on_its_way
    again = page.post(reverse("activate", args=[adapter.pk]), {"share": "25", "reason": "Again."})
    assert again.status_code == 400
    assert "on its way already" in again.content.decode()


def test_an_activation_that_failed_shows_no_step_as_waiting(page: Client, adapter: Adapter) -> None:
    failed = Activation.objects.create(adapter=adapter, state="failed", error="No room is left.")
    shown = text(page, "activation", failed.pk)
    assert "No room is left." in shown
    assert 'class="steps"' not in shown


def test_a_closed_gate_wants_a_reason_of_its_own(page: Client, adapter: Adapter) -> None:
    evaluate(adapter, passed=False)
    assert "Token F1 fell by 12 %." in text(page, "activate", adapter.pk)
    form = {"share": "100", "reason": "It answers better."}
    refused = page.post(reverse("activate", args=[adapter.pk]), form)
    assert refused.status_code == 400
    assert not Activation.objects.exists()
    page.post(reverse("activate", args=[adapter.pk]), {**form, "override_reason": "I judge so."})
    assert Activation.objects.get().override_reason == "I judge so."


def test_an_adapter_outside_the_contract_shows_why_and_no_form(
    page: Client, adapter: Adapter, settings: Settings
) -> None:
    settings.MODEL_SERVER_KIND = "tgi"
    Adapter.objects.update(contract={"own": [], "tgi": ["TGI cannot load DoRA."]})
    shown = text(page, "activate", adapter.pk)
    assert "TGI cannot load DoRA." in shown
    assert "Our own model server can serve it." in shown
    assert 'name="reason"' not in shown


@pytest.mark.parametrize("who", ["bob", "charlie"])
def test_a_foreign_adapter_is_like_a_missing_one(
    who: str, client_of: Any, adapter: Adapter, alice: User, bob: User, charlie: User
) -> None:
    evaluate(adapter)
    standing = deployed(adapter, alice)
    client = client_of({"bob": bob, "charlie": charlie}[who])
    for name, own in (("activate", adapter.pk), ("activation", standing.pk)):
        for pk in (own, 10_000):
            assert client.get(reverse(name, args=[pk])).status_code == 404
    for name in ("activation_approve", "activation_withdraw", "activation_back"):
        for pk in (standing.pk, 10_000):
            assert client.post(reverse(name, args=[pk])).status_code == 404
    for pk in (adapter.pk, 10_000):
        assert client.post(reverse("adapter_retire", args=[pk])).status_code == 404
        form = {"share": "100", "reason": "Mine."}
        assert client.post(reverse("activate", args=[pk]), form).status_code == 404
    standing.refresh_from_db()
    assert standing.state == "deployed"
    listed = text(client, "activations")
    assert (adapter.name in listed) == (who == "bob"), "who is served by it may know its name"
    assert "No adapter of yours" in listed
    assert (adapter.name in text(client, "loop")) is False


def test_another_owner_approves_and_the_asking_one_cannot(
    client_of: Any, adapter: Adapter, alice: User, bob: User, settings: Settings
) -> None:
    settings.SECOND_PERSON_ACTIVATES = True
    evaluate(adapter)
    adapter.run.snapshot.dataset.collection.grant(bob, "owner")
    page = client_of(alice)
    page.post(reverse("activate", args=[adapter.pk]), {"share": "100", "reason": "Better."})
    made = Activation.objects.get()
    assert "Another owner must approve" in text(page, "activation", made.pk)
    page.post(reverse("activation_approve", args=[made.pk]))
    made.refresh_from_db()
    assert made.state == "waiting"

    page = client_of(bob)
    assert "alice asks for this" in text(page, "activation", made.pk)
    page.post(reverse("activation_approve", args=[made.pk]))
    made.refresh_from_db()
    assert (made.state, made.approved_by) == ("requested", bob)


def test_one_click_takes_the_adapter_back(page: Client, adapter: Adapter, alice: User) -> None:
    standing = deployed(adapter, alice)
    assert "The base model alone answers again." in text(page, "activation", standing.pk)
    answer = page.post(reverse("activation_back", args=[standing.pk]), {"reason": "Worse."})
    assert answer["Location"] == reverse("activation", args=[standing.pk])
    standing.refresh_from_db()
    assert standing.state == "rolled_back"
    assert "Rolled back" in text(page, "activations")


@pytest.fixture
def foreign(adapter: Adapter, alice: User, charlie: User, tmp_path: Path) -> Activation:
    """alice's adapter serves above one of charlie's, which she may not see."""
    theirs = Collection.objects.create(name="Theirs", created_by=charlie)
    theirs.grant(charlie, "owner")
    secret = Dataset.objects.create(name="Secret", collection=theirs, created_by=charlie)
    deployed(make_adapter(secret, "merger-v1-0000000b", data_dir=tmp_path), charlie)
    return deployed(adapter, alice)


def test_an_adapter_of_others_serves_below_without_its_name(
    page: Client, foreign: Activation
) -> None:
    shown = text(page, "activation", foreign.pk)
    assert "answers again: An adapter of other collections" in shown
    refused = page.post(reverse("activation_back", args=[foreign.pk]), follow=True)
    assert "An adapter of other collections, which served before, cannot" in (
        refused.content.decode()
    )
    pages = [shown, refused.content.decode(), text(page, "activations"), text(page, "loop")]
    pages.append(text(page, "activate", foreign.adapter.pk))
    assert not [each for each in pages if "merger" in each]
    assert [("of other collections" in each) for each in pages] == [True] * 5


def test_the_base_model_is_said_to_answer_again(
    page: Client, adapter: Adapter, alice: User
) -> None:
    standing = deployed(adapter, alice)
    answer = page.post(reverse("activation_back", args=[standing.pk]), follow=True)
    assert "The base model alone answers again." in answer.content.decode()


def test_the_adapters_page_leads_on(page: Client, adapter: Adapter, alice: User) -> None:
    assert "The gate says no:" in text(page, "adapter", adapter.pk)
    evaluate(adapter)
    assert "Its evaluation passed." in text(page, "adapter", adapter.pk)
    deployed(adapter, alice)
    assert "It serves now." in text(page, "adapter", adapter.pk)


def test_an_owner_unloads_what_answers_nobody_and_says_why(
    page: Client, adapter: Adapter, alice: User, settings: Settings, tmp_path: Path
) -> None:
    settings.MODEL_SERVER_KIND, settings.TGI_SUPERVISOR_DIR = "tgi", str(tmp_path)
    loading.write_state(tmp_path, loading.SupervisorState(revision=9), {})
    evaluate(adapter)
    Adapter.objects.update(is_wanted=True)
    assert 'name="reason"' in text(page, "adapter", adapter.pk)
    page.post(reverse("adapter_retire", args=[adapter.pk]), {"reason": "It is old."})
    told = AuditEvent.objects.get(action="unloaded", subject_id=adapter.pk)
    assert (told.user, told.detail["reason"]) == (alice, "It is old.")
    assert "Unload it" not in text(page, "adapter", adapter.pk)


def logged(client: Client, dataset: Dataset) -> str:
    rows = text(client, "audit", dataset.pk).partition("<tbody>")[2]
    return " ".join(strip_tags(rows.replace("<", " <")).split())


def test_the_log_of_a_data_set_tells_what_became_of_its_adapters(
    client_of: Any,
    foreign: Activation,
    dataset: Dataset,
    alice: User,
    bob: User,
    collection: Collection,
) -> None:
    evaluate(foreign.adapter)
    journey.take_back(foreign, alice, state="rolled_back", reason="It answers worse.")
    told = logged(client_of(alice), dataset)
    assert f"Rolled back Activation {foreign.pk} {foreign.adapter.name} It answers worse." in told
    assert "merger" not in told
    collection.grant(bob, "curator")
    assert "Rolled back" not in logged(client_of(bob), dataset), "only owners follow activations"


# --- The list of adapters ------------------------------------------------------------------------


def listed(client: Client, adapter: Adapter) -> str:
    """Give an adapter's row of the list, without tags."""
    row = text(client, "adapters").partition(f">{adapter.name}</a>")[2].partition("</tr>")[0]
    return " ".join(strip_tags(row.replace("<", " <")).split())


def test_the_list_says_whom_an_adapter_answers_and_what_the_gate_says(
    page: Client, adapter: Adapter, alice: User
) -> None:
    assert listed(page, adapter).startswith("not loaded Not evaluated base")
    waiting = evaluation.start(adapter, alice)
    assert listed(page, adapter).startswith("not loaded Evaluating")
    Job.objects.filter(pk=waiting.job_id).update(state="failed")
    assert listed(page, adapter).startswith("not loaded Not evaluated")
    evaluate(adapter, passed=False)
    assert listed(page, adapter).startswith("not loaded Not passed")
    evaluate(adapter)
    Adapter.objects.update(is_wanted=True, base_revision="0123456789abcdef")
    assert listed(page, adapter).startswith("Loaded answers nobody Passed base 0123456789ab ")
    trial = deployed(adapter, alice, share=0.3)
    assert listed(page, adapter).startswith("Answers 30% of the conversations Passed")
    assert trial.deployment is not None
    trial.deployment.groups.set([Group.objects.create(name=name) for name in ("One", "Two")])
    assert "30% of the conversations, only for One, Two Passed" in listed(page, adapter)
    deployed(adapter, alice)
    assert listed(page, adapter).startswith("Answers all who may read its sources Passed")
    Adapter.objects.update(erasure_note="It learned from “a.md”.")
    assert "Not passed learned what was erased" in listed(page, adapter)


def test_a_retired_adapter_is_listed_as_one(page: Client, adapter: Adapter) -> None:
    Adapter.objects.update(retired_at=timezone.now())
    assert listed(page, adapter).startswith("Retired Not evaluated")


def test_the_list_says_to_a_reader_who_answers_and_to_a_stranger_nothing(
    client_of: Any, foreign: Activation, bob: User, charlie: User
) -> None:
    evaluate(foreign.adapter)
    shown = listed(client_of(bob), foreign.adapter)
    assert shown.startswith("Answers all who may read its sources – base"), (
        "evaluations are not theirs"
    )
    assert "merger" not in text(client_of(bob), "adapters")
    assert foreign.adapter.name not in text(client_of(charlie), "adapters")


def test_the_list_takes_the_same_queries_however_many_adapters(
    page: Client, adapter: Adapter, dataset: Dataset, alice: User, tmp_path: Path,
    django_assert_num_queries: Any,
) -> None:  # fmt: skip
    deployed(adapter, alice)
    with CaptureQueriesContext(connection) as alone:
        text(page, "adapters")
    for number in range(5):
        evaluate(make_adapter(dataset, f"more-v{number}-0000000b", data_dir=tmp_path))
    with django_assert_num_queries(len(alone)):
        text(page, "adapters")


# --- The loop ------------------------------------------------------------------------------------


def next_action(shown: str) -> str:
    station = shown.partition("station is-next")[2]
    return station.partition("</a>")[0].rpartition(">")[2]


def test_each_station_has_its_one_next_action(
    page: Client, dataset: Dataset, alice: User, add_document: AddDocument, tmp_path: Path
) -> None:
    assert next_action(text(page, "loop")) == "Make pairs"
    add_document("glacier.md", "# Glacier\n\nThe glacier melts in August.")
    pair = write_pair(dataset, "When?", "In August.", state="suggested")
    assert next_action(text(page, "loop")) == "Review 1"
    pair.state = "approved"
    pair.save()
    assert next_action(text(page, "loop")) == "Freeze one"
    run = make_run(dataset)
    assert next_action(text(page, "loop")) == "See its pre-flight"
    run.state = "succeeded"
    run.save()
    adapter = make_adapter(dataset, "glacier-v1-0000000a", data_dir=tmp_path)
    assert next_action(text(page, "loop")) == "Evaluate"
    evaluate(adapter)
    assert next_action(text(page, "loop")) == "Activate"
    deployed(adapter, alice)
    shown = text(page, "loop")
    assert "100%" in shown
    assert next_action(shown) == ""


def test_ratings_stand_before_and_with_each_adapter(
    page: Client, adapter: Adapter, alice: User
) -> None:
    label = get_backend("GENERATOR").label
    standing = deployed(adapter, alice)
    before = timezone.now() - timedelta(days=3)
    for message in answers(alice, 10, label=label, deployment=None, created_at=before):
        message.rate(alice, 1)
    for message in answers(alice, 4, label=label, deployment=standing.deployment):
        message.rate(alice, -1)
    shown = text(page, "loop")
    assert "100% of 10, 72%–100%" in shown
    assert "0% of 4, 0%–49%" in shown


def test_who_curates_nothing_sees_no_loop(client_of: Any, adapter: Adapter, bob: User) -> None:
    client = client_of(bob)
    shown = text(client, "loop")
    assert "No loop of yours yet" in shown
    assert 'title="Train"' not in shown


def test_a_rule_is_set_by_owners_and_asks_on_the_loop_page(
    client_of: Any, dataset: Dataset, alice: User, bob: User
) -> None:
    page = client_of(alice)
    form = {
        "is_on": "on",
        "new_pairs": "2",
        "every_days": "0",
        "stale_percent": "",
        "drop_percent": "10",
    }
    assert page.post(reverse("rule", args=[dataset.pk]), form).status_code == 302
    rule = RetrainRule.objects.get()
    assert (rule.new_pairs, rule.stale_share, rule.rating_drop) == (2, 0, 0.1)
    write_pair(dataset, "When?", "In August.")
    write_pair(dataset, "Where?", "In the valley.")
    assert "2 pairs were approved" in text(page, "rule", dataset.pk)
    RetrainRule.objects.update(last_fired_at=timezone.now(), last_reason="2 pairs were approved.")
    assert "asks for a new run" in text(page, "loop")
    dataset.collection.grant(bob, "curator")
    assert client_of(bob).get(reverse("rule", args=[dataset.pk])).status_code == 404


# --- Erasure and ledger --------------------------------------------------------------------------


def test_a_document_is_forgotten_from_a_page(
    page: Client, dataset: Dataset, collection: Collection
) -> None:
    pair = write_pair(dataset, "When?", "In August.", sources=[(collection, 7)])
    assert "Nothing of yours learned from it." in text(
        page, "erasure", kind="document", name="nothing.md"
    )
    shown = text(page, "erasure", kind="document", name="a.md")
    assert "1 pair turns stale." in shown
    page.post(reverse("erasure"), {"kind": "document", "name": "a.md", "reason": "Asked."})
    pair.refresh_from_db()
    assert pair.state == "stale"
    assert "It is kept out." in text(page, "erasure", kind="document", name="a.md")


def test_a_reader_finds_and_forgets_nothing(
    client_of: Any, dataset: Dataset, collection: Collection, bob: User
) -> None:
    pair = write_pair(dataset, "When?", "In August.", sources=[(collection, 7)])
    client = client_of(bob)
    assert "Nothing of yours" in text(client, "erasure", kind="document", name="a.md")
    client.post(reverse("erasure"), {"kind": "document", "name": "a.md"})
    pair.refresh_from_db()
    assert pair.state == "approved"


def test_the_ledger_shows_ones_runs_only(
    client_of: Any, dataset: Dataset, alice: User, bob: User
) -> None:
    make_run(dataset, started_at=timezone.now(), gpu_seconds=5400, energy_wh=450, cost=3.25)
    shown = text(client_of(alice), "ledger")
    assert all(number in shown for number in ("1.50", "0.45", "3.25"))
    assert "Nothing was trained yet" in text(client_of(bob), "ledger")
