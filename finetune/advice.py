"""Say in sentences what a pre-flight's numbers mean, and when not to train."""

from typing import Any, Literal, TypedDict

from finetune.models import Adapter, DuplicateCluster, Evaluation, TrainingRun
from kb.models import Collection

Level = Literal["stop", "warn", "good"]
# Below it an adapter learns the form of answers and hardly their content.
FEW_PAIRS = 50
MANY_DUPLICATES = 0.05
TIGHT = 0.75  # of the free memory
# What the base with retrieval reaches already where nothing is left to gain.
GOOD_ENOUGH = 0.9


# What comes after the rows: the report has the key once it was reached.
STAGES = {
    "steps": "the number of steps and the estimate of memory",
    "tried": "the trial of three steps for time, memory and cost",
    "base": "the answers of the base",
}


class Line(TypedDict):
    level: Level
    name: str
    sentence: str


def lines(run: TrainingRun, report: dict[str, Any]) -> list[Line]:
    """Judge a report; "stop" lines keep the run from being started."""
    found = [
        _rows(report),
        _not_reached(report),
        _lost_rows(report),
        _stop_token(report),
        _memory(report),
        _tried(report),
        *_contract(run, report),
        _enough(report),
        _duplicates(run),
        _base_passes(run, report),
    ]
    return [line for line in found if line is not None]


def _line(level: Level, name: str, sentence: str) -> Line:
    return {"level": level, "name": name, "sentence": sentence}


def _rows(report: dict[str, Any]) -> Line:
    train, validation = report["rows"]["train"], report["rows"]["validation"]
    if not train["kept"]:
        return _line("stop", "Rows", "No row is left to train on.")
    if not validation["kept"]:
        sentence = "There is no validation part, so the best checkpoint cannot be told from others."
        return _line("warn", "Rows", sentence)
    kept = f"{train['kept']:,} rows to learn from, {validation['kept']:,} to check with."
    return _line("good", "Rows", kept)


def _not_reached(report: dict[str, Any]) -> Line | None:
    """Say what a pre-flight had not come to when its time was over."""
    if "ended_after_minutes" not in report:
        return None
    missed = [words for key, words in STAGES.items() if key not in report]
    sentence = (
        f"The pre-flight was ended after {report['ended_after_minutes']} minutes. It did not come to"
        f" {', nor to '.join(missed)}; what stands here it had found by then."
    )
    if "steps" in report and "tried" not in report:
        sentence += " Three steps were not done in that time, so the run would be very slow here."
    return _line("warn", "Not reached", sentence)


def _lost_rows(report: dict[str, Any]) -> Line | None:
    train = report["rows"]["train"]
    if train["dropped"]:
        sentence = (
            f"Rows that cannot be learned from: {train['dropped']:,}; their numbers are below."
        )
        return _line("warn", "Dropped", sentence)
    if train["truncated"]:
        sentence = f"Rows longer than max_length: {train['truncated']:,}; their context is cut."
        return _line("warn", "Truncated", sentence)
    return _line("good", "Length", "Every row fits whole.")


def _stop_token(report: dict[str, Any]) -> Line | None:
    stop = report.get("stop_token")
    if stop is None:
        return None
    if not stop["is_learned"]:
        return _line("stop", "Stop token", "Answers do not end with the stop token.")
    if not stop["differs_from_padding"]:
        sentence = f"{stop['text']} is also the padding token; answers still end, as it is learned."
        return _line("warn", "Stop token", sentence)
    return _line("good", "Stop token", f"Every answer ends with {stop['text']}, which is learned.")


def _memory(report: dict[str, Any]) -> Line | None:
    needed, free = report.get("tried", {}).get("peak_bytes"), report.get("free_bytes")
    if not needed or not free:
        return None
    sentence = f"A step took {_gigabytes(needed)} of {_gigabytes(free)} on {report['device']}."
    return _line("good" if needed <= TIGHT * free else "warn", "Memory", sentence)


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


def _tried(report: dict[str, Any]) -> Line | None:
    problem = report.get("tried", {}).get("problem")
    return _line("stop", "First step", problem) if problem else None


def _contract(run: TrainingRun, report: dict[str, Any]) -> list[Line]:
    server = run.config.get("server", "own")
    problems = report["contract"].get(server, [])
    if not problems:
        return [_line("good", "Contract", "The server that was chosen can load this adapter.")]
    return [_line("stop", "Contract", problem) for problem in problems]


def _enough(report: dict[str, Any]) -> Line | None:
    kept = report["rows"]["train"]["kept"]
    if 0 < kept < FEW_PAIRS:
        sentence = (
            f"{kept} rows teach a form of answers and hardly their content. Below {FEW_PAIRS} it is "
            "better to approve more pairs first."
        )
        return _line("warn", "Advice", sentence)
    return None


def _duplicates(run: TrainingRun) -> Line | None:
    clusters = DuplicateCluster.objects.filter(
        dataset=run.snapshot.dataset_id, decision=DuplicateCluster.Decision.OPEN
    )
    spare = sum(size - 1 for size in clusters.values_list("size", flat=True))
    total = sum(run.snapshot.counts.values()) or 1
    if spare / total <= MANY_DUPLICATES:
        return None
    sentence = f"{spare:,} pairs repeat others. Decide the open duplicates and freeze again first."
    return _line("warn", "Advice", sentence)


def _base_passes(run: TrainingRun, report: dict[str, Any]) -> Line | None:
    """Advise against training where the base with retrieval answers well already.

    What the pre-flight asked it counts, else the newest evaluation on this base.
    """
    score = report["base"]["f1"] if "base" in report else _evaluated(run)
    if score < GOOD_ENOUGH:
        return _to_beat(report)
    sentence = (
        f"The base with retrieval already reaches {score:.0%} of the words. An adapter can add "
        "little; better documents or search add more."
    )
    return _line("warn", "Advice", sentence)


def _to_beat(report: dict[str, Any]) -> Line | None:
    if "base" not in report:
        return None
    asked, score = report["base"]["n"], report["base"]["f1"]
    sentence = f"The base with retrieval reaches {score:.0%} of the words in {asked} answers."
    return _line("good", "To beat", sentence)


def _evaluated(run: TrainingRun) -> float:
    """Give the token F1 of the base with sources in the newest evaluation, 0 without any."""
    adapters = Adapter.objects.filter(
        run__snapshot__dataset=run.snapshot.dataset_id, base_model=run.config["base_model"]
    )
    newest = (
        Evaluation.objects.filter(adapter__in=adapters, state=Evaluation.State.DONE)
        .order_by("-pk")
        .first()
    )
    cell = newest.results.get("cells", {}).get("base+retrieval", {}) if newest else {}
    return float(cell.get("f1", {}).get("mean", 0))


def readers(run: TrainingRun) -> list[Collection]:
    """Give the collections whose readers alone could be served by what comes out."""
    return list(run.snapshot.audience.order_by("name"))
