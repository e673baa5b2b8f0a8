"""Which pair comes next, and why: signals of trouble, weighed by what reviewers did before.

A signal's weight is the share of its pairs that people of this data set edited or rejected, pulled
towards a guess while few were judged. A pair's priority is the sum of its signals' weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import connection, transaction
from django.db.models import Count, Max
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from finetune.models import Dataset, InstructionPair

# What reviewers are expected to change before any of them did, as a share of the pairs.
GUESSES = {
    "disputed": 0.95,
    "stale": 0.9,
    "rated_down": 0.7,
    "no_answer": 0.65,
    "weak_match": 0.6,
    "changed": 0.55,
    "uncovered": 0.5,
    "flagged": 0.4,
}
# The guess counts as much as this many judged pairs.
GUESS_COUNTS = 10
SENTENCES = {
    "disputed": gettext_lazy("Reviewers disagree about it."),
    "stale": gettext_lazy("It was approved, and its passage has changed since."),
    "rated_down": gettext_lazy("Somebody rated the answer it comes from as wrong."),
    "no_answer": gettext_lazy("It teaches that the documents hold no answer."),
    "weak_match": gettext_lazy("Its passage matches the question weakly."),
    "changed": gettext_lazy("Its passage has changed or is gone."),
    "uncovered": gettext_lazy("No pair of its document is approved yet."),
    "flagged": gettext_lazy("It carries a flag."),
}
# A quarter of the pairs counts as matched weakly: scores of different engines are not comparable.
_SIGNALS = """
SELECT p.id, array_remove(ARRAY[
    CASE WHEN p.is_disputed THEN 'disputed' END,
    CASE WHEN p.state = 'stale' THEN 'stale' END,
    CASE WHEN EXISTS (SELECT FROM kb_feedback f
                       WHERE f.message_id = p.message_id AND f.value < 0) THEN 'rated_down' END,
    CASE WHEN p.origin = 'abstention' THEN 'no_answer' END,
    CASE WHEN s.score > 0 AND s.score <= weak.score THEN 'weak_match' END,
    CASE WHEN p.state <> 'stale' AND NOT s.stands THEN 'changed' END,
    CASE WHEN s.pair_id IS NOT NULL AND NOT s.is_covered THEN 'uncovered' END,
    CASE WHEN cardinality(p.flags) > 0 THEN 'flagged' END
  ], NULL)::varchar(16)[] AS signals
  FROM finetune_instructionpair p
  LEFT JOIN (
    SELECT s.pair_id, max(s.score) FILTER (WHERE NOT s.is_distractor) AS score,
           bool_and(s.standing = 'stands') AS stands,
           bool_or(covered.document_key IS NOT NULL) AS is_covered
      FROM finetune_pairsource s
      LEFT JOIN covered ON covered.document_key = s.document_key
     WHERE s.pair_id IN (SELECT id FROM finetune_instructionpair
                          WHERE dataset_id = %(dataset)s AND state IN ('suggested', 'stale'))
     GROUP BY s.pair_id) s ON s.pair_id = p.id
  CROSS JOIN weak
 WHERE p.dataset_id = %(dataset)s AND p.state IN ('suggested', 'stale')
"""
_ORDER = f"""
WITH covered AS (
    SELECT DISTINCT s.document_key FROM finetune_pairsource s
      JOIN finetune_instructionpair p ON p.id = s.pair_id
     WHERE p.dataset_id = %(dataset)s AND p.state = 'approved' AND NOT s.is_distractor),
weak AS (
    SELECT percentile_cont(0.25) WITHIN GROUP (ORDER BY s.score) AS score
      FROM finetune_pairsource s JOIN finetune_instructionpair p ON p.id = s.pair_id
     WHERE p.dataset_id = %(dataset)s AND s.score > 0),
found AS ({_SIGNALS}),
weighed AS (
    SELECT found.id, found.signals,
           COALESCE((SELECT sum(w.weight) FROM unnest(%(names)s::text[], %(weights)s::float8[])
                       AS w (name, weight) WHERE w.name = ANY(found.signals)), 0) AS priority
      FROM found)
UPDATE finetune_instructionpair p SET signals = weighed.signals, priority = weighed.priority
  FROM weighed
 WHERE p.id = weighed.id AND (p.signals, p.priority) IS DISTINCT FROM (weighed.signals, weighed.priority)
"""  # noqa: S608
_JUDGED = """
SELECT signal, count(*), count(*) FILTER (WHERE r.was_edited OR r.verdict = 'reject')
  FROM finetune_review r JOIN finetune_instructionpair p ON p.id = r.pair_id,
       unnest(p.signals) AS signal
 WHERE p.dataset_id = %s AND r.undone_at IS NULL GROUP BY signal
"""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a pair comes now. `weight` 0–1; `judged` pairs had the signal, `changed` were changed."""

    signal: str
    weight: float
    judged: int
    changed: int

    @property
    def sentence(self) -> str:
        return str(SENTENCES[self.signal])

    @property
    def experience(self) -> str:
        """Say what the weight comes from; "" before anybody judged such a pair."""
        if not self.judged:
            return ""
        return ngettext(
            "%(changed)s of %(judged)s such pair was edited or rejected here.",
            "%(changed)s of %(judged)s such pairs were edited or rejected here.",
            self.judged,
        ) % {"changed": self.changed, "judged": self.judged}


def weight(signal: str, judged: int, changed: int) -> float:
    """Give the share of pairs to expect changed: 0.7 guessed, and 0 of 10 changed, is 0.35."""
    return (changed + GUESSES[signal] * GUESS_COUNTS) / (judged + GUESS_COUNTS)


def learn(dataset: Dataset) -> dict[str, list[float]]:
    """Weigh each signal by the judgements in this data set: signal → [judged, changed, weight]."""
    with connection.cursor() as cursor:
        cursor.execute(_JUDGED, [dataset.pk])
        counts = {signal: (judged, changed) for signal, judged, changed in cursor.fetchall()}
    return {
        signal: [*counts.get(signal, (0, 0)), weight(signal, *counts.get(signal, (0, 0)))]
        for signal in GUESSES
    }


def refresh(dataset: Dataset) -> int:
    """Bring signals and priorities of the open pairs up to date; gives how many changed."""
    learned = learn(dataset)
    values: dict[str, Any] = {
        "dataset": dataset.pk,
        "names": list(learned),
        "weights": [weight for *_counts, weight in learned.values()],
    }
    with transaction.atomic(), connection.cursor() as cursor:
        Dataset.objects.filter(pk=dataset.pk).update(queue=learned)
        cursor.execute(_ORDER, values)
        return cursor.rowcount


def reasons(pair: InstructionPair, learned: Mapping[str, list[float]]) -> list[Reason]:
    """Say why the pair comes now, the weightiest first. `learned`: the data set's `queue`."""
    found = []
    # What happened a moment ago counts before the queue is ordered anew.
    sudden = {"stale": pair.state == InstructionPair.State.STALE, "disputed": pair.is_disputed}
    signals = [*pair.signals, *(signal for signal, holds in sudden.items() if holds)]
    for signal in dict.fromkeys(signals):
        judged, changed, weighs = learned.get(signal) or (0, 0, GUESSES[signal])
        found.append(Reason(signal, weighs, int(judged), int(changed)))
    return sorted(found, key=lambda reason: -reason.weight)


def why(pair: InstructionPair, learned: Mapping[str, list[float]]) -> str:
    """Say in one sentence why the pair comes now."""
    found = reasons(pair, learned)
    return found[0].sentence if found else _("Nothing stands out; the oldest come first.")


@dataclass(slots=True)
class Watch:
    """Remembers each data set as it was last ordered, so that only what changed is ordered again."""

    seen: dict[int, tuple[int, datetime | None]] = field(default_factory=dict)

    def look(self) -> int:
        """Order what changed; gives how many data sets."""
        now = {
            pk: (count, latest)
            for pk, count, latest in InstructionPair.objects.order_by()
            .values_list("dataset")
            .annotate(count=Count("pk"), latest=Max("updated_at"))
        }
        changed = [pk for pk, state in now.items() if self.seen.get(pk) != state]
        for dataset in Dataset.objects.filter(pk__in=changed):
            refresh(dataset)
        self.seen = now
        return len(changed)
