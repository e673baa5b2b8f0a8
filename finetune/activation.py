"""From an evaluated adapter to the readers, and back.

request → (a second person approves) → placed → loaded → probed → deployed. Each step is written
down before the next and may be repeated: a worker that is killed anywhere is followed by one that
goes on. Who speaks is a chain of deployments: whom the newest does not reach gets its `otherwise`.
What is said and who may do it: docs/serve.md.
"""

import logging
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from django.conf import settings
from django.contrib.auth.models import Group
from django.db import connection, transaction
from django.db.models import QuerySet
from django.utils import timezone

from finetune import checkpoints, loading, probe
from finetune.hyperparameters import Server
from finetune.models import Activation, Adapter, AuditEvent, Evaluation
from finetune.training import adapters_folder
from kb.backends import get_backend
from kb.models import Job, ModelDeployment, User
from kb.models.jobs import LeaseLost

logger = logging.getLogger(__name__)
State = Activation.State
UNDER_WAY = (State.WAITING, State.REQUESTED, State.PLACED, State.LOADED, State.PROBED)
BROKEN = "The activation stopped because of a fault in the program; the log has the details."
SERVER_NAMES = {"own": "our model server", "vllm": "vLLM", "tgi": "TGI"}
# Only one transaction at a time may change who speaks.
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('finetune.activation'))"


class ActivationRefused(Exception):
    """It cannot be done as asked; a sentence for the person."""


# --- What people ask for -------------------------------------------------------------------------


def gate(adapter: Adapter) -> list[str]:
    """Say what speaks against letting the adapter speak; none when its evaluation passed."""
    against = []
    newest = newest_evaluation(adapter)
    if newest is None:
        against.append("The adapter was not evaluated.")
    elif not newest.passed:
        lines = [line["sentence"] for line in newest.gate.get("lines", []) if not line["passed"]]
        against += lines or ["Its evaluation did not pass."]
    if adapter.erasure_note:
        against.append(adapter.erasure_note)
    return against


def newest_evaluation(adapter: Adapter) -> Evaluation | None:
    return adapter.evaluations.filter(state=Evaluation.State.DONE).order_by("-pk").first()


def unfit(adapter: Adapter) -> list[str]:
    """Say why the configured server cannot load the adapter; none when it can."""
    if not settings.MODEL_SERVER_URL:
        return ["No model server is set up (MODEL_SERVER_URL)."]
    kind = settings.MODEL_SERVER_KIND
    problems = adapter.contract.get(kind)
    if problems is None:
        return [f"The adapter was never checked against what {SERVER_NAMES[kind]} needs."]
    sentences: list[str] = list(problems)
    if sentences and kind != "own" and adapter.contract.get("own") == []:
        sentences.append("Our own model server can serve it.")
    return sentences


def request(
    adapter: Adapter,
    user: User,
    *,
    reason: str,
    share: float = 1.0,
    groups: Iterable[Group] = (),
    override_reason: str = "",
) -> Activation:
    """Ask that an adapter answers a share of the conversations. Raises ActivationRefused.

    Starts at once, or waits for `approve` by somebody else where the install wants that.
    `override_reason`: why it should although the gate says no; the name stays with it.
    """
    _check_managed(adapter, user)
    if not reason.strip():
        raise ActivationRefused("Say why: the reason is kept.")
    if not 0 < share <= 1:
        raise ActivationRefused("The share must be above 0 and at most 1.")
    if problems := unfit(adapter):
        raise ActivationRefused(" ".join(problems))
    if not override_reason.strip() and (problems := gate(adapter)):
        raise ActivationRefused(" ".join(problems))
    with transaction.atomic():
        Adapter.objects.select_for_update().get(pk=adapter.pk)
        if adapter.activations.filter(state__in=UNDER_WAY).exists():
            raise ActivationRefused("This adapter is on its way already.")
        activation = Activation.objects.create(
            adapter=adapter,
            state=State.WAITING,
            share=share,
            evaluation=newest_evaluation(adapter),
            requested_by=user,
            approved_by=user if override_reason.strip() else None,
            reason=reason.strip(),
            override_reason=override_reason.strip() if gate(adapter) else "",
        )
        activation.groups.set(groups)
        record(user, AuditEvent.Action.REQUESTED, activation)
        if not settings.SECOND_PERSON_ACTIVATES:
            _queue(activation)
    return activation


def approve(activation: Activation, user: User) -> None:
    """Start what another person asked for. Raises ActivationRefused."""
    _check_managed(activation.adapter, user)
    with transaction.atomic():
        held = Activation.objects.select_for_update().get(pk=activation.pk)
        if held.state != State.WAITING:
            raise ActivationRefused("It does not wait for a second person any more.")
        if held.requested_by_id == user.pk:
            raise ActivationRefused("Somebody else must approve what you asked for.")
        held.approved_by = user
        record(user, AuditEvent.Action.APPROVED, held)
        _queue(held)


def withdraw(activation: Activation, user: User) -> None:
    """Take back what waits for a second person. Raises ActivationRefused."""
    _check_managed(activation.adapter, user)
    sentence = f"Taken back by {user.display_name}."
    waiting = Activation.objects.filter(pk=activation.pk, state=State.WAITING)
    with transaction.atomic():
        if not waiting.update(state=State.FAILED, error=sentence, ended_at=timezone.now()):
            raise ActivationRefused("It does not wait for a second person any more.")
        record(user, AuditEvent.Action.UNDONE, activation)


def _queue(activation: Activation) -> None:
    activation.state = State.REQUESTED
    activation.job = Job.objects.create(kind=Job.Kind.ACTIVATE)
    activation.save(update_fields=["state", "job", "approved_by"])


def _check_managed(adapter: Adapter, user: User | None) -> None:
    if user is None or not Adapter.objects.managed_by(user).filter(pk=adapter.pk).exists():
        raise ActivationRefused("Only owners of the collection decide about this adapter.")


def record(user: User | None, action: str, activation: Activation, **detail: object) -> None:
    """Write a decision into the audit log of the adapter's collection."""
    adapter = activation.adapter
    AuditEvent.objects.record(
        user, action, activation, adapter.run.snapshot.dataset.collection,
        adapter=adapter.name, share=activation.share, reason=activation.reason,
        override=activation.override_reason, **detail,
    )  # fmt: skip


# --- The way to the readers ----------------------------------------------------------------------


def activate(job: Job) -> None:
    """Bring a claimed activation to the readers, or end it with a sentence and nothing changed."""
    activation = Activation.objects.select_related(
        "adapter__run__snapshot__dataset__collection", "requested_by"
    ).get(job=job)
    try:
        with job.heartbeat():
            _place(activation.adapter)
            _step(activation, job, State.PLACED, 1)
            _load(activation.adapter)
            _step(activation, job, State.LOADED, 2)
            _probe(activation)
            _step(activation, job, State.PROBED, 3)
        with job.publishing():
            _deploy(activation)
    except (ActivationRefused, loading.LoadingFailed, probe.ProbeError) as error:
        _fail(activation, job, str(error))
    except LeaseLost:
        logger.info("job %s was taken over by another worker", job.pk)
    except Exception:
        _fail(activation, job, BROKEN)
        raise


def _step(activation: Activation, job: Job, state: str, number: int) -> None:
    """Write down how far it is. Raises LeaseLost."""
    with transaction.atomic():
        job.report(state, number, 4)
        Activation.objects.filter(pk=activation.pk).update(state=state, probe=activation.probe)


def folder_of(adapter: Adapter) -> Path:
    return adapters_folder() / adapter.name


def _place(adapter: Adapter) -> None:
    """Make sure that the files lie where the server reads them, unchanged since registration."""
    if problems := unfit(adapter):
        raise ActivationRefused(" ".join(problems))
    folder = folder_of(adapter)
    if not adapter.files:
        raise ActivationRefused("No file of this adapter was ever registered.")
    for name, digest in adapter.files.items():
        path = folder / name
        if not path.is_file():
            raise ActivationRefused(f"{name} is missing in {folder}.")
        if checkpoints.sha256_of(path) != digest:
            raise ActivationRefused(f"{name} has changed since the adapter was registered.")


def _loader() -> loading.Loader:
    if settings.MODEL_SERVER_KIND == "tgi":
        folder = Path(settings.TGI_SUPERVISOR_DIR)
        folder.mkdir(parents=True, exist_ok=True)
        return loading.SupervisedLoader(folder)
    return loading.RuntimeLoader(settings.MODEL_SERVER_ADMIN_URL, settings.MODEL_SERVER_KEY)


def why_unserved(name: str) -> str:
    """Say why an adapter must not be asked now; "" when the server has it or refuses by itself.

    TGI answers a name that it does not have with the base model, so its supervisor is believed.
    """
    if settings.MODEL_SERVER_KIND != "tgi":
        return ""
    if name in loading.read_state(Path(settings.TGI_SUPERVISOR_DIR)).serving:
        return ""
    return f"The model server does not have the adapter “{name}” now."


def _load(adapter: Adapter) -> None:
    Adapter.objects.filter(pk=adapter.pk).update(is_wanted=True, retired_at=None)
    _loader().ensure_loaded(loading.Placed(adapter.name, str(folder_of(adapter))))


def _probe(activation: Activation) -> None:
    report = prove(activation.adapter)
    activation.probe = {"passed": report.passed, "findings": [asdict(f) for f in report.findings]}
    if not report.passed:
        Activation.objects.filter(pk=activation.pk).update(probe=activation.probe)
        raise ActivationRefused(report.reason)


def prove(adapter: Adapter) -> probe.Report:
    """Ask the live server whether it really uses the adapter. Raises ProbeError."""
    kind: Server = settings.MODEL_SERVER_KIND  # type: ignore[assignment]
    base = get_backend("GENERATOR").base_model
    target = probe.Target(settings.MODEL_SERVER_URL, kind, settings.MODEL_SERVER_KEY, base)
    folder = folder_of(adapter)
    if not (folder / probe.FILE).exists():
        return probe.probe_without_reference(target, adapter.name)
    return probe.probe(target, adapter.name, probe.Reference.read(folder))


def _deploy(activation: Activation) -> None:
    """Append the deployment; in the transaction that ends the job. Raises ActivationRefused."""
    adapter, user = activation.adapter, activation.requested_by
    _lock()
    adapter.refresh_from_db()
    _check_managed(adapter, user)
    if not activation.override_reason and (problems := gate(adapter)):
        raise ActivationRefused(" ".join(problems))
    base = get_backend("GENERATOR").base_model
    groups = list(activation.groups.all())
    others = [layer for layer in speaking(base) if layer.adapter_name != adapter.name]
    deployment = ModelDeployment.objects.create(
        base_model=base,
        adapter_name=adapter.name,
        share=activation.share,
        audience_size=adapter.audience_size,
        otherwise=others[0] if others else None,
        created_by=user,
        reason=activation.reason,
    )
    deployment.audience.set(adapter.audience.all())
    deployment.groups.set(groups)
    former = Activation.objects.filter(state=State.DEPLOYED, deployment__base_model=base)
    if activation.share < 1 or groups:
        former = former.filter(adapter=adapter)
    former.update(state=State.REPLACED, ended_at=timezone.now())
    Activation.objects.filter(pk=activation.pk).update(
        state=State.DEPLOYED, deployment=deployment, deployed_at=timezone.now()
    )
    record(user, AuditEvent.Action.ACTIVATED, activation, deployment=deployment.pk)


def _lock() -> None:
    with connection.cursor() as cursor:
        cursor.execute(_LOCK)


def _fail(activation: Activation, job: Job, sentence: str) -> None:
    """End it and free the server's memory again, unless the adapter speaks already."""
    with transaction.atomic():
        if not job.fail(sentence, code="refused"):
            return
        _end_failed(activation, sentence)
    adapter = activation.adapter
    if adapter.name in speaking_names():
        return
    Adapter.objects.filter(pk=adapter.pk).update(is_wanted=False)
    try:
        _loader().unload(adapter.name)
    except loading.LoadingFailed as error:
        logger.warning("%s stays loaded: %s", adapter.name, error)


def _end_failed(activation: Activation, sentence: str) -> None:
    Activation.objects.filter(pk=activation.pk, state__in=UNDER_WAY).update(
        state=State.FAILED, error=sentence, ended_at=timezone.now()
    )


def end_abandoned() -> int:
    """End activations whose job was given up because its workers died; gives their number."""
    left = Activation.objects.filter(state__in=UNDER_WAY, job__state=Job.State.FAILED)
    for activation in (found := list(left.select_related("job"))):
        _end_failed(activation, activation.job.error if activation.job else "")
    return len(found)


# --- Who speaks ----------------------------------------------------------------------------------


def speaking(base_model: str) -> list[ModelDeployment]:
    """Give the chain of deployments that answer now, the one that is asked first in front."""
    rows = ModelDeployment.objects.filter(base_model=base_model)
    layer, layers = rows.order_by("-pk").first(), []
    while layer is not None:
        layers.append(layer)
        layer = layer.otherwise
    return layers


def speaking_names() -> set[str]:
    """Name the adapters that some reader may be answered by now."""
    base = get_backend("GENERATOR").base_model
    return {layer.adapter_name for layer in speaking(base) if layer.adapter_name}


# --- And back ------------------------------------------------------------------------------------


def what_would_serve(activation: Activation) -> ModelDeployment | None:
    """Give what speaks first once this adapter is taken back; None for the base model alone."""
    assert activation.deployment is not None
    layers = speaking(activation.deployment.base_model)
    left = [layer for layer in layers if layer.adapter_name != activation.adapter.name]
    return left[0] if left else None


def roll_back(activation: Activation, user: User, *, reason: str) -> ModelDeployment:
    """Take a deployed adapter back: what served before serves again, at once.

    Only when the server still has that one, which is asked of it. Raises ActivationRefused.
    """
    _check_managed(activation.adapter, user)
    if activation.state != State.DEPLOYED:
        raise ActivationRefused("It does not serve any more.")
    following = what_would_serve(activation)
    if following is not None and following.adapter_name:
        _check_loaded(following.adapter_name)
    return take_back(activation, user, state=State.ROLLED_BACK, reason=reason.strip())


def _check_loaded(name: str) -> None:
    adapter = Adapter.objects.filter(name=name).first()
    problem = "it is not registered here."
    if adapter is not None:
        try:
            report = prove(adapter)
            problem = report.reason
        except probe.ProbeError as error:
            problem = str(error)
    if problem:
        raise ActivationRefused(
            f"“{name}”, which served before, cannot serve now: {problem} Activate it anew instead."
        )


def take_back(
    activation: Activation, user: User | None, *, state: str, reason: str
) -> ModelDeployment:
    """Append the chain without this adapter. Raises ActivationRefused when it ended meanwhile."""
    with transaction.atomic():
        _lock()
        ended = Activation.objects.filter(pk=activation.pk, state=State.DEPLOYED).update(
            state=state, ended_at=timezone.now(), error=reason if state == State.STOPPED else ""
        )
        if not ended:
            raise ActivationRefused("It does not serve any more.")
        assert activation.deployment is not None
        base, name = activation.deployment.base_model, activation.adapter.name
        appended = _append_without(name, base, user, reason)
        stopped = state == State.STOPPED
        action = AuditEvent.Action.STOPPED if stopped else AuditEvent.Action.ROLLED_BACK
        record(user, action, activation, because=reason, deployment=appended.pk)
    return appended


def _append_without(name: str, base: str, user: User | None, reason: str) -> ModelDeployment:
    """Copy the layers above the adapter, and at least the one below, so that it is the newest."""
    layers = speaking(base)
    last = max((at for at, layer in enumerate(layers) if layer.adapter_name == name), default=-1)
    above = [layer for layer in layers[:last] if layer.adapter_name != name]
    below = layers[last + 1 :]
    if above or below:
        again, rest = (above, below[0] if below else None)
        if not above:
            again, rest = below[:1], below[0].otherwise
    else:
        again, rest = [ModelDeployment(base_model=base)], None
    for layer in reversed(again):
        rest = _append_copy(layer, otherwise=rest, user=user, reason=reason)
    assert rest is not None
    Activation.objects.filter(deployment=rest, state=State.REPLACED).update(
        state=State.DEPLOYED, ended_at=None
    )
    return rest


def _append_copy(
    layer: ModelDeployment, *, otherwise: ModelDeployment | None, user: User | None, reason: str
) -> ModelDeployment:
    made = ModelDeployment.objects.create(
        base_model=layer.base_model,
        adapter_name=layer.adapter_name,
        share=layer.share,
        audience_size=layer.audience_size,
        otherwise=otherwise,
        created_by=user,
        reason=reason,
    )
    if layer.pk:
        made.audience.set(layer.audience.all())
        made.groups.set(layer.groups.all())
        Activation.objects.filter(deployment=layer).update(deployment=made)
    return made


def retire(adapter: Adapter, user: User) -> None:
    """Take an adapter that answers nobody off the server. Raises ActivationRefused."""
    _check_managed(adapter, user)
    if adapter.name in speaking_names():
        raise ActivationRefused("It may still answer somebody. Roll it back first.")
    if adapter.activations.filter(state__in=UNDER_WAY).exists():
        raise ActivationRefused("This adapter is on its way already.")
    try:
        _loader().unload(adapter.name)
    except loading.LoadingFailed as error:
        raise ActivationRefused(str(error)) from error
    now = timezone.now()
    Adapter.objects.filter(pk=adapter.pk).update(is_wanted=False, retired_at=now)


def visible_to(user: User) -> QuerySet[Activation]:
    """Give the activations of adapters that the person manages."""
    managed = Adapter.objects.managed_by(user).values("pk")
    return Activation.objects.filter(adapter__in=managed).select_related(
        "adapter__run__snapshot__dataset__collection",
        "requested_by", "approved_by", "deployment", "job",
    )  # fmt: skip
