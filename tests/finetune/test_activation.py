"""Adapters reach the readers through the gate and the probe only, and come back."""

import asyncio
import warnings
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group

from benchmarks import random_models
from finetune import activation, checkpoints, guard, loading, restoring
from finetune.activation import ActivationRefused
from finetune.models import Activation, Adapter, AuditEvent, Dataset
from kb.backends import get_backend
from kb.generators import GenerationError
from kb.models import Collection, Conversation, Job, ModelDeployment, User
from tests.finetune.activating import (
    answers,
    evaluate,
    make_adapter,
    speaker,
    work_off_activation,
)
from tests.finetune.test_probe import CHATS
from tests.workers.conftest import Server, StartServer, start_server  # noqa: F401
from tests.workers.test_tgi_supervisor import references, supervise  # noqa: F401

pytestmark = [pytest.mark.django_db, pytest.mark.train]
NAMES = {"a": "glacier-v1-0000000a", "b": "glacier-v2-0000000b", "c": "glacier-v3-0000000c"}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a base model that takes long prompts, and adapters: a, b, c."""
    pytest.importorskip("peft", reason="peft comes with the train extra")
    folder = tmp_path_factory.mktemp("models")
    base = random_models.make_base(folder / "base", context=2048)
    for seed, name in enumerate("abc", start=1):
        random_models.make_lora(base, folder / name, seed=seed)
    return folder


@pytest.fixture(scope="module")
def server(start_server: StartServer) -> Server:  # noqa: F811
    return start_server(adapters="")


@pytest.fixture
def serving(server: Server, settings: Any, tmp_path: Path) -> Any:
    """Point the install at the server; adapters lie in a folder of this test."""
    return _point_at(server, settings, tmp_path)


def _point_at(server: Server, settings: Any, tmp_path: Path) -> Any:
    settings.DATA_DIR = tmp_path
    settings.MODEL_SERVER_URL = settings.MODEL_SERVER_ADMIN_URL = server.url
    settings.MODEL_SERVER_KEY, settings.MODEL_SERVER_KIND = server.key, "own"
    settings.GENERATOR_NAME = "chat_completions"
    settings.GENERATOR = {
        "BACKEND": "kb.generators.chat_completions.ChatCompletionsGenerator",
        "OPTIONS": {"url": server.url, "base_model": "tgi", "api_key": server.key},
    }
    get_backend.cache_clear()
    return settings


@pytest.fixture(autouse=True)
def fresh_backends() -> Any:
    yield
    get_backend.cache_clear()


@pytest.fixture(autouse=True)
def unload(server: Server) -> Any:
    yield
    for model in server.get("/v1/models").json()["data"]:
        if model.get("parent"):
            server.post("/v1/unload_lora_adapter", {"lora_name": model["id"]})


@pytest.fixture
def adapter(dataset: Dataset, models: Path, serving: Any) -> Adapter:
    return make(dataset, models, serving, "a")


def make(dataset: Dataset, models: Path, serving: Any, letter: str, *also: Collection) -> Adapter:
    made = make_adapter(
        dataset, NAMES[letter], *also, weights=models / letter, data_dir=serving.DATA_DIR
    )
    evaluate(made)
    return made


def ask_for(adapter: Adapter, user: User, **fields: Any) -> Activation:
    return activation.request(adapter, user, reason="It answers better.", **fields)


def activated(adapter: Adapter, user: User, **fields: Any) -> Activation:
    asked = ask_for(adapter, user, **fields)
    work_off_activation()
    asked.refresh_from_db()
    return asked


def loaded(server: Server) -> set[str]:
    return {m["id"] for m in server.get("/v1/models").json()["data"] if m.get("parent")}


# --- There and back ------------------------------------------------------------------------------


def test_an_adapter_is_placed_loaded_probed_and_speaks(
    adapter: Adapter, alice: User, server: Server
) -> None:
    done = activated(adapter, alice)

    assert (done.state, done.error) == (Activation.State.DEPLOYED, "")
    assert done.probe["passed"]
    assert {f["check"] for f in done.probe["findings"]} >= {"differs_from_base", "unknown_refused"}
    assert loaded(server) == {adapter.name}
    assert speaker(alice) == adapter.name
    assert done.deployment is not None
    assert set(done.deployment.audience.all()) == {adapter.run.snapshot.dataset.collection}
    assert done.job is not None
    assert done.job.state == Job.State.DONE
    actions = AuditEvent.objects.order_by("pk").values_list("action", flat=True)
    assert list(actions) == ["requested", "activated"]


def test_the_reference_of_the_training_is_held_against_the_server(
    adapter: Adapter,
    alice: User,
    models: Path,
    serving: Any,
) -> None:
    folder = serving.DATA_DIR / "adapters" / adapter.name
    from finetune import reference

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference.measure(models / "base", folder, CHATS, tokens=8).write(folder)

    assert activated(adapter, alice).state == Activation.State.DEPLOYED
    other = make(adapter.run.snapshot.dataset, models, serving, "b")
    (serving.DATA_DIR / "adapters" / other.name / "probe.json").write_bytes(
        (folder / "probe.json").read_bytes()
    )
    refused = activated(other, alice)
    assert refused.state == Activation.State.FAILED
    assert "not those that the adapter gave after training" in refused.error
    assert speaker(alice) == adapter.name


def test_one_click_brings_back_what_served_before(
    adapter: Adapter,
    alice: User,
    dataset: Dataset,
    models: Path,
    serving: Any,
) -> None:
    first = activated(adapter, alice)
    second = activated(make(dataset, models, serving, "b"), alice)
    first.refresh_from_db()
    assert (first.state, speaker(alice)) == (Activation.State.REPLACED, NAMES["b"])
    rows = ModelDeployment.objects.count()

    activation.roll_back(second, alice, reason="Worse.")

    first.refresh_from_db()
    second.refresh_from_db()
    assert second.state == Activation.State.ROLLED_BACK
    assert (first.state, speaker(alice)) == (Activation.State.DEPLOYED, NAMES["a"])
    assert ModelDeployment.objects.count() == rows + 1
    activation.roll_back(first, alice, reason="Worse, too.")
    assert speaker(alice) == ""
    with pytest.raises(ActivationRefused, match="does not serve any more"):
        activation.roll_back(second, alice, reason="Again.")


def test_what_is_not_loaded_any_more_is_not_rolled_back_to(
    adapter: Adapter, alice: User, dataset: Dataset, models: Path, serving: Any,
    server: Server,
) -> None:  # fmt: skip
    activated(adapter, alice)
    second = activated(make(dataset, models, serving, "b"), alice)
    server.post("/v1/unload_lora_adapter", {"lora_name": adapter.name})

    with pytest.raises(ActivationRefused, match="cannot serve now"):
        activation.roll_back(second, alice, reason="Worse.")

    assert speaker(alice) == NAMES["b"]


def test_a_share_and_a_group_get_it_and_the_others_what_served_before(
    adapter: Adapter,
    alice: User,
    bob: User,
    dataset: Dataset,
    models: Path,
    serving: Any,
) -> None:
    activated(adapter, alice)
    testers = Group.objects.create(name="Testers")
    bob.groups.add(testers)
    trial = activated(make(dataset, models, serving, "b"), alice, groups=[testers])
    assert (speaker(alice), speaker(bob)) == (NAMES["a"], NAMES["b"])

    canary = activated(make(dataset, models, serving, "c"), alice, share=0.3)
    heard = [speaker(alice) for _ in range(100)]
    assert (heard.count(NAMES["c"]), heard.count(NAMES["a"])) == (30, 70)

    # The lower layer goes, the canary above it stays.
    activation.roll_back(trial, alice, reason="Enough.")
    heard = [speaker(bob) for _ in range(100)]
    assert (heard.count(NAMES["c"]), heard.count(NAMES["a"])) == (30, 70)
    whole = activated(Adapter.objects.get(name=NAMES["c"]), alice)
    canary.refresh_from_db()
    assert canary.state == Activation.State.REPLACED
    assert speaker(bob) == NAMES["c"]
    activation.roll_back(whole, alice, reason="Worse.")
    assert speaker(bob) == NAMES["a"]
    # Who was to be answered by each, and what became of it, stands in the log.
    asked = AuditEvent.objects.filter(action="requested").order_by("pk")
    told = [(event.detail["share"], event.detail["groups"]) for event in asked]
    assert told == [(1, []), (1, ["Testers"]), (0.3, []), (1, [])]
    back = AuditEvent.objects.filter(action="rolled_back").order_by("pk")
    assert [event.detail["because"] for event in back] == ["Enough.", "Worse."]


@pytest.fixture
def secret(alice: User) -> Collection:
    """A collection that bob may not read."""
    made = Collection.objects.create(name="Secret", created_by=alice)
    made.grant(alice, "owner")
    return made


@pytest.fixture
def for_both_and_for_alice(
    alice: User, secret: Collection, dataset: Dataset, models: Path, serving: Any
) -> tuple[Activation, Activation]:
    first = activated(make(dataset, models, serving, "a"), alice)
    second = activated(make(dataset, models, serving, "b", secret), alice)
    first.refresh_from_db()
    return first, second


def test_only_who_may_read_what_it_learned_from_is_served_by_it(
    alice: User, bob: User, secret: Collection, dataset: Dataset, models: Path, serving: Any
) -> None:
    activated(make(dataset, models, serving, "a", secret), alice)

    assert (speaker(alice), speaker(bob)) == (NAMES["a"], "")
    secret.delete()
    assert speaker(alice) == ""


def test_what_still_answers_somebody_stays_deployed_watched_and_loaded(
    for_both_and_for_alice: tuple[Activation, Activation], alice: User, bob: User, server: Server
) -> None:
    first, second = for_both_and_for_alice
    assert (speaker(alice), speaker(bob)) == (NAMES["b"], NAMES["a"])
    assert (first.state, second.state) == (Activation.State.DEPLOYED, Activation.State.DEPLOYED)
    with pytest.raises(ActivationRefused, match="may still answer somebody"):
        activation.retire(first.adapter, alice)

    label = get_backend("GENERATOR").label
    for message in answers(bob, 12, label=label, deployment=first.deployment):
        message.rate(bob, -1)
    assert guard.look() == 1

    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.state, second.state) == (Activation.State.STOPPED, Activation.State.DEPLOYED)
    assert (speaker(alice), speaker(bob)) == (NAMES["b"], "")
    activation.retire(first.adapter, alice)
    assert loaded(server) == {NAMES["b"]}


def test_what_answers_only_some_can_be_taken_back_and_what_waits_can_be_unloaded(
    for_both_and_for_alice: tuple[Activation, Activation],
    alice: User,
    bob: User,
    secret: Collection,
    dataset: Dataset,
    models: Path,
    serving: Any,
    server: Server,
) -> None:
    first, second = for_both_and_for_alice
    assert activation.what_would_serve(first) == []
    assert activation.roll_back(first, alice, reason="Worse.") == "The base model alone"
    assert (speaker(alice), speaker(bob)) == (NAMES["b"], "")

    # Over the same collections it takes all of the readers, and the former waits in the chain.
    second.refresh_from_db()
    third = activated(make(dataset, models, serving, "c", secret), alice)
    second.refresh_from_db()
    assert (second.state, speaker(alice)) == (Activation.State.REPLACED, NAMES["c"])
    activation.retire(second.adapter, alice)
    assert loaded(server) >= {NAMES["c"]}
    assert NAMES["b"] not in loaded(server)
    third.refresh_from_db()
    assert activation.roll_back(third, alice, reason="Worse.") == "The base model alone"
    assert speaker(alice) == "", "not what was unloaded"


def test_tgi_takes_the_same_way_by_its_supervisor(
    dataset: Dataset,
    alice: User,
    models: Path,
    supervise: Any,  # noqa: F811
    settings: Any,
    tmp_path: Path,
) -> None:
    supervised = supervise()
    _point_at(Server(supervised.url, supervised.process, supervised.log), settings, tmp_path)
    settings.MODEL_SERVER_KIND = "tgi"
    settings.TGI_SUPERVISOR_DIR = str(supervised.folder)

    done = activated(make(dataset, models, settings, "b"), alice)  # with the probe.json of b

    assert (done.state, done.error) == (Activation.State.DEPLOYED, "")
    assert NAMES["b"] in loading.read_state(supervised.folder).serving
    checks = {finding["check"]: finding["outcome"] for finding in done.probe["findings"]}
    assert checks["matches_reference"] == "passed"
    assert checks["unknown_refused"] == "noted", "TGI answers every name; ours sends none"
    activation.roll_back(done, alice, reason="Enough.")
    activation.retire(done.adapter, alice)
    assert NAMES["b"] not in loading.read_state(supervised.folder).serving


def test_tgi_is_never_sent_a_name_that_its_supervisor_does_not_serve(
    settings: Any, tmp_path: Path
) -> None:
    settings.MODEL_SERVER_KIND, settings.TGI_SUPERVISOR_DIR = "tgi", str(tmp_path)
    assert activation.why_unserved(NAMES["a"]) == "The model server is not ready."
    refused = {NAMES["a"]: "It ended."}
    served = loading.SupervisorState((NAMES["b"],), refused=refused, instances=1)
    loading.write_state(tmp_path, served, {})
    assert "does not have the adapter “glacier-v1" in activation.why_unserved(NAMES["a"])
    assert activation.why_unserved(NAMES["b"]) == ""
    (tmp_path / "state.json").write_text("damaged")
    assert activation.why_unserved(NAMES["b"])
    settings.MODEL_SERVER_KIND = "own"
    assert activation.why_unserved(NAMES["a"]) == "", "it refuses an unknown name itself"


def test_settings_let_every_answer_ask_whether_its_adapter_is_served(
    settings: Any, tmp_path: Path
) -> None:
    settings.MODEL_SERVER_KIND, settings.TGI_SUPERVISOR_DIR = "tgi", str(tmp_path)
    settings.GENERATOR = {
        **settings.GENERATORS["chat_completions"],
        "OPTIONS": {**settings.GENERATORS["chat_completions"]["OPTIONS"], "url": "http://x"},
    }
    get_backend.cache_clear()
    loading.write_state(tmp_path, loading.SupervisorState(instances=1), {})
    with pytest.raises(GenerationError, match="does not have the adapter “glacier-v1"):
        asyncio.run(get_backend("GENERATOR").probe(NAMES["a"]))


# --- A server that starts anew -------------------------------------------------------------------


def test_what_a_restarted_server_has_lost_is_loaded_and_proved_again(
    dataset: Dataset, alice: User, models: Path, start_server: StartServer, settings: Any,  # noqa: F811
    tmp_path: Path,
) -> None:  # fmt: skip
    first = start_server(adapters="")
    _point_at(first, settings, tmp_path)
    deployed = activated(make(dataset, models, settings, "a"), alice)
    watch = restoring.Watch()
    assert watch.look() == [], "nothing is lost"
    first.process.kill()
    first.process.wait()
    assert watch.look() == [], "the server is away"

    again = start_server(adapters="")
    _point_at(again, settings, tmp_path)
    assert loaded(again) == set()
    assert watch.look() == [NAMES["a"]]
    assert loaded(again) == {NAMES["a"]}
    asyncio.run(get_backend("GENERATOR").probe(NAMES["a"]))

    # What waits to serve again comes back, too; what was unloaded does not.
    second = activated(make(dataset, models, settings, "b"), alice)
    for name in NAMES["a"], NAMES["b"]:
        again.post("/v1/unload_lora_adapter", {"lora_name": name})
    assert watch.look() == [NAMES["b"], NAMES["a"]], "what speaks comes first"
    activation.retire(deployed.adapter, alice)
    assert watch.look() == []
    assert loaded(again) == {NAMES["b"]}
    assert second.state == Activation.State.DEPLOYED


def test_what_cannot_be_proved_again_is_not_left_on_the_server(
    adapter: Adapter, alice: User, serving: Any, server: Server, models: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    activated(adapter, alice)
    server.post("/v1/unload_lora_adapter", {"lora_name": adapter.name})
    weights = serving.DATA_DIR / "adapters" / adapter.name / "adapter_model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes((models / "b" / "adapter_model.safetensors").read_bytes())
    watch = restoring.Watch()
    assert watch.look() == []
    assert "has changed since" in caplog.text
    weights.write_bytes(kept)
    assert watch.look() == [], "not at once again"

    from finetune import reference

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's, about transformers
        other = reference.measure(models / "base", models / "b", CHATS[:2], tokens=4)
    other.write(weights.parent)
    Adapter.objects.update(files=checkpoints.hashes_of(weights.parent))
    assert restoring.Watch().look() == []
    assert "not those that the adapter gave after training" in caplog.text
    assert loaded(server) == set()
    (weights.parent / "probe.json").unlink()
    Adapter.objects.update(files=checkpoints.hashes_of(weights.parent))
    assert restoring.Watch().look() == [adapter.name]


def test_what_is_on_its_way_is_left_to_its_activation(
    adapter: Adapter, alice: User, server: Server
) -> None:
    activated(adapter, alice)
    server.post("/v1/unload_lora_adapter", {"lora_name": adapter.name})
    ask_for(adapter, alice, share=0.5)
    assert restoring.Watch().look() == []


# --- What stands in the way ----------------------------------------------------------------------


def test_the_gate_holds_unless_somebody_gives_a_name_and_a_reason(
    adapter: Adapter, alice: User
) -> None:
    evaluate(adapter, passed=False)
    with pytest.raises(ActivationRefused, match="Token F1 fell by 12 %"):
        ask_for(adapter, alice)
    adapter.evaluations.all().delete()
    with pytest.raises(ActivationRefused, match="was not evaluated"):
        ask_for(adapter, alice)

    done = activated(adapter, alice, override_reason="The test set is wrong.")

    assert done.state == Activation.State.DEPLOYED
    assert (done.approved_by, done.override_reason) == (alice, "The test set is wrong.")
    assert AuditEvent.objects.filter(detail__override="The test set is wrong.").count() == 2


def test_a_gate_that_closes_on_the_way_is_noticed(adapter: Adapter, alice: User) -> None:
    asked = ask_for(adapter, alice)
    evaluate(adapter, passed=False)
    work_off_activation()
    asked.refresh_from_db()
    assert (asked.state, asked.error) == (Activation.State.FAILED, "Token F1 fell by 12 %.")
    assert speaker(alice) == ""
    told = AuditEvent.objects.get(action="failed", subject_id=asked.pk)
    assert (told.username, told.detail["because"]) == ("", "Token F1 fell by 12 %.")


def test_another_person_approves_where_that_is_wanted(
    adapter: Adapter, alice: User, bob: User, serving: Any
) -> None:
    serving.SECOND_PERSON_ACTIVATES = True
    asked = ask_for(adapter, alice)
    assert asked.state == Activation.State.WAITING
    assert Job.objects.claim(Job.Kind.ACTIVATE) is None
    with pytest.raises(ActivationRefused, match="Somebody else"):
        activation.approve(asked, alice)
    with pytest.raises(ActivationRefused, match="Only owners"):
        activation.approve(asked, bob)
    adapter.run.snapshot.dataset.collection.grant(bob, "owner")
    activation.approve(asked, bob)
    work_off_activation()
    asked.refresh_from_db()
    assert (asked.state, asked.approved_by) == (Activation.State.DEPLOYED, bob)
    with pytest.raises(ActivationRefused, match="any more"):
        activation.approve(asked, bob)


def test_readers_and_strangers_decide_nothing(
    adapter: Adapter, alice: User, bob: User, charlie: User
) -> None:
    for person in (bob, charlie):
        with pytest.raises(ActivationRefused, match="Only owners"):
            ask_for(adapter, person)
    done = activated(adapter, alice)
    with pytest.raises(ActivationRefused, match="Only owners"):
        activation.roll_back(done, bob, reason="I want to.")
    with pytest.raises(ActivationRefused, match="Only owners"):
        activation.retire(adapter, bob)


def test_who_lost_the_right_on_the_way_activates_nothing(adapter: Adapter, alice: User) -> None:
    asked = ask_for(adapter, alice)
    adapter.run.snapshot.dataset.collection.memberships.filter(user=alice).delete()
    work_off_activation()
    asked.refresh_from_db()
    assert asked.state == Activation.State.FAILED
    assert "Only owners" in asked.error


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_files_that_are_not_those_of_the_run_are_refused(
    adapter: Adapter, alice: User, serving: Any, server: Server, damage: str
) -> None:
    weights = serving.DATA_DIR / "adapters" / adapter.name / "adapter_model.safetensors"
    if damage == "missing":
        weights.unlink()
    else:
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    asked = activated(adapter, alice)
    assert asked.state == Activation.State.FAILED
    assert damage in asked.error
    assert loaded(server) == set()


def test_what_the_server_cannot_load_is_refused_with_a_way_out(
    adapter: Adapter, alice: User, serving: Any
) -> None:
    adapter.contract = {"own": [], "tgi": ["TGI cannot load DoRA."]}
    adapter.save()
    serving.MODEL_SERVER_KIND = "tgi"
    with pytest.raises(ActivationRefused, match=r"cannot load DoRA\. Our own model server can"):
        ask_for(adapter, alice)
    serving.MODEL_SERVER_KIND = "vllm"
    with pytest.raises(ActivationRefused, match="never checked against what vLLM needs"):
        ask_for(adapter, alice)


def test_a_server_that_is_away_ends_it_with_a_sentence(
    adapter: Adapter, alice: User, serving: Any
) -> None:
    serving.MODEL_SERVER_ADMIN_URL = "http://127.0.0.1:9"
    asked = activated(adapter, alice)
    assert asked.state == Activation.State.FAILED
    assert "cannot be reached" in asked.error
    assert activated(adapter, alice).state == Activation.State.FAILED, "it may be tried again"


def test_a_server_that_answers_unknown_names_with_the_base_is_found_out(
    dataset: Dataset, alice: User, start_server: StartServer, models: Path, settings: Any,  # noqa: F811
    tmp_path: Path,
) -> None:  # fmt: skip
    misleading = start_server("--silent-fallback", adapters="")
    _point_at(misleading, settings, tmp_path)
    asked = activated(make(dataset, models, settings, "a"), alice)
    assert asked.state == Activation.State.FAILED
    assert "A made-up name is answered with 200" in asked.error
    assert speaker(alice) == ""


def test_one_at_a_time(adapter: Adapter, alice: User) -> None:
    ask_for(adapter, alice)
    with pytest.raises(ActivationRefused, match="on its way already"):
        ask_for(adapter, alice)


# --- Kills ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["place", "_load", "_probe", "_deploy"])
def test_a_worker_killed_at_any_step_is_followed_by_one_that_goes_on(
    adapter: Adapter, alice: User, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    asked = ask_for(adapter, alice)
    job = Job.objects.claim(Job.Kind.ACTIVATE)
    assert job is not None
    with monkeypatch.context() as patch:
        patch.setattr(activation, step, die)
        with pytest.raises(Killed):
            activation.activate(job)
    job.give_up_lease()

    work_off_activation()

    asked.refresh_from_db()
    assert asked.state == Activation.State.DEPLOYED
    assert ModelDeployment.objects.count() == 1


def test_a_job_that_was_given_up_ends_its_activation(adapter: Adapter, alice: User) -> None:
    asked = ask_for(adapter, alice)
    job = Job.objects.claim(Job.Kind.ACTIVATE)
    assert job is not None
    job.fail("Processing stopped 5 times.", code="exhausted")
    assert activation.end_abandoned() == 1
    asked.refresh_from_db()
    assert (asked.state, asked.error) == (Activation.State.FAILED, "Processing stopped 5 times.")


def test_a_retired_adapter_leaves_the_server_but_never_while_it_serves(
    adapter: Adapter, alice: User, server: Server
) -> None:
    done = activated(adapter, alice)
    with pytest.raises(ActivationRefused, match="Roll it back first"):
        activation.retire(adapter, alice)
    activation.roll_back(done, alice, reason="Old.")
    assert loaded(server) == {adapter.name}
    assert not AuditEvent.objects.filter(action="unloaded").exists(), "nothing was unloaded yet"
    activation.retire(adapter, alice, reason="A newer one answers.")
    adapter.refresh_from_db()
    assert loaded(server) == set()
    assert adapter.retired_at is not None
    assert not adapter.is_wanted
    told = AuditEvent.objects.get(action="unloaded")
    assert (told.user, told.subject_kind, told.subject_id) == (alice, "adapter", adapter.pk)
    assert told.collection == adapter.run.snapshot.dataset.collection
    assert told.detail == {"adapter": adapter.name, "reason": "A newer one answers."}


# --- The whole way -------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
async def test_an_answer_carries_the_name_of_what_spoke(
    dataset: Dataset,
    alice: User,
    models: Path,
    serving: Any,
    add_document: Any,
) -> None:
    from asgiref.sync import sync_to_async

    from kb import answering, chat
    from kb.models import Message

    def prepare() -> Message:
        add_document("glacier.md", "# Glacier\n\nThe glacier melts in late summer, in August.")
        activated(make(dataset, models, serving, "a"), alice)
        conversation = Conversation.objects.create(user=alice)
        return chat.ask(conversation, "When does the glacier melt?")

    pending = await sync_to_async(prepare)()
    await answering.answer(pending.pk)

    def look() -> None:
        answer = Message.objects.get(pk=pending.pk)
        assert (answer.state, answer.error) == ("done", "")
        assert answer.deployment is not None
        assert answer.deployment.adapter_name == NAMES["a"]

    await sync_to_async(look)()
