"""What learned from a document or a person is found, turned stale and marked."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings

from finetune import activation, checkpoints, erasure, evaluation, probe, retraining, training
from finetune.hyperparameters import TrainingConfig
from finetune.models import (
    Activation,
    Adapter,
    ArenaVote,
    AuditEvent,
    Dataset,
    DatasetSnapshot,
    Erasure,
    Evaluation,
    EvaluationItem,
    InstructionPair,
    RetrainRule,
    TrainingRun,
)
from finetune.training import RunRefused
from kb.files import content_storage
from kb.models import Collection, Job, ModelDeployment, User
from tests.conftest import AddDocument
from tests.finetune import rated
from tests.finetune.activating import deployed
from tests.finetune.test_snapshots import freeze, write_pair

pytestmark = pytest.mark.django_db


def register(run: TrainingRun, name: str) -> Adapter:
    adapter = Adapter.objects.create(run=run, name=name, audience_size=1)
    adapter.audience.add(run.snapshot.dataset.collection)
    return adapter


@pytest.fixture
def learned(dataset: Dataset, collection: Collection, alice: User) -> Adapter:
    """An adapter of two documents, 7 and 8; everything is in the train part."""
    for number in range(6):
        write_pair(
            dataset, f"When does ice {number} melt?", f"Ice {number} melts in month {number}.",
            sources=[(collection, 7 if number % 2 else 8)],
        )  # fmt: skip
    snapshot = freeze(dataset, alice, train_share=1.0, validation_share=0.0)
    run = TrainingRun.objects.create(snapshot=snapshot, name="First", state="succeeded")
    return register(run, "glacier-v1-0000000a")


def test_a_document_is_traced_to_pairs_snapshots_and_adapters(
    learned: Adapter, dataset: Dataset, alice: User
) -> None:
    [subject] = erasure.find_documents(alice, "7")
    found = erasure.trace(subject, alice)
    assert found.pairs.count() == 3
    assert list(found.snapshots) == [learned.run.snapshot]
    assert list(found.adapters) == [learned]
    assert list(found.datasets) == [dataset]
    assert found.speaking == []
    assert found.merged == []
    AuditEvent.objects.record(
        alice, AuditEvent.Action.EXPORTED, learned, dataset.collection, merged="/models/merged"
    )
    assert erasure.trace(subject, alice).merged == ["/models/merged"]


def test_documents_of_one_name_are_told_apart(learned: Adapter, alice: User) -> None:
    found = erasure.find_documents(alice, "a.md")
    assert [(subject.key, subject.name) for subject in found] == [(8, "a.md"), (7, "a.md")]


def test_one_action_turns_pairs_stale_and_closes_the_gate(
    learned: Adapter, dataset: Dataset, collection: Collection, alice: User
) -> None:
    write_pair(dataset, "Not judged yet?", "No.", state="suggested", sources=[(collection, 7)])
    [subject] = erasure.find_documents(alice, "7")

    done = erasure.erase(subject, alice, reason="The author asked.")

    assert done == erasure.Erased(4, [learned.name])
    stale = InstructionPair.objects.filter(state="stale")
    assert stale.count() == 4
    assert {pair.stale_reason for pair in stale} == {"“a.md” must be forgotten."}
    assert InstructionPair.objects.approved().count() == 3
    learned.refresh_from_db()
    assert "It learned from “a.md”" in learned.erasure_note
    assert learned.erasure_note in activation.gate(learned)
    event = AuditEvent.objects.get(action="erased")
    assert (event.user, event.detail["reason"]) == (alice, "The author asked.")
    assert event.detail["adapters"] == [learned.name]
    again = erasure.erase(subject, alice, reason="Again.")
    assert again == erasure.Erased(0, [])
    learned.refresh_from_db()
    assert learned.erasure_note.count("a.md") == 1


def test_the_words_go_from_evaluations_and_the_arena_and_the_scores_stay(
    learned: Adapter, alice: User
) -> None:
    job = Job.objects.create(kind=Job.Kind.EVALUATE, state=Job.State.DONE)
    made = Evaluation.objects.create(adapter=learned, job=job, state="done")
    rows = learned.run.snapshot.rows
    erased, kept = rows.get(pair__instruction="When does ice 1 melt?"), rows.first()
    deleted = rows.get(pair__instruction="When does ice 3 melt?").pair
    for place, pair in enumerate((erased.pair, deleted, kept.pair)):
        EvaluationItem.objects.create(
            evaluation=made, cell="base", position=place, pair_id=pair.pk,
            question=pair.instruction, expected=pair.output, output="No idea.", scores={"f1": 0.5},
        )  # fmt: skip
        for verdict in ("left", ""):
            ArenaVote.objects.create(
                adapter=learned, question=pair.instruction, left="No idea.", right="In June.",
                adapter_is_left=True, verdict=verdict, voter=alice,
            )  # fmt: skip
    InstructionPair.objects.filter(pk=deleted.pk).delete()
    [subject] = erasure.find_documents(alice, "7")

    erasure.erase(subject, alice, reason="The author asked.")

    words = made.items.order_by("position").values_list("question", "expected", "output")
    assert list(words[:2]) == [("", "", "")] * 2
    assert words[2] == ("When does ice 0 melt?", "Ice 0 melts in month 0.", "No idea.")
    assert {item.scores["f1"] for item in made.items.all()} == {0.5}
    votes = ArenaVote.objects.order_by("pk").values_list("verdict", "question")
    assert list(votes) == [
        ("left", ""), ("left", ""), ("left", "When does ice 0 melt?"), ("", "When does ice 0 melt?"),
    ]  # fmt: skip


def test_what_was_only_asked_in_the_test_was_not_learned(
    learned: Adapter, dataset: Dataset, alice: User
) -> None:
    asked = freeze(dataset, alice, train_share=0.0, validation_share=0.0)
    run = TrainingRun.objects.create(snapshot=asked, name="Second", state="succeeded")
    register(run, "glacier-v2-0000000b")
    [subject] = erasure.find_documents(alice, "7")
    found = erasure.trace(subject, alice)
    assert set(found.snapshots) == {asked, learned.run.snapshot}
    assert list(found.adapters) == [learned]


def test_distractors_were_learned_from_too(
    dataset: Dataset, collection: Collection, alice: User
) -> None:
    write_pair(dataset, "When?", "In August.", sources=[(collection, 7), (collection, -9)])
    snapshot = freeze(dataset, alice, train_share=1.0, validation_share=0.0)
    run = TrainingRun.objects.create(snapshot=snapshot, name="First", state="succeeded")
    adapter = register(run, "glacier-v1-0000000a")
    [subject] = erasure.find_documents(alice, "9")
    assert list(erasure.trace(subject, alice).adapters) == [adapter]


def test_a_person_is_traced_by_what_they_typed_and_asked(
    dataset: Dataset, alice: User, bob: User, add_document: AddDocument
) -> None:
    document = add_document("glacier.md", "# Glacier\n\nThe glacier melts in August.")
    answer = rated.answer(rated.ask(bob), "In August. [1]", document)
    write_pair(dataset, "Typed by Bob?", "Yes.", author=bob)
    write_pair(dataset, "Asked by Bob?", "In August.", message=answer)
    write_pair(dataset, "Typed by Alice?", "Yes.", author=alice)
    snapshot = freeze(dataset, alice, train_share=1.0, validation_share=0.0)
    run = TrainingRun.objects.create(snapshot=snapshot, name="First", state="succeeded")
    adapter = register(run, "glacier-v1-0000000a")

    [subject] = erasure.find_people(alice, "bob")

    found = erasure.trace(subject, alice)
    assert found.pairs.count() == 2
    assert list(found.adapters) == [adapter]
    assert erasure.erase(subject, alice, reason="").pairs == 2
    adapter.refresh_from_db()
    assert "what bob wrote" in adapter.erasure_note


def test_nobody_learns_of_what_is_not_theirs(
    learned: Adapter, alice: User, bob: User, charlie: User
) -> None:
    for person in (bob, charlie):
        assert erasure.find_documents(person, "7") == []
        assert erasure.find_documents(person, "a.md") == []
        assert erasure.find_people(person, "alice") == []
    [subject] = erasure.find_documents(alice, "7")
    found = erasure.trace(subject, bob)
    assert found.is_empty
    assert not found.adapters
    assert not found.datasets
    assert erasure.find_people(alice, "charlie") == []
    assert erasure.find_people(alice, "nobody") == []


# --- What is under way ---------------------------------------------------------------------------


def erase_document(user: User, name: str = "7") -> erasure.Erased:
    [subject] = erasure.find_documents(user, name)
    return erasure.erase(subject, user, reason="The author asked.")


def test_nothing_trains_on_a_snapshot_that_keeps_what_was_erased(
    learned: Adapter, alice: User
) -> None:
    snapshot = learned.run.snapshot
    config = TrainingConfig(base_model="tiny", server="own")
    waiting = training.plan(snapshot, alice, name="Second", config=config)
    TrainingRun.objects.filter(pk=waiting.pk).update(preflight={"lines": []})
    stopped = TrainingRun.objects.create(
        snapshot=snapshot, name="Third", state="cancelled",
        job=Job.objects.create(kind=Job.Kind.TRAIN, state=Job.State.CANCELLED),
    )  # fmt: skip

    erase_document(alice)

    why = "keeps “a.md”, which was erased. Freeze a new one."
    with pytest.raises(RunRefused, match=why):
        training.plan(snapshot, alice, name="Fourth", config=config)
    with pytest.raises(RunRefused, match=why):
        training.start(waiting, alice)
    with pytest.raises(RunRefused, match=why):
        training.go_on(stopped, alice)
    claimed = Job.objects.claim(Job.Kind.PREFLIGHT)
    assert claimed is not None
    training.preflight(claimed)
    assert why in TrainingRun.objects.get(pk=waiting.pk).error
    anew = freeze(learned.run.snapshot.dataset, alice, train_share=1.0, validation_share=0.0)
    assert training.plan(anew, alice, name="Fifth", config=config).state == "draft"


def test_an_adapter_that_comes_out_after_the_erasure_is_marked_too(
    learned: Adapter, alice: User, tmp_path: Path, settings: Settings
) -> None:
    settings.DATA_DIR = tmp_path
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    config = TrainingConfig(base_model=str(tmp_path / "base"), server="own")
    run = TrainingRun.objects.create(
        snapshot=learned.run.snapshot, name="Under way", state="running", config=config.to_dict()
    )
    reference = training.folder_of(run) / "reference"
    reference.mkdir(parents=True)
    (reference / probe.FILE).write_text("{}")
    out = training.folder_of(run) / "out" / "glacier-v2-0000000b"

    def write(aside: Path) -> None:
        for name in ("adapter_model.safetensors", "adapter_config.json"):
            (aside / name).write_text("{}")

    checkpoints.publish(out, write, about={})
    erase_document(alice)
    assert not (reference / probe.FILE).exists()
    (reference / probe.FILE).write_text("{}")  # as one does that computes meanwhile

    made = training.register(run, out)

    assert "It learned from “a.md”, which was erased." in made.erasure_note
    assert made.erasure_note in activation.gate(made)
    assert probe.FILE not in made.files
    assert not (reference / probe.FILE).exists()


def test_a_run_that_only_asks_what_was_erased_gives_no_marked_adapter(
    learned: Adapter, dataset: Dataset, alice: User
) -> None:
    asked = freeze(dataset, alice, train_share=0.0, validation_share=0.0)
    erase_document(alice)
    assert Erasure.objects.note(asked) == ""
    assert Erasure.objects.note(learned.run.snapshot)
    assert asked.why_not_train()


def test_an_erasure_while_pairs_are_frozen_freezes_them_anew(
    learned: Adapter, dataset: Dataset, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    from finetune import snapshots

    freeze_really, done = snapshots._freeze, []

    def erase_meanwhile(snapshot: DatasetSnapshot, job: Job) -> snapshots.Frozen:
        frozen = freeze_really(snapshot, job)
        if not done:
            done.append(erase_document(alice))
        return frozen

    monkeypatch.setattr(snapshots, "_freeze", erase_meanwhile)
    made = snapshots.start(dataset, alice)
    for _ in range(2):
        Job.objects.filter(pk=made.job_id).update(not_before=made.created_at)
        claimed = Job.objects.claim(Job.Kind.FREEZE)
        assert claimed is not None
        snapshots.freeze(claimed)
    made.refresh_from_db()
    assert made.state == "ready"
    assert not made.rows.filter(document_keys__contains=[7]).exists()


def test_a_rule_drafts_no_run_on_what_was_erased(
    learned: Adapter, dataset: Dataset, alice: User
) -> None:
    frozen = freeze(dataset, alice)
    DatasetSnapshot.objects.filter(pk=frozen.pk).update(created_by=None)
    learned.run.config = TrainingConfig(base_model="tiny", server="own").to_dict()
    learned.run.save()
    rule = RetrainRule.objects.create(dataset=dataset, last_fired_at=frozen.created_at)
    erase_document(alice)
    assert retraining.draft_runs() == 0
    assert rule.dataset.snapshots.filter(runs=None, erasures=None).count() == 0
    # Erased between the look and the plan.
    config = TrainingConfig(base_model="tiny", server="own")
    assert not retraining._draft(frozen, config, "Stale.")


def test_the_words_go_from_pre_flights_and_from_what_the_probe_asks(
    learned: Adapter, alice: User, tmp_path: Path, settings: Settings
) -> None:
    settings.DATA_DIR = tmp_path
    run = learned.run
    TrainingRun.objects.filter(pk=run.pk).update(
        preflight={"example": [{"text": "When does ice 1 melt?"}], "lines": []}
    )
    rows = list(run.snapshot.rows.order_by("pk"))
    answer = probe.Answer((probe.Step("In", -0.1, -2.0),), True)
    samples = tuple(
        probe.Sample(tuple(json.loads(row.line)["messages"][:-1]), (1, 2), answer, answer)
        for row in rows
    )
    places = (tmp_path / "adapters" / learned.name, tmp_path / "runs" / str(run.pk) / "reference")
    for place in places:
        place.mkdir(parents=True)
        probe.Reference(samples, 8).write(place)
    left = tmp_path / "runs" / str(run.pk) / "evaluation-1.json"
    left.write_text("What does ice 1 do?")
    learned.files = {probe.FILE: checkpoints.sha256_of(places[0] / probe.FILE), "other": "1"}
    learned.save()

    erase_document(alice)

    run.refresh_from_db()
    assert run.preflight == {"lines": []}
    assert not left.exists()
    for place in places:
        text = (place / probe.FILE).read_text()
        assert "ice 0" in text
        assert "ice 1" not in text
        assert len(probe.Reference.read(place).samples) == 3
    learned.refresh_from_db()
    assert learned.files == {
        probe.FILE: checkpoints.sha256_of(places[0] / probe.FILE), "other": "1",
    }  # fmt: skip


def test_an_evaluation_that_is_under_way_keeps_no_erased_words(
    learned: Adapter, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = freeze(learned.run.snapshot.dataset, alice, train_share=0.0, validation_share=0.0)
    learned.run.snapshot = asked
    learned.run.save()
    made = evaluation.start(learned, alice)

    def answer(path: Path, **_: object) -> object:
        erase_document(alice)
        for ask in json.loads(path.read_text())["asks"]:
            yield {"id": ask["id"], "nats": 1.0, "tokens": 3, "output": "No.", "ended": True}

    monkeypatch.setattr(evaluation, "_lines", answer)
    (training.adapters_folder() / learned.name).mkdir(parents=True)
    claimed = Job.objects.claim(Job.Kind.EVALUATE)
    assert claimed is not None
    evaluation.evaluate(claimed, stop=threading.Event())

    kept = made.items.filter(suite="test")
    erased = asked.rows.filter(document_keys__contains=[7]).values_list("pair_id", flat=True)
    assert not kept.filter(pair_id__in=erased).exclude(question="").exists()
    assert kept.exclude(question="").exists()
    lines = evaluation._test_lines(asked)
    assert {line["pair"] for line in lines}.isdisjoint(erased)


def test_a_deleted_pair_that_was_erased_is_not_asked_again(
    learned: Adapter, dataset: Dataset, alice: User
) -> None:
    asked = freeze(dataset, alice, train_share=0.0, validation_share=0.0)
    gone = asked.rows.filter(document_keys__contains=[7]).first()
    InstructionPair.objects.filter(pk=gone.pair_id).delete()
    erase_document(alice)
    assert gone.pair_id not in {line["pair"] for line in evaluation._test_lines(asked)}


def test_what_a_killed_agent_wrote_after_the_erasure_goes_when_it_is_given_up(
    learned: Adapter, alice: User
) -> None:
    job = Job.objects.create(kind=Job.Kind.EVALUATE, state=Job.State.FAILED)
    made = Evaluation.objects.create(adapter=learned, job=job, state="running")
    erase_document(alice)
    pair = learned.run.snapshot.rows.filter(document_keys__contains=[7]).first().pair
    EvaluationItem.objects.create(
        evaluation=made, cell="base", position=0, pair_id=pair.pk, question=pair.instruction,
        expected=pair.output, output="No.",
    )  # fmt: skip
    assert evaluation.end_exhausted() == 1
    assert made.items.get().question == ""


# --- Deletion ------------------------------------------------------------------------------------


def test_a_run_that_is_over_goes_with_its_adapter_and_their_files(
    learned: Adapter,
    alice: User,
    tmp_path: Path,
    settings: Settings,
    django_capture_on_commit_callbacks: Any,
) -> None:
    settings.DATA_DIR = tmp_path
    folders = [tmp_path / "adapters" / learned.name, training.folder_of(learned.run)]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "words").write_text("When does ice 1 melt?")
    job = Job.objects.create(kind=Job.Kind.EVALUATE, state=Job.State.DONE)
    Evaluation.objects.create(adapter=learned, job=job, state="done")
    Activation.objects.create(adapter=learned, state="rolled_back")
    snapshot, file = learned.run.snapshot, learned.run.snapshot.file.name
    with pytest.raises(erasure.StillNeeded, match="runs first"):
        erasure.delete_snapshot(snapshot, alice)

    erasure.delete_run(learned.run, alice)

    assert not any(folder.exists() for folder in folders)
    for model in (TrainingRun, Adapter, Evaluation, Activation):
        assert not model.objects.exists()
    assert not Job.objects.filter(pk=job.pk).exists()
    assert AuditEvent.objects.filter(action="deleted", subject_kind="trainingrun").count() == 1
    assert content_storage().exists(file)
    with django_capture_on_commit_callbacks(execute=True):
        erasure.delete_snapshot(snapshot, alice)
    assert not DatasetSnapshot.objects.exists()
    assert not content_storage().exists(file)


def test_a_run_is_kept_while_something_needs_it(learned: Adapter, alice: User) -> None:
    def refused(match: str) -> None:
        with pytest.raises(erasure.StillNeeded, match=match):
            erasure.delete_run(learned.run, alice)

    base = activation.get_backend("GENERATOR").base_model
    speaks = ModelDeployment.objects.create(base_model=base, adapter_name=learned.name)
    refused("may still answer")
    ModelDeployment.objects.create(base_model=base, adapter_name="")
    ModelDeployment.objects.filter(pk=speaks.pk).delete()
    Adapter.objects.update(is_wanted=True)
    refused("still loaded")
    Activation.objects.create(adapter=learned, state="requested")
    refused("on its way")
    TrainingRun.objects.update(state="running")
    refused("under way")
    assert Adapter.objects.exists()


def test_no_way_back_leads_to_a_deleted_adapter(
    learned: Adapter, dataset: Dataset, alice: User
) -> None:
    first, last = (
        register(
            TrainingRun.objects.create(
                snapshot=learned.run.snapshot, name="Other", state="succeeded"
            ),
            name,
        )
        for name in ("glacier-v2-0000000b", "glacier-v3-0000000c")
    )
    for adapter in (first, learned, last):
        deployed(adapter, alice)

    erasure.delete_run(learned.run, alice)

    assert [layer.adapter_name for layer in activation.chain("tgi")] == [last.name, first.name]
    assert Activation.objects.get(adapter=last).state == "deployed"


def test_a_file_that_another_snapshot_has_too_stays(
    learned: Adapter, dataset: Dataset, alice: User
) -> None:
    again = freeze(dataset, alice, train_share=1.0, validation_share=0.0)
    assert again.file.name == learned.run.snapshot.file.name
    erasure.delete_snapshot(again, alice)
    assert content_storage().exists(learned.run.snapshot.file.name)
