"""What was learned from a document or a person, and how that is undone.

A model cannot forget a row. So the pairs turn stale, which keeps them out of the next snapshot;
what is erased is kept as a row, so that no run starts on a snapshot that holds it and an adapter
that comes out later is marked, too; the adapters that saw it are marked, which closes their gate;
a run on a new snapshot replaces them. Its words go from evaluations, the arena, pre-flights and
what the probe compares with. A frozen snapshot never changes: it is named, and can be deleted once
its runs are.
"""

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from django.db import transaction
from django.db.models import Q, QuerySet

from finetune import activation, checkpoints, evaluation, loading, probe, snapshots, staleness
from finetune.models import (
    Activation,
    Adapter,
    AuditEvent,
    Dataset,
    DatasetSnapshot,
    ErasedCopy,
    Erasure,
    Evaluation,
    InstructionPair,
    PairSource,
    SnapshotRow,
    TrainingRun,
)
from finetune.training import adapters_folder, folder_of
from kb.models import Collection, Document, Job, ModelDeployment, User
from kb.models.documents import delete_unused_files

State = InstructionPair.State


@dataclass(frozen=True, slots=True)
class Subject:
    """A document, by the id that outlives it, or a person. `name`: as people know it."""

    kind: str
    key: int
    name: str


@dataclass(frozen=True, slots=True)
class Traces:
    """What learned from a subject, as far as the asking person owns it.

    `rows`: of the snapshots; `learned`: the snapshots that teach it and do not only ask it.
    `runs`: on the snapshots. `speaking`: names of the adapters that may answer somebody now. `merged`: folders of
    models that an adapter was merged into, which nothing here can take back. `datasets`: to train
    again.
    """

    subject: Subject
    pairs: QuerySet[InstructionPair]
    rows: QuerySet[SnapshotRow]
    snapshots: QuerySet[DatasetSnapshot]
    learned: QuerySet[DatasetSnapshot]
    runs: QuerySet[TrainingRun]
    adapters: QuerySet[Adapter]
    speaking: list[str]
    merged: list[str]
    datasets: QuerySet[Dataset]

    @property
    def is_empty(self) -> bool:
        return not (self.pairs.exists() or self.snapshots.exists())

    @property
    def open_pairs(self) -> int:
        """How many pairs a snapshot could still take."""
        return self.pairs.filter(state__in=[State.APPROVED, State.SUGGESTED]).count()

    @property
    def open_snapshots(self) -> int:
        """How many of the snapshots runs may still start on."""
        subject = self.subject
        known = Erasure.objects.filter(kind=subject.kind, key=subject.key)
        return self.snapshots.exclude(erased_copies__erasure__in=known).count()


def find_documents(user: User, text: str) -> list[Subject]:
    """Find documents of the person's collections by id or name, also deleted ones.

    Several may bear one name; the newest comes first.
    """
    owned = Collection.objects.owned_by(user)
    key = int(text) if text.isdecimal() and len(text) < 19 else 0
    standing = Document.objects.filter(Q(pk=key) | Q(name=text), collection__in=owned)
    sources = PairSource.objects.filter(
        Q(document_key=key) | Q(document_name=text), pair__collection__in=owned
    )
    found = dict(sources.order_by("pk").values_list("document_key", "document_name"))
    found |= dict(standing.values_list("pk", "name"))
    return [Subject("document", pk, name) for pk, name in sorted(found.items(), reverse=True)]


def find_people(user: User, username: str) -> list[Subject]:
    """Find a person who wrote or asked what the person's pairs were made of."""
    person = User.objects.filter(username=username).first()
    if person is None or not (user.is_superuser or _pairs_of_person(user, person.pk).exists()):
        return []
    return [Subject("person", person.pk, person.username)]


def trace(subject: Subject, user: User) -> Traces:
    """Find what learned from a subject in the collections that the person owns."""
    owned = Collection.objects.owned_by(user)
    if subject.kind == "document":
        pairs = _owned_pairs(user).filter(
            pk__in=PairSource.objects.filter(document_key=subject.key).values("pair")
        )
        frozen = snapshots.using_document(subject.key)
        learned = Q(document_keys__contains=[subject.key])
        beside = frozen.filter(manifest__distractor_documents__contains=subject.key)
    else:
        pairs = _pairs_of_person(user, subject.key)
        learned = Q(pair__in=pairs)
        beside = DatasetSnapshot.objects.none()
        frozen = DatasetSnapshot.objects.filter(
            pk__in=SnapshotRow.objects.filter(learned).values("snapshot")
        )
    frozen = frozen.filter(dataset__collection__in=owned)
    rows = SnapshotRow.objects.filter(learned, snapshot__in=frozen)
    # The test part is asked, not learned.
    taught = rows.exclude(split=SnapshotRow.Split.TEST)
    teaching = frozen.filter(Q(pk__in=taught.values("snapshot")) | Q(pk__in=beside.values("pk")))
    adapters = Adapter.objects.filter(run__snapshot__in=teaching)
    speaking = activation.speaking_names()
    return Traces(
        subject,
        pairs.order_by("pk"),
        rows,
        frozen.select_related("dataset").order_by("dataset", "number"),
        teaching,
        TrainingRun.objects.filter(snapshot__in=frozen),
        adapters.select_related("run__snapshot__dataset__collection").order_by("pk"),
        sorted(set(adapters.values_list("name", flat=True)) & speaking),
        _merged(adapters),
        Dataset.objects.filter(
            Q(pk__in=pairs.values("dataset")) | Q(snapshots__in=frozen)
        ).distinct(),
    )


def _merged(adapters: QuerySet[Adapter]) -> list[str]:
    events = AuditEvent.objects.filter(
        action=AuditEvent.Action.EXPORTED,
        subject_kind="adapter",
        subject_id__in=adapters.values("pk"),
    )
    return sorted(set(events.values_list("detail__merged", flat=True)))


def _owned_pairs(user: User) -> QuerySet[InstructionPair]:
    return InstructionPair.objects.visible_to(user).filter(
        collection__in=Collection.objects.owned_by(user)
    )


def _pairs_of_person(user: User, person: int) -> QuerySet[InstructionPair]:
    """Pairs that the person typed, or that came from an answer in a conversation of theirs."""
    return _owned_pairs(user).filter(Q(author=person) | Q(message__conversation__user=person))


@dataclass(frozen=True, slots=True)
class Erased:
    """How many pairs turned stale, and which adapters were marked."""

    pairs: int
    adapters: list[str]


def erase(subject: Subject, user: User, *, reason: str) -> Erased:
    """Turn the pairs stale and mark the adapters, in one transaction. May be repeated.

    What freezes or trains meanwhile waits for it, or it for that.
    """
    with transaction.atomic():
        _wait_for(trace(subject, user).datasets)
        found = trace(subject, user)
        sentence = _sentence(subject)
        keys = list(found.pairs.values_list("pk", flat=True))
        stale = staleness.mark_stale(dict.fromkeys(keys, sentence))
        # What nobody approved yet must not be approved without this being seen.
        stale += InstructionPair.objects.filter(pk__in=keys, state=State.SUGGESTED).update(
            state=State.STALE, stale_reason=sentence
        )
        # Also of pairs that were deleted since.
        erasure = _write_down(found, {*keys, *found.rows.values_list("pair_id", flat=True)})
        Erasure.objects.filter(pk=erasure.pk).update(by=user, reason=reason)
        evaluation.forget(erasure.pair_ids)
        note = erasure.note_for_adapters
        marked = [adapter for adapter in found.adapters if note not in adapter.erasure_note]
        for adapter in marked:
            adapter.erasure_note = f"{adapter.erasure_note} {note}".strip()
            adapter.save(update_fields=["erasure_note"])
        for run in found.runs.select_related("adapter"):
            _forget_words(run, erasure)
        for dataset in found.datasets:
            AuditEvent.objects.record(
                user, AuditEvent.Action.ERASED, dataset, dataset.collection,
                erased=[subject.kind, subject.key], pairs=len(keys), reason=reason,
                adapters=[adapter.name for adapter in marked],
            )  # fmt: skip
    return Erased(stale, [adapter.name for adapter in marked])


def _wait_for(datasets: QuerySet[Dataset]) -> None:
    """Lock data sets, in order: a snapshot or an adapter of them is written before this or after."""
    keys = list(datasets.values_list("pk", flat=True))
    list(Dataset.objects.select_for_update().filter(pk__in=keys).order_by("pk"))


def _write_down(found: Traces, pairs: Iterable[int]) -> Erasure:
    subject = found.subject
    erasure = Erasure.objects.create(
        kind=subject.kind, key=subject.key, name=subject.name[:300], pair_ids=sorted(pairs)
    )
    learned = set(found.learned.values_list("pk", flat=True))
    ErasedCopy.objects.bulk_create(
        ErasedCopy(erasure=erasure, snapshot=each, is_learned=each.pk in learned)
        for each in found.snapshots
    )
    return erasure


def _forget_words(run: TrainingRun, erasure: Erasure) -> None:
    """Take the words out of what a run left beside its weights."""
    TrainingRun.objects.filter(pk=run.pk).update(
        preflight={key: value for key, value in run.preflight.items() if key != "example"}
    )
    for left in _left_by_killed_agents(run):
        left.unlink(missing_ok=True)
    asked = _prompts(run, erasure)
    forget_reference(folder_of(run) / "reference", asked)
    adapter = Adapter.objects.filter(run=run).first()
    if adapter is not None and (placed := adapters_folder() / adapter.name).is_dir():
        forget_reference(placed, asked)
        if probe.FILE in adapter.files:
            adapter.files = _hash_again(placed, adapter.files)
            adapter.save(update_fields=["files"])


def _left_by_killed_agents(run: TrainingRun) -> list[Path]:
    """Find what evaluations were to ask; one that runs takes its own away at its end."""
    living = Evaluation.objects.filter(adapter__run=run, job__state=Job.State.RUNNING)
    own = {f"evaluation-{pk}.json" for pk in living.values_list("pk", flat=True)}
    return [left for left in folder_of(run).glob("evaluation-*.json") if left.name not in own]


def _prompts(run: TrainingRun, erasure: Erasure) -> list[list[dict[str, str]]]:
    """Give what the erased rows of a run's snapshot ask; nothing where no row is known to."""
    erased = Q(pair_id__in=erasure.pair_ids)
    if erasure.kind == Erasure.Kind.DOCUMENT:
        erased |= Q(document_keys__contains=[erasure.key])
    lines = SnapshotRow.objects.filter(erased, snapshot=run.snapshot_id).values_list("line")
    return [json.loads(line)["messages"][:-1] for (line,) in lines]


def forget_reference(folder: Path, asked: list[list[dict[str, str]]]) -> None:
    """Drop what the probe compares with where it was asked one of these; all of it without any.

    The rest still proves that a server uses the adapter. What cannot be read goes as a whole.
    """
    try:
        known = probe.Reference.read(folder)
        kept = tuple(each for each in known.samples if list(each.messages) not in asked)
    except probe.ProbeError:
        kept = ()
    if kept and asked:
        probe.Reference(kept, known.tokens).write(folder)
    else:
        (folder / probe.FILE).unlink(missing_ok=True)


def _hash_again(placed: Path, files: dict[str, str]) -> dict[str, str]:
    """Note the hash of what the probe compares with anew, beside the weights too."""
    files = {name: digest for name, digest in files.items() if name != probe.FILE}
    if (placed / probe.FILE).exists():
        files[probe.FILE] = checkpoints.sha256_of(placed / probe.FILE)
    manifest = placed / checkpoints.MANIFEST
    if manifest.exists():
        loading.write_json(manifest, {**json.loads(manifest.read_text()), "files": files})
    return files


def _sentence(subject: Subject) -> str:
    if subject.kind == "document":
        return f"“{subject.name}” must be forgotten."[:300]
    return f"What {subject.name} wrote must be forgotten."[:300]


# --- What keeps a copy is deleted ----------------------------------------------------------------


class StillNeeded(Exception):
    """It cannot be deleted now; a sentence for the person."""


def delete_run(run: TrainingRun, user: User) -> None:
    """Delete a run that is over, with its adapter, its evaluations and all their files.

    Raises StillNeeded while something works on it or its adapter may still answer somebody.
    """
    with transaction.atomic():
        run = TrainingRun.objects.select_for_update(of=("self",)).get(pk=run.pk)
        adapter = Adapter.objects.select_for_update().filter(run=run).first()
        jobs = _jobs_of(run, adapter)
        if why := _why_keep(run, adapter, jobs):
            raise StillNeeded(why)
        dataset = run.snapshot.dataset
        AuditEvent.objects.record(
            user, AuditEvent.Action.DELETED, run, dataset.collection,
            name=run.name, adapter=adapter.name if adapter else "",
        )  # fmt: skip
        folders = [folder_of(run)]
        if adapter is not None:
            folders.append(adapters_folder() / adapter.name)
            activation.leave_out(adapter, user, reason=f"{adapter.name} was deleted.")
            adapter.activations.all().delete()
            adapter.delete()
        run.delete()
        Job.objects.filter(pk__in=jobs).delete()
        # Before the commit: a row without files can be deleted again, files without a row cannot.
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def _jobs_of(run: TrainingRun, adapter: Adapter | None) -> list[int]:
    jobs = [run.job_id, run.preflight_job_id]
    if adapter is not None:
        jobs += Evaluation.objects.filter(adapter=adapter).values_list("job", flat=True)
        jobs += Activation.objects.filter(adapter=adapter).values_list("job", flat=True)
    return [job for job in jobs if job is not None]


def _why_keep(run: TrainingRun, adapter: Adapter | None, jobs: list[int]) -> str:
    under_way = Job.objects.filter(pk__in=jobs, state__in=[Job.State.WAITING, Job.State.RUNNING])
    if run.state in (TrainingRun.State.QUEUED, TrainingRun.State.RUNNING) or under_way.exists():
        return "It is under way, or its evaluation is. Cancel it, or wait for its end."
    if adapter is None:
        return ""
    if adapter.activations.filter(state__in=activation.UNDER_WAY).exists():
        return "Its adapter is on its way to the readers."
    bases = ModelDeployment.objects.order_by().values_list("base_model", flat=True).distinct()
    layers = (layer for base in bases for layer in activation.speaking(base))
    if any(layer.adapter_name == adapter.name for layer in layers):
        return "Its adapter may still answer somebody. Roll it back first."
    if adapter.is_wanted:
        return "Its adapter is still loaded. Unload it on its page first."
    return ""


def delete_snapshot(snapshot: DatasetSnapshot, user: User) -> None:
    """Delete a snapshot that no run rests on, with its rows and its file. Raises StillNeeded."""
    with transaction.atomic():
        snapshot = DatasetSnapshot.objects.select_for_update(of=("self",)).get(pk=snapshot.pk)
        if snapshot.runs.exists():
            raise StillNeeded("A run learned from it, or is about to. Delete its runs first.")
        if snapshot.job.state in (Job.State.WAITING, Job.State.RUNNING):
            raise StillNeeded("It is still being frozen.")
        AuditEvent.objects.record(
            user, AuditEvent.Action.DELETED, snapshot, snapshot.dataset.collection,
            number=snapshot.number, sha256=snapshot.sha256,
        )  # fmt: skip
        file, job = snapshot.file.name, snapshot.job
        snapshot.delete()
        job.delete()
        if file:
            transaction.on_commit(lambda: delete_unused_files([file]))
