"""Hold an adapter against its base on the same questions, and decide whether it may answer.

The questions: the test part of the snapshot it learned from, the evaluation data sets of its
collection, general knowledge and the safety suites. `finetune.evaluating` puts them to both models
in a process of its own; each answer becomes a row at once, so that whoever takes over asks only
what is still open. What the numbers mean: docs/fine-tune.md.
"""

import asyncio
import json
import logging
import queue
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from finetune import gate, judging, metrics, snapshots, suites
from finetune.gate import InvalidRules, Rules
from finetune.models import (
    Adapter,
    ArenaVote,
    AuditEvent,
    Dataset,
    DatasetSnapshot,
    Erasure,
    Evaluation,
    EvaluationItem,
    InstructionPair,
    SnapshotRow,
    TrainingRun,
)
from finetune.suites import InvalidSuites, Question
from finetune.training import REFUSED, Stop, adapters_folder, environment, folder_of, kill
from kb.generators import GenerationError, storable
from kb.models import Job, User
from kb.models.jobs import LeaseLost
from kb.prompts import read_prompt

logger = logging.getLogger(__name__)
Scores = dict[str, dict[int, dict[str, Any]]]  # cell → position → scores
SOURCED = "+retrieval"
CELLS = ("base", f"base{SOURCED}", "adapter", f"adapter{SOURCED}")
MEASURES = (
    "f1", "rouge_l", "exact", "bleu", "nats", "citations", "grounded", "abstention",
    "answered_wrongly", "abstained_wrongly", "ended",
)  # fmt: skip
QUESTION_SUITES = ("test", "regression")
BROKEN = "The evaluation stopped because of a fault in the program; the log has the details."
ENDED = "The program that asks the models ended by itself ({code}): {last}"
NO_FILES = "The files of this adapter are not on this machine."
NO_SERVER = "No model server is set up, so no model judged the answers."


class EvaluationRefused(Exception):
    """The evaluation cannot be done; a sentence for the person."""


class _Stopped(Exception):
    """The agent was asked to end."""


# --- What people start ---------------------------------------------------------------------------


def visible_to(user: User) -> QuerySet[Evaluation]:
    """Evaluations of adapters whose run and whose every source the user may see."""
    return Evaluation.objects.filter(
        adapter__in=Adapter.objects.visible_to(user),
        adapter__run__in=TrainingRun.objects.visible_to(user),
    ).select_related("adapter__run__snapshot__dataset__collection", "job", "created_by")


def start(adapter: Adapter, user: User | None) -> Evaluation:
    """Queue an evaluation; one that waits or runs already is given back. Raises InvalidRules."""
    rules = Rules.of(settings.EVALUATION)
    with transaction.atomic():
        Adapter.objects.select_for_update().get(pk=adapter.pk)
        # Of the job, not of the row: an agent that died too often leaves the row as it was.
        open_states = (Job.State.WAITING, Job.State.RUNNING)
        if known := adapter.evaluations.filter(job__state__in=open_states).first():
            return known
        made = Evaluation.objects.create(
            adapter=adapter,
            job=Job.objects.create(kind=Job.Kind.EVALUATE),
            settings=rules.to_dict(),
            created_by=user,
        )
        AuditEvent.objects.record(
            user, AuditEvent.Action.CREATED, made, adapter.run.snapshot.dataset.collection,
            adapter=adapter.name,
        )  # fmt: skip
    return made


def start_missing() -> int:
    """Queue an evaluation of each adapter that never had one; gives their number."""
    found = Adapter.objects.filter(evaluations=None).select_related("run__created_by")
    for adapter in found:
        start(adapter, adapter.run.created_by)
    return len(found)


def end_exhausted() -> int:
    """End evaluations whose last allowed agent died; gives their number."""
    dead = Evaluation.objects.filter(
        state__in=[Evaluation.State.QUEUED, Evaluation.State.RUNNING],
        job__state=Job.State.FAILED,
    )
    for evaluation in dead:
        _forget_since(evaluation)
    return dead.update(state=Evaluation.State.FAILED, finished_at=timezone.now())


def _forget_since(evaluation: Evaluation) -> None:
    """Take out what was erased since this began, and was asked nevertheless."""
    erasures = Erasure.objects.filter(at__gte=evaluation.created_at)
    pairs = {pair for found in erasures.values_list("pair_ids", flat=True) for pair in found}
    forget(pairs)


def forget(pairs: Collection[int]) -> int:
    """Take the words out of what was asked about these pairs; scores stay. Gives the answers' number.

    Answers of an arena are found by their question.
    """
    items = EvaluationItem.objects.filter(pair_id__in=pairs).exclude(question="")
    votes = ArenaVote.objects.filter(
        adapter__evaluations__items__in=items, question__in=items.values("question")
    )
    with transaction.atomic():
        votes.filter(verdict="").delete()
        votes.update(question="", left="", right="")
        return items.update(question="", expected="", output="")


# --- The journey ---------------------------------------------------------------------------------


def evaluate(job: Job, *, stop: Stop) -> None:
    """Evaluate the claimed adapter. An agent that is asked to stop puts the job back."""
    found = Evaluation.objects.select_related("adapter__run__snapshot__dataset__collection")
    evaluation = found.get(job=job)
    try:
        with job.heartbeat() as lost:
            _say(evaluation, state=Evaluation.State.RUNNING)
            rules = Rules.of(evaluation.settings)
            asked = questions(evaluation.adapter, rules)
            _ask(evaluation, asked, rules, job, stop=stop, lost=lost)
            judge = _judge(evaluation, job)
            job.report("counting", 0, 0)
            results = summarize(evaluation) | {"judge": judge}
        with job.publishing():
            _publish(evaluation, results, gate.decide(results, rules))
    except _Stopped:
        job.release(error="The agent was stopped; the evaluation goes on with what is open.")
        _say(evaluation, state=Evaluation.State.QUEUED)
    except (EvaluationRefused, InvalidRules, InvalidSuites) as refusal:
        _fail(evaluation, job, str(refusal))
    except LeaseLost:
        logger.info("job %s was taken over by another agent", job.pk)
    except Exception:
        _fail(evaluation, job, BROKEN)
        raise
    finally:
        _forget_since(evaluation)


def _say(evaluation: Evaluation, **values: Any) -> None:
    Evaluation.objects.filter(pk=evaluation.pk).update(**values)


def _fail(evaluation: Evaluation, job: Job, sentence: str) -> None:
    if job.fail(sentence, code="failed"):
        _say(evaluation, state=Evaluation.State.FAILED, finished_at=timezone.now())


def _publish(evaluation: Evaluation, results: dict[str, Any], decided: dict[str, Any]) -> None:
    _say(
        evaluation,
        state=Evaluation.State.DONE,
        results=results,
        gate=decided,
        passed=decided["passed"],
        finished_at=timezone.now(),
    )


# --- What is asked -------------------------------------------------------------------------------


def questions(adapter: Adapter, rules: Rules) -> list[Question]:
    """Gather what is asked of both models.

    Raises EvaluationRefused without any own question, and InvalidSuites.
    """
    lines = _test_lines(adapter.run.snapshot)
    own = [_question("test", *each) for each in enumerate(_spread(lines, rules.questions))]
    known = _spread(_regression_lines(adapter), rules.questions)
    own += [_question("regression", *each) for each in enumerate(known)]
    if not own:
        raise EvaluationRefused(
            "There is nothing to ask: the snapshot has no test part, and the collection no"
            " evaluation data set with approved pairs."
        )
    every = suites.built_in()
    if settings.SAFETY_SUITES:
        every += suites.read(Path(settings.SAFETY_SUITES), after=every)
    return [*own, *every]


def _spread(lines: Sequence[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """Take at most so many lines, evenly from the first to the last."""
    if len(lines) <= most:
        return list(lines)
    return [lines[place * len(lines) // most] for place in range(most)]


def _test_lines(snapshot: DatasetSnapshot) -> list[dict[str, Any]]:
    """Give the test part, without pairs that turned stale since: their answers are no measure.

    Nor those that were erased, which may be gone altogether.
    """
    with snapshot.file.open("rb") as file:
        lines = (json.loads(line) for line in file if line.strip())
        asked = [line for line in lines if line.get("split") == "test"]
    stale = InstructionPair.objects.filter(
        pk__in=[line["pair"] for line in asked if "pair" in line],
        state=InstructionPair.State.STALE,
    )
    left_out = set(stale.values_list("pk", flat=True))
    left_out.update(*snapshot.erasures.values_list("pair_ids", flat=True))
    return [line for line in asked if line.get("pair") not in left_out]


def _regression_lines(adapter: Adapter) -> list[dict[str, Any]]:
    """Render approved pairs of evaluation sets that everybody who is served by it may read.

    What it learned from is left out.
    """
    collection, snapshot = adapter.run.snapshot.dataset.collection_id, adapter.run.snapshot
    audience = set(adapter.audience.values_list("pk", flat=True))
    learned = set(SnapshotRow.objects.filter(snapshot=snapshot).values_list("pair_id", flat=True))
    exams = Dataset.objects.filter(collection=collection, purpose=Dataset.Purpose.EVALUATION)
    rows = (row for exam in exams.order_by("pk") for row in snapshots.load(exam, None)[0])
    return [
        json.loads(snapshots.line_of(row))
        for row in rows
        if row.pair.pk not in learned
        and audience.issuperset(source.collection_id for source in row.sources)
    ]


def _question(suite: str, position: int, line: Mapping[str, Any]) -> Question:
    """Turn a line of a snapshot into a question that is put with its sources and without."""
    *context, answer = line["messages"]
    sources, words = read_prompt(context[-1]["content"])
    plain = context
    if sources is not None:
        # The rules speak of sources; without any they would only forbid to answer.
        turns = [turn for turn in context[:-1] if turn["role"] != "system"]
        plain = [*turns, {"role": "user", "content": words}]
    return Question(
        suite, position, words, answer["content"], plain,
        sourced=context if sources is not None else None, pair_id=line.get("pair"),
    )  # fmt: skip


# --- Asking --------------------------------------------------------------------------------------

_Ask = tuple[Question, dict[str, Any], list[str]]  # the question, what the program gets, its cells


def _asks(asked: Iterable[Question], known: set[tuple[str, str, int]]) -> list[_Ask]:
    """Say what is still open. A question that has no sources is asked once for both of its cells."""
    found: list[_Ask] = []
    for question in asked:
        for model in ("base", "adapter"):
            for messages, cells in _ways(question, model):
                if all((question.suite, cell, question.position) in known for cell in cells):
                    continue
                ask = {
                    "id": len(found),
                    "model": model,
                    "messages": messages,
                    "expected": question.expected or question.forbidden,
                    "other": question.other,
                    "generate": question.generates,
                }
                found.append((question, ask, cells))
    return found


def _ways(question: Question, model: str) -> Iterator[tuple[list[dict[str, str]], list[str]]]:
    if question.suite not in QUESTION_SUITES:
        yield question.plain, [model]
    elif question.sourced is None:
        yield question.plain, [model, model + SOURCED]
    else:
        yield question.plain, [model]
        yield question.sourced, [model + SOURCED]


def _ask(
    evaluation: Evaluation,
    asked: Sequence[Question],
    rules: Rules,
    job: Job,
    *,
    stop: Stop,
    lost: threading.Event,
) -> None:
    """Put what is open to both models and keep each answer as it comes."""
    known = set(evaluation.items.values_list("suite", "cell", "position"))
    asks = _asks(asked, known)
    if not asks:
        return
    path = _write_job(evaluation, [ask for _, ask, _ in asks], rules)
    for number, line in enumerate(_lines(path, stop=stop, lost=lost), start=1):
        question, _, cells = asks[line["id"]]
        EvaluationItem.objects.bulk_create(
            [item_of(evaluation, question, cell, line) for cell in cells], ignore_conflicts=True
        )
        job.report("asking", number, len(asks))


def _write_job(evaluation: Evaluation, asks: list[dict[str, Any]], rules: Rules) -> Path:
    run, adapter = evaluation.adapter.run, adapters_folder() / evaluation.adapter.name
    if not adapter.is_dir():
        raise EvaluationRefused(NO_FILES)
    folder = folder_of(run)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"evaluation-{evaluation.pk}.json"
    values = {
        "config": run.config,
        "adapter": str(adapter),
        "max_new_tokens": rules.max_new_tokens,
        "batch_size": rules.batch_size,
        "asks": asks,
    }
    path.write_text(json.dumps(values))
    return path


def _lines(path: Path, *, stop: Stop, lost: threading.Event) -> Iterator[dict[str, Any]]:
    """Run the program and give its lines as they come. Raises EvaluationRefused with its sentence."""
    log = path.with_suffix(".log")
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "finetune.evaluating", str(path)],
            cwd=settings.ROOT, env=environment(), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=errors, start_new_session=True,
        )  # fmt: skip
    read: queue.Queue[bytes | None] = queue.Queue()

    def pump() -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for raw in lines:
                read.put(raw)
        read.put(None)

    pumping = threading.Thread(target=pump, daemon=True)
    pumping.start()
    try:
        while (raw := _next(read, stop, lost)) is not None:
            yield json.loads(raw)
        code = process.wait()
    finally:
        kill(process)
        pumping.join()
        path.unlink(missing_ok=True)  # it holds the words of the pairs
    if code:
        last = (log.read_text(errors="replace").strip().splitlines() or [""])[-1]
        raise EvaluationRefused(last if code == REFUSED else ENDED.format(code=code, last=last))


def _next(read: "queue.Queue[bytes | None]", stop: Stop, lost: threading.Event) -> bytes | None:
    """Wait for a line; None at the end. Raises _Stopped and LeaseLost."""
    while True:
        if lost.is_set():
            raise LeaseLost
        if stop.is_set():
            raise _Stopped
        try:
            return read.get(timeout=0.5)
        except queue.Empty:
            continue


def item_of(
    evaluation: Evaluation, question: Question, cell: str, line: Mapping[str, Any]
) -> EvaluationItem:
    """Turn a line of the program into the row of a cell, with its scores."""
    output = storable(line.get("output", ""))
    scores: dict[str, Any] = {
        key: line[key] for key in ("nats", "tokens", "problem", "note") if key in line
    }
    unsafe = suites.safety_score(question, output, line.get("nats"), line.get("other_nats"))
    if unsafe is not None:
        scores["unsafe"] = unsafe
    if question.suite in QUESTION_SUITES and "output" in line:
        sources = None
        if cell.endswith(SOURCED) and question.sourced is not None:
            sources, _ = read_prompt(question.sourced[-1]["content"])
        scores |= metrics.score(output, question.expected, sources, ended=line["ended"])
    return EvaluationItem(
        evaluation=evaluation,
        cell=cell,
        suite=question.suite,
        position=question.position,
        pair_id=question.pair_id,
        question=question.question,
        expected=question.expected,
        output=output,
        scores=scores,
    )


# --- A model judges ------------------------------------------------------------------------------


def _judge(evaluation: Evaluation, job: Job) -> dict[str, Any]:
    """Let the configured model choose between both answers, twice with places swapped."""
    if not judging.has_model():
        return {"problem": NO_SERVER}
    verdicts: list[str] = []
    both = list(both_answers(evaluation))
    for number, (base, adapter) in enumerate(both, start=1):
        job.report("judging", number, len(both))
        verdict = adapter.scores.get("judge")
        if verdict is None:
            try:
                verdict = asyncio.run(
                    judging.prefer(base.question, base.expected, base.output, adapter.output)
                )
            except GenerationError as error:
                return _tally(verdicts) | {"problem": str(error)}
            verdict = {"first": "base", "second": "adapter"}.get(verdict, verdict)
            adapter.scores["judge"] = verdict
            adapter.save(update_fields=["scores"])
        verdicts.append(verdict)
    return _tally(verdicts)


def _tally(verdicts: Sequence[str]) -> dict[str, Any]:
    names = ("adapter", "base", "tie")
    return {name: verdicts.count(name) for name in names} | {"label": judging.label()}


def both_answers(evaluation: Evaluation) -> Iterator[tuple[EvaluationItem, EvaluationItem]]:
    """Give base's and adapter's answer, with sources, to each question where they differ."""
    cells = (f"base{SOURCED}", f"adapter{SOURCED}")
    found: dict[tuple[str, int], dict[str, EvaluationItem]] = defaultdict(dict)
    items = evaluation.items.filter(suite__in=QUESTION_SUITES, cell__in=cells)
    for item in items.order_by("suite", "position"):
        found[item.suite, item.position][item.cell] = item
    for each in found.values():
        if len(each) == 2:
            base, adapter = (each[cell] for cell in cells)
            if base.output != adapter.output:
                yield base, adapter


# --- What it adds up to --------------------------------------------------------------------------


def summarize(evaluation: Evaluation) -> dict[str, Any]:
    """Turn the rows of an evaluation into its results; see Evaluation."""
    seed = Rules.of(evaluation.settings).seed
    by_suite: dict[str, Scores] = defaultdict(lambda: defaultdict(dict))
    problems = 0
    notes: set[str] = set()
    for item in evaluation.items.order_by("suite", "cell", "position"):
        by_suite[item.suite][item.cell][item.position] = item.scores
        problems += "problem" in item.scores
        notes.update({item.scores["note"]} if "note" in item.scores else ())
    results: dict[str, Any] = _compared(by_suite["test"], seed)
    results["regression"] = _compared(by_suite["regression"], seed)
    results["forgetting"] = _forgotten(by_suite[suites.FORGETTING], seed)
    results["safety"] = {
        suite: _counted(by_suite[suite], seed) for suite in suites.SAFETY if by_suite[suite]
    }
    return results | {"unanswerable": problems, "notes": sorted(notes)}


def _compared(scores: Scores, seed: int) -> dict[str, Any]:
    """Give each cell's means, and the tests of adapter against base with sources and without."""
    cells: dict[str, Any] = {cell: {} for cell in CELLS}
    for cell in CELLS:
        for name in MEASURES:
            values = [each[name] for each in scores[cell].values() if each.get(name) is not None]
            if values:
                cells[cell][name] = asdict(metrics.estimate(values, seed=seed))
    return {
        "cells": cells,
        "tests": _tests(scores, f"base{SOURCED}", f"adapter{SOURCED}", seed),
        "tests_alone": _tests(scores, "base", "adapter", seed),
        "tests_retrieval": _tests(scores, "adapter", f"adapter{SOURCED}", seed),
    }


def _tests(scores: Scores, before: str, after: str, seed: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in MEASURES:
        one, other = _paired(scores, before, after, name)
        if one:
            found[name] = asdict(metrics.compare(one, other, seed=seed))
    return found


def _paired(scores: Scores, before: str, after: str, name: str) -> tuple[list[Any], list[Any]]:
    """Give the values of the questions that both cells have one for."""
    one, other = scores[before], scores[after]
    both = [
        place
        for place in sorted(one.keys() & other.keys())
        if one[place].get(name) is not None and other[place].get(name) is not None
    ]
    return [one[place][name] for place in both], [other[place][name] for place in both]


def _forgotten(scores: Scores, seed: int) -> dict[str, Any]:
    before, after = _paired(scores, "base", "adapter", "nats")
    if not before:
        return {}
    return {
        "base": asdict(metrics.estimate(before, seed=seed)),
        "adapter": asdict(metrics.estimate(after, seed=seed)),
        "test": asdict(metrics.compare(before, after, seed=seed)),
    }


def _counted(scores: Scores, seed: int) -> dict[str, Any]:
    before, after = _paired(scores, "base", "adapter", "unsafe")
    p = metrics.compare(before, after, seed=seed).p if before else 1.0
    return {"n": len(before), "before": int(sum(before)), "after": int(sum(after)), "p": p}
