"""From an evaluated adapter to the readers, and back.

request → (a second person approves) → placed → loaded → probed → deployed. Each step is written
down before the next and may be repeated: a worker that is killed anywhere is followed by one that
goes on. Who speaks is a chain of deployments: whom the newest does not reach gets its `otherwise`.
An activation is DEPLOYED exactly while some reader can be answered by it, and REPLACED while it
only waits in the chain to serve again. What is said and who may do it: docs/serve.md.
"""

import logging
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from django.conf import settings
from django.contrib.auth.models import Group
from django.db import connection, transaction
from django.db.models import QuerySet, prefetch_related_objects
from django.utils import timezone
from django.utils.translation import gettext as _

from finetune import checkpoints, loading, probe
from finetune.hyperparameters import Server
from finetune.models import Activation, Adapter, AuditEvent, Evaluation
from finetune.training import adapters_folder
from kb.backends import get_backend
from kb.generators.chat_completions import STARTING
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
    groups = activation.groups.order_by("name").values_list("name", flat=True)
    AuditEvent.objects.record(
        user, action, activation, adapter.run.snapshot.dataset.collection,
        adapter=adapter.name, share=activation.share, groups=list(groups),
        reason=activation.reason, override=activation.override_reason, **detail,
    )  # fmt: skip


# --- The way to the readers ----------------------------------------------------------------------


def activate(job: Job) -> None:
    """Bring a claimed activation to the readers, or end it with a sentence and nothing changed."""
    activation = Activation.objects.select_related(
        "adapter__run__snapshot__dataset__collection", "requested_by"
    ).get(job=job)
    try:
        with job.heartbeat():
            place(activation.adapter)
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


def place(adapter: Adapter) -> None:
    """Make sure that the files lie where the server reads them, unchanged since registration.

    Raises ActivationRefused.
    """
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


def loader(*, wait_s: float = loading.CHANGE_TIMEOUT_S) -> loading.Loader:
    """Give what loads adapters onto the configured server. `wait_s`: for TGI to change its set."""
    if settings.MODEL_SERVER_KIND == "tgi":
        folder = Path(settings.TGI_SUPERVISOR_DIR)
        folder.mkdir(parents=True, exist_ok=True)
        return loading.SupervisedLoader(folder, wait_s)
    return loading.RuntimeLoader(settings.MODEL_SERVER_ADMIN_URL, settings.MODEL_SERVER_KEY)


def why_unserved(name: str) -> str:
    """Say why an adapter must not be asked now; "" when the server has it or refuses by itself.

    TGI answers a name that it does not have with the base model, so its supervisor is believed.
    """
    if settings.MODEL_SERVER_KIND != "tgi":
        return ""
    try:
        state = loading.read_state(Path(settings.TGI_SUPERVISOR_DIR))
    except (OSError, ValueError) as error:
        logger.error("the state of TGI's supervisor cannot be read: %s", error)
        return STARTING
    if name in state.serving:
        return ""
    if not state.instances:
        return STARTING
    return f"The model server does not have the adapter “{name}” now."


def _load(adapter: Adapter) -> None:
    Adapter.objects.filter(pk=adapter.pk).update(is_wanted=True, retired_at=None)
    loader().ensure_loaded(loading.Placed(adapter.name, str(folder_of(adapter))))


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
    others = [layer for layer in chain(base) if layer.adapter_name != adapter.name]
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
    Activation.objects.filter(pk=activation.pk).update(
        state=State.DEPLOYED, deployment=deployment, deployed_at=timezone.now()
    )
    _settle(base)
    record(user, AuditEvent.Action.ACTIVATED, activation, deployment=deployment.pk)


def _lock() -> None:
    with connection.cursor() as cursor:
        cursor.execute(_LOCK)


def _fail(activation: Activation, job: Job, sentence: str) -> None:
    """End it and free the server's memory again, unless the adapter serves or waits to."""
    with transaction.atomic():
        if not job.fail(sentence, code="refused"):
            return
        _end_failed(activation, sentence)
    adapter = activation.adapter
    if adapter.name in {layer.adapter_name for layer in chain(get_backend("GENERATOR").base_model)}:
        return
    Adapter.objects.filter(pk=adapter.pk).update(is_wanted=False)
    try:
        loader().unload(adapter.name)
    except loading.LoadingFailed as error:
        logger.warning("%s stays loaded: %s", adapter.name, error)


def _end_failed(activation: Activation, sentence: str) -> None:
    open_ = Activation.objects.filter(pk=activation.pk, state__in=UNDER_WAY)
    with transaction.atomic():
        if open_.update(state=State.FAILED, error=sentence, ended_at=timezone.now()):
            record(None, AuditEvent.Action.FAILED, activation, because=sentence)


def end_abandoned() -> int:
    """End activations whose job was given up because its workers died; gives their number."""
    left = Activation.objects.filter(state__in=UNDER_WAY, job__state=Job.State.FAILED)
    for activation in (found := list(left.select_related("job"))):
        _end_failed(activation, activation.job.error if activation.job else "")
    return len(found)


# --- Who speaks ----------------------------------------------------------------------------------


def chain(base_model: str) -> list[ModelDeployment]:
    """Give the deployments as they are asked, also those that nobody reaches any more."""
    rows = ModelDeployment.objects.filter(base_model=base_model)
    layer, layers = rows.order_by("-pk").first(), []
    while layer is not None:
        layers.append(layer)
        layer = layer.otherwise
    prefetch_related_objects(layers, "audience", "groups")
    return layers


def speaking(base_model: str) -> list[ModelDeployment]:
    """Give the deployments that some reader can be answered by, asked first in front."""
    return _reached(chain(base_model))


def _reached(layers: list[ModelDeployment]) -> list[ModelDeployment]:
    return [
        layer
        for at, layer in enumerate(layers)
        if not any(_takes_all_of(upper, layer) for upper in layers[:at])
    ]


def _takes_all_of(upper: ModelDeployment, lower: ModelDeployment) -> bool:
    """Say whether everybody whom `lower` could answer is answered by `upper` already."""
    if not upper.adapter_name:
        return True
    if upper.share < 1 or upper.groups.all():
        return False
    needed, read = set(upper.audience.all()), set(lower.audience.all())
    # What learned from a collection that was deleted reaches administrators alone.
    if lower.adapter_name and len(read) < lower.audience_size:
        return True
    return len(needed) == upper.audience_size and needed <= read


def _settle(base_model: str) -> None:
    """Let the states of the activations follow from who speaks; in the transaction of a change."""
    reached = [layer.pk for layer in speaking(base_model)]
    rows = Activation.objects.filter(deployment__base_model=base_model)
    rows.filter(state=State.REPLACED, deployment__in=reached).update(
        state=State.DEPLOYED, ended_at=None
    )
    rows.filter(state=State.DEPLOYED).exclude(deployment__in=reached).update(
        state=State.REPLACED, ended_at=timezone.now()
    )


def speaking_adapters() -> dict[str, ModelDeployment]:
    """Give whom each adapter may answer now, by its name; only those that some reader gets."""
    layers = speaking(get_backend("GENERATOR").base_model)
    return {layer.adapter_name: layer for layer in layers if layer.adapter_name}


def speaking_names() -> set[str]:
    """Name the adapters that some reader may be answered by now."""
    return set(speaking_adapters())


def seen_name(layer: ModelDeployment | None, user: User) -> str | None:
    """Give the adapter's name; "" for the base model, None where the person may not see it."""
    name = layer.adapter_name if layer is not None else ""
    if name and not Adapter.objects.visible_to(user).filter(name=name).exists():
        return None
    return name


def shown_name(layer: ModelDeployment | None, user: User) -> str:
    """Name what answers in words that the person may read."""
    seen = seen_name(layer, user)
    if seen is None:
        return _("An adapter of other collections")
    return seen or _("The base model alone")


# --- And back ------------------------------------------------------------------------------------


def what_would_serve(activation: Activation) -> list[ModelDeployment]:
    """Give the adapters that answer its readers once this one is taken back; none for the base.

    The first is asked first; of the others only those that nobody is answered by today.
    """
    assert activation.deployment is not None
    layers, name = chain(activation.deployment.base_model), activation.adapter.name
    today, names = _reached(layers), [layer.adapter_name for layer in layers]
    left = [layer for layer in layers if layer.adapter_name != name]
    below = layers[names.index(name) :] if name in names else layers
    reached = [layer for layer in _reached(left) if layer in below and layer.adapter_name]
    return reached[:1] + [layer for layer in reached[1:] if layer not in today]


def roll_back(activation: Activation, user: User, *, reason: str) -> str:
    """Take a deployed adapter back: what served before serves again, at once; gives its name.

    Only when the server still has that one, which is asked of it. Raises ActivationRefused.
    """
    _check_managed(activation.adapter, user)
    if activation.state != State.DEPLOYED:
        raise ActivationRefused("It does not serve any more.")
    following = what_would_serve(activation)
    for layer in following:
        _check_loaded(layer, user)
    take_back(activation, user, state=State.ROLLED_BACK, reason=reason.strip())
    return shown_name(following[0] if following else None, user)


def _check_loaded(layer: ModelDeployment, user: User) -> None:
    adapter = Adapter.objects.filter(name=layer.adapter_name).first()
    problem = "it is not registered here."
    if adapter is not None:
        try:
            report = prove(adapter)
            problem = report.reason
        except probe.ProbeError as error:
            problem = str(error)
    if problem:
        shown = shown_name(layer, user)
        if seen_name(layer, user) is None:  # the problem names it, too
            raise ActivationRefused(f"{shown}, which served before, cannot serve now.")
        raise ActivationRefused(
            f"“{shown}”, which served before, cannot serve now: {problem} Activate it anew instead."
        )


def take_back(activation: Activation, user: User | None, *, state: str, reason: str) -> None:
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
        _settle(base)
        stopped = state == State.STOPPED
        action = AuditEvent.Action.STOPPED if stopped else AuditEvent.Action.ROLLED_BACK
        record(user, action, activation, because=reason, deployment=appended.pk)


def leave_out(adapter: Adapter, user: User, *, reason: str) -> None:
    """Take an adapter that answers nobody out of every chain, so that no way back leads to it.

    In the transaction that deletes it.
    """
    _lock()
    bases = ModelDeployment.objects.order_by().values_list("base_model", flat=True).distinct()
    for base in list(bases):
        if any(layer.adapter_name == adapter.name for layer in chain(base)):
            _append_without(adapter.name, base, user, reason)
            _settle(base)


def _append_without(name: str, base: str, user: User | None, reason: str) -> ModelDeployment:
    """Copy the layers above the adapter, and at least the one below, so that it is the newest."""
    layers = chain(base)
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


def retire(adapter: Adapter, user: User, *, reason: str = "") -> None:
    """Take an adapter that answers nobody off the server, and out of the chain that leads back.

    Raises ActivationRefused.
    """
    _check_managed(adapter, user)
    if adapter.name in speaking_names():
        raise ActivationRefused("It may still answer somebody. Roll it back first.")
    if adapter.activations.filter(state__in=UNDER_WAY).exists():
        raise ActivationRefused("This adapter is on its way already.")
    try:
        loader().unload(adapter.name)
    except loading.LoadingFailed as error:
        raise ActivationRefused(str(error)) from error
    with transaction.atomic():
        _lock()
        deployed = adapter.activations.filter(deployment__isnull=False)
        for base in set(deployed.values_list("deployment__base_model", flat=True)):
            if adapter.name in {layer.adapter_name for layer in chain(base)}:
                _append_without(adapter.name, base, user, f"{adapter.name} was unloaded.")
                _settle(base)
        now = timezone.now()
        Adapter.objects.filter(pk=adapter.pk).update(is_wanted=False, retired_at=now)
        AuditEvent.objects.record(
            user, AuditEvent.Action.UNLOADED, adapter, adapter.run.snapshot.dataset.collection,
            adapter=adapter.name, reason=reason.strip(),
        )  # fmt: skip


def visible_to(user: User) -> QuerySet[Activation]:
    """Give the activations of adapters that the person manages."""
    managed = Adapter.objects.managed_by(user).values("pk")
    return Activation.objects.filter(adapter__in=managed).select_related(
        "adapter__run__snapshot__dataset__collection",
        "requested_by", "approved_by", "deployment", "job",
    )  # fmt: skip
