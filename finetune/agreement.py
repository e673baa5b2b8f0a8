"""How far people agree about pairs, and what their judgements decide together. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum
from itertools import combinations


class Outcome(StrEnum):
    """What the judgements of a pair add up to."""

    OPEN = "open"
    DISPUTED = "disputed"
    APPROVED = "approved"
    REJECTED = "rejected"


def outcome(approvals: int, rejections: int, wanted: int) -> Outcome:
    """Decide by judgements of different people: `wanted` who agree, or a majority beyond them.

    (1, 1, 2) is disputed; a third person decides: (2, 1, 2) is approved.
    """
    count = approvals + rejections
    if approvals and rejections:
        if count > wanted and approvals != rejections:
            return Outcome.APPROVED if approvals > rejections else Outcome.REJECTED
        return Outcome.DISPUTED
    if count < wanted:
        return Outcome.OPEN
    return Outcome.APPROVED if approvals else Outcome.REJECTED


def cohens_kappa(judgements: Sequence[tuple[str, str]]) -> float | None:
    """Give the agreement of two people beyond chance: 1 perfect, 0 chance, negative below it.

    None where it says nothing: no judgements, or both always said the same one thing.
    [("a", "a"), ("a", "b"), ("b", "b"), ("b", "b")] gives 0.5. Source: Cohen 1960.
    """
    total = len(judgements)
    if not total:
        return None
    observed = sum(first == second for first, second in judgements) / total
    firsts = Counter(first for first, _ in judgements)
    seconds = Counter(second for _, second in judgements)
    by_chance = sum(firsts[label] * seconds[label] for label in firsts) / total**2
    return None if by_chance == 1 else (observed - by_chance) / (1 - by_chance)


def in_twos(
    judgements: Iterable[tuple[object, int, str]],
) -> dict[tuple[int, int], list[tuple[str, str]]]:
    """Collect what each two people said of the same thing: (item, person, verdict) → by persons.

    The smaller person comes first: [("x", 2, "a"), ("x", 1, "b")] gives {(1, 2): [("b", "a")]}.
    """
    by_item: dict[object, dict[int, str]] = {}
    for item, person, verdict in judgements:
        by_item.setdefault(item, {})[person] = verdict
    found: dict[tuple[int, int], list[tuple[str, str]]] = {}
    for said in by_item.values():
        for first, second in combinations(sorted(said), 2):
            found.setdefault((first, second), []).append((said[first], said[second]))
    return found


# Landis and Koch 1977: from this kappa on.
_WORDS = [(0.8, "almost perfect"), (0.6, "substantial"), (0.4, "moderate"), (0.2, "fair")]


def in_words(kappa: float) -> str:
    """Say a kappa in the words of Landis and Koch; 0.7 is "substantial"."""
    return next(
        (word for least, word in _WORDS if kappa > least), "slight" if kappa > 0 else "none"
    )
