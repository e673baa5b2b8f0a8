"""How sure a share of a few is. Pure."""

import math
from dataclasses import dataclass

Z_95, Z_99 = 1.959964, 2.575829


@dataclass(frozen=True, slots=True)
class Share:
    """`count` of `total`, with an interval that holds the true share, 0–1."""

    count: int
    total: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The share seen, 0–1; 0 of none."""
        return self.count / self.total if self.total else 0.0

    @property
    def spread(self) -> float:
        return self.high - self.low


def wilson(count: int, total: int, *, z: float = Z_95) -> Share:
    """Give a share with its score interval; of none it may be anything from 0 to 1.

    Unlike the usual ± it never leaves 0–1 and stays honest for a handful.
    Source: Wilson, JASA 22 (1927).
    """
    if not 0 <= count <= total:
        raise ValueError(f"{count} of {total} is no share")
    if not total:
        return Share(0, 0, 0.0, 1.0)
    share, square = count / total, z * z
    middle = (share + square / (2 * total)) / (1 + square / total)
    half = (
        z
        / (1 + square / total)
        * math.sqrt(share * (1 - share) / total + square / (4 * total * total))
    )
    # At none and at all rounding would leave the bound a hair beside its true value.
    low = 0.0 if count == 0 else max(0.0, middle - half)
    high = 1.0 if count == total else min(1.0, middle + half)
    return Share(count, total, low, high)


def difference(before: Share, after: Share) -> tuple[float, float, float]:
    """Give after − before with its interval: (difference, low, high), each -1 to 1.

    From the intervals of both, so that it has their confidence.
    Source: Newcombe, Statistics in Medicine 17 (1998), method 10.
    """
    apart = after.value - before.value
    low = apart - math.hypot(after.value - after.low, before.high - before.value)
    high = apart + math.hypot(after.high - after.value, before.value - before.low)
    return apart, max(-1.0, low), min(1.0, high)
