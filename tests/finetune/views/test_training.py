"""The pages of runs and adapters."""

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from finetune.models import Adapter, Dataset, DatasetSnapshot, TrainingMetric, TrainingRun
from kb.models import Collection, Job, User

pytestmark = pytest.mark.django_db
REPORT: dict[str, Any] = {
    "rows": {
        "train": {
            "kept": 24, "truncated": 1, "truncated_numbers": [7], "dropped": 1, "masked": 1,
            "dropped_rows": [{"number": 9, "reason": "There is no question."}],
        },
        "validation": {"kept": 4, "truncated": 0, "dropped": 0},
    },
    "steps": 44,
    "example": [{"text": "Which colour?", "is_learned": False}, {"text": "Red.", "is_learned": True}],
    "memory": {
        "weights": 1, "adapter": 1, "gradients_and_optimizer": 1, "activations": 1, "logits": 1,
        "total": 5, "learning": 10, "parameters": 100,
    },
    "tokens": 10**9,
    "memory_on_card": {"parameters": 10**9, "total": 30 * 2**30},
    "contract": {"own": [], "tgi": ["TGI cannot load DoRA."], "vllm": []},
    "tried": {"seconds": 95, "peak_bytes": 10**9},
    "lines": [{"level": "good", "name": "Rows", "sentence": "24 rows to learn from."}],
}  # fmt: skip


@pytest.fixture
def snapshot(dataset: Dataset, collection: Collection) -> DatasetSnapshot:
    made = DatasetSnapshot.objects.create(
        dataset=dataset, number=1, job=Job.objects.create(kind=Job.Kind.FREEZE), state="ready"
    )
    made.audience.add(collection)
    return made


@pytest.fixture
def run(snapshot: DatasetSnapshot, alice: User) -> TrainingRun:
    return TrainingRun.objects.create(
        snapshot=snapshot,
        name="Warm words",
        config={"base_model": "tiny", "rank": 16, "server": "own"},
        preflight_job=Job.objects.create(kind=Job.Kind.PREFLIGHT),
        created_by=alice,
    )


@pytest.fixture
def page(client: Client, alice: User) -> Client:
    client.force_login(alice)
    return client


def planned(used: DatasetSnapshot, **changes: Any) -> dict[str, Any]:
    return {
        "snapshot": used.pk, "name": "Warm words", "base_model": "tiny", "server": "own",
        "learn_from": "sft", "method": "lora", "rank": "16", "learning_rate": "2e-4", "epochs": 3,
        "batch_size": 8, "accumulation": 1, "max_length": 512, "patience": 3, "seed": 0, **changes,
    }  # fmt: skip


def test_a_run_is_planned_and_its_preflight_queued(page: Client, snapshot: DatasetSnapshot) -> None:
    answer = page.post(reverse("run_new"), planned(snapshot))
    run = TrainingRun.objects.get()
    assert answer["Location"] == reverse("run", args=[run.pk])
    assert (run.config["rank"], run.config["alpha"], run.config["slug"]) == (16, 32, "warm-words")
    assert run.preflight_job is not None
    assert run.preflight_job.state == "waiting"
    assert "training agent" in page.get(answer["Location"]).content.decode()


def test_several_rates_and_ranks_make_a_sweep(page: Client, snapshot: DatasetSnapshot) -> None:
    answer = page.post(
        reverse("run_new"), planned(snapshot, rank="16, 32", learning_rate="1e-4, 2e-4")
    )
    assert TrainingRun.objects.filter(sweep__gt="").count() == 4
    shown = page.get(answer["Location"]).content.decode()
    assert "Warm words · 32 · 0.0001" in shown
    assert "Start 4 runs" in shown


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rank": "many"}, "A number, or several"),
        ({"rank": "0"}, "must be at least 1"),
        ({"rank": ",".join(["16"] * 13)}, "more than twelve"),
        ({"base_model": ""}, "required"),
        ({"snapshot": 0}, "Select a valid choice"),
    ],
)
def test_wrong_settings_come_back_with_a_sentence(
    page: Client, snapshot: DatasetSnapshot, changes: dict[str, Any], sentence: str
) -> None:
    answer = page.post(reverse("run_new"), planned(snapshot, **changes))
    assert answer.status_code == 400
    assert sentence in answer.content.decode()
    assert not TrainingRun.objects.exists()


def test_the_preflight_is_read_and_the_run_started(page: Client, run: TrainingRun) -> None:
    TrainingRun.objects.update(preflight=REPORT)
    shown = page.get(reverse("run", args=[run.pk])).content.decode()
    for words in ("24 rows to learn from.", "Row 9", "There is no question.", "<mark>Red.</mark>",
                  "1 min 35 s", "TGI cannot load DoRA.", "Start training"):  # fmt: skip
        assert words in shown
    page.post(reverse("run_start", args=[run.pk]))
    run.refresh_from_db()
    assert run.state == "queued"


def test_the_preflight_estimates_a_run_on_the_card_that_is_chosen(
    page: Client, run: TrainingRun
) -> None:
    TrainingRun.objects.update(preflight=REPORT)
    here = reverse("run", args=[run.pk])
    assert "MI300X" in page.get(here).content.decode()
    chosen = page.get(here, {"card": "A100 40 GB", "price": "1.5"})
    estimate = chosen.context["card"]
    assert (estimate.device.name, estimate.fits) == ("A100 40 GB", True)
    hours = 6 * 10**18 / (312e12 * 0.35) / 3600
    assert estimate.cost == pytest.approx(1.5 * hours)
    assert "15 h 15 min" in chosen.content.decode()
    assert "6.1 kWh" in chosen.content.decode()
    for wrong in ({"card": "Abacus"}, {"card": "L4", "price": "nan"}, {"price": "-1"}):
        assert page.get(here, wrong).status_code == 200
    TrainingRun.objects.update(preflight={"lines": [], "rows": REPORT["rows"], "contract": {}})
    assert "MI300X" not in page.get(here).content.decode()


@pytest.mark.parametrize(
    ("changes", "layers", "shards"),
    [
        ({}, ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], 1),
        (
            {"base_model": "/models/Phi-3.5-mini", "shards": 4},
            ["qkv_proj", "o_proj", "down_proj"],
            4,
        ),
        ({"layers": "starcoder2"}, ["q_proj", "k_proj", "v_proj", "o_proj", "c_fc", "c_proj"], 1),
        ({"layers": "attention"}, ["q_proj", "k_proj", "v_proj", "o_proj"], 1),
    ],
)
def test_layers_and_cards_are_chosen(
    page: Client, snapshot: DatasetSnapshot, changes: dict[str, Any], layers: list[str], shards: int
) -> None:
    page.post(reverse("run_new"), planned(snapshot, **changes))
    config = TrainingRun.objects.get().config
    assert (config["target_modules"], config["shards"]) == (layers, shards)


def test_a_running_run_shows_its_curves_and_polls(page: Client, run: TrainingRun) -> None:
    job = Job.objects.create(kind=Job.Kind.TRAIN, state="running", done=2, total=44)
    TrainingRun.objects.update(state="running", job=job, preflight=REPORT, log_tail="step 2")
    for step, loss in enumerate([5.2, 4.1], start=1):
        TrainingMetric.objects.create(
            run=run, step=step, loss=loss, learning_rate=1e-4, tokens_per_s=900,
            memory_bytes=10**9,
        )  # fmt: skip
    part = {"HX-Request": "true"}
    here = reverse("run", args=[run.pk])
    shown = page.get(here, {"was": "running-looked-at"}, headers=part).content.decode()
    assert shown.lstrip().startswith('<div id="run"')
    assert "every 2s" in shown
    assert "step 2" in shown
    assert page.get(here, {"was": "queued-looked-at"}, headers=part)["HX-Refresh"] == "true"
    assert "<polyline" in shown
    assert "4.1" in shown


def test_a_run_that_cannot_work_offers_no_start(page: Client, run: TrainingRun) -> None:
    stop = {"level": "stop", "name": "Contract", "sentence": "TGI cannot load DoRA."}
    TrainingRun.objects.update(preflight={**REPORT, "lines": [stop]})
    assert "Start training" not in page.get(reverse("run", args=[run.pk])).content.decode()


def test_a_run_is_cancelled(page: Client, run: TrainingRun) -> None:
    page.post(reverse("run_cancel", args=[run.pk]))
    run.refresh_from_db()
    assert run.state == "cancelled"
    answer = page.post(reverse("run_cancel", args=[run.pk]), follow=True)
    assert "ended already" in answer.content.decode()
    assert reverse("run_resume", args=[run.pk]) in answer.content.decode()


def test_a_run_that_failed_goes_on(page: Client, run: TrainingRun) -> None:
    gone = Job.objects.create(kind="train", state="failed", attempts=5)
    TrainingRun.objects.update(state="failed", error="It ended too often.", job=gone)
    answer = page.post(reverse("run_resume", args=[run.pk]), follow=True).content.decode()
    assert "It waits for a training agent" in answer
    assert "It ended too often." not in answer
    gone.refresh_from_db()
    assert (gone.state, gone.attempts) == ("waiting", 0)
    again = page.post(reverse("run_resume", args=[run.pk]), follow=True)
    assert "Only a run that failed or was cancelled can go on." in again.content.decode()


def test_a_failed_preflight_is_looked_at_again(page: Client, run: TrainingRun) -> None:
    Job.objects.update(state="failed")
    TrainingRun.objects.update(error="The pre-flight took longer than 30 minutes.")
    assert "Look again" in page.get(reverse("run", args=[run.pk])).content.decode()
    page.post(reverse("run_resume", args=[run.pk]))
    run.refresh_from_db()
    assert (run.state, run.error) == ("draft", "")
    assert run.preflight_job is not None
    assert run.preflight_job.state == "waiting"


def test_a_draft_that_was_cancelled_is_taken_up_again(page: Client, run: TrainingRun) -> None:
    Job.objects.filter(pk=run.preflight_job_id).update(state="done")
    TrainingRun.objects.update(preflight=REPORT)
    page.post(reverse("run_cancel", args=[run.pk]))
    assert "Take it up again" in page.get(reverse("run", args=[run.pk])).content.decode()
    page.post(reverse("run_resume", args=[run.pk]))
    run.refresh_from_db()
    assert (run.state, run.cancel_requested, run.finished_at) == ("draft", False, None)
    assert Job.objects.get(pk=run.preflight_job_id).state == "done"
    assert "Start training" in page.get(reverse("run", args=[run.pk])).content.decode()


def test_an_adapter_shows_its_card_and_contract(page: Client, run: TrainingRun) -> None:
    adapter = Adapter.objects.create(
        run=run, name="warm-v1-00000000", card="# warm\n\nLearned **much**.",
        contract={"own": [], "tgi": ["TGI cannot load DoRA."]}, base_model="tiny",
    )  # fmt: skip
    assert "warm-v1-00000000" in page.get(reverse("adapters")).content.decode()
    shown = page.get(reverse("adapter", args=[adapter.pk])).content.decode()
    assert "<strong>much</strong>" in shown
    assert "TGI cannot load DoRA." in shown


def test_a_curator_sees_runs_and_starts_none(client: Client, run: TrainingRun, bob: User) -> None:
    run.snapshot.dataset.collection.grant(bob, "curator")
    TrainingRun.objects.update(preflight=REPORT)
    client.force_login(bob)
    assert "Start training" not in client.get(reverse("run", args=[run.pk])).content.decode()
    assert client.post(reverse("run_start", args=[run.pk])).status_code == 404
    assert client.get(reverse("run_new")).status_code == 200
    assert client.post(reverse("run_new"), planned(run.snapshot)).status_code == 400


@pytest.mark.parametrize(
    "name", ["run", "run_start", "run_cancel", "run_resume", "adapter", "sweep"]
)
def test_a_foreign_run_answers_like_a_missing_one(
    client: Client, run: TrainingRun, charlie: User, name: str
) -> None:
    TrainingRun.objects.update(sweep="abc")
    Adapter.objects.create(pk=run.pk, run=run, name="x-v1-00000000", audience_size=1)
    client.force_login(charlie)
    call = client.post if name.startswith("run_") else client.get
    key = {"sweep": ("abc", "abd")}.get(name, (run.pk, run.pk + 1000))
    foreign, missing = (call(reverse(name, args=[each])) for each in key)
    assert foreign.status_code == missing.status_code == 404
    assert foreign.content == missing.content


def test_the_list_takes_the_same_queries_however_many_runs(
    page: Client, run: TrainingRun, django_assert_max_num_queries: Any
) -> None:
    for number in range(30):
        TrainingRun.objects.create(snapshot=run.snapshot, name=str(number), config=run.config)
    with django_assert_max_num_queries(12):
        page.get(reverse("train"))
