"""Cut pairs into parts so that what belongs together stays together. Pure."""

from collections.abc import Mapping, Sequence
from hashlib import sha256

PARTS = ("train", "validation", "test")


def split(groups: Mapping[str, str], shares: Mapping[str, float], *, seed: int) -> dict[str, str]:
    """Give each key a part; keys of one group get the same.

    `groups`: key → name of its group. `shares`: part → share of the keys, 0–1. The same arguments
    give the same parts, whatever the order. Groups come in an order drawn by the seed; each goes
    where, for its share, most is missing, but a part takes none that is much too large for it.
    """
    members: dict[str, list[str]] = {}
    for key, group in groups.items():
        members.setdefault(group, []).append(key)
    wanted = {part: share * len(groups) for part, share in shares.items() if share > 0}
    given = dict.fromkeys(wanted, 0)
    parts: dict[str, str] = {}
    for group in sorted(members, key=lambda name: sha256(f"{seed}:{name}".encode()).digest()):
        size = len(members[group])
        part = _part_for(size, wanted, given)
        given[part] += size
        parts.update(dict.fromkeys(members[group], part))
    return parts


def _part_for(size: int, wanted: Mapping[str, float], given: Mapping[str, int]) -> str:
    fitting = [part for part in wanted if given[part] + size <= wanted[part] + 0.5]
    if fitting:
        return max(fitting, key=lambda part: 1 - given[part] / wanted[part])
    return max(wanted, key=lambda part: wanted[part] - given[part])


def histogram(counts: Sequence[int], edges: Sequence[int]) -> list[int]:
    """Count the numbers up to each edge and above the last: [1, 9] by (4, 8) gives [1, 0, 1]."""
    found = [0] * (len(edges) + 1)
    for count in counts:
        found[next((place for place, edge in enumerate(edges) if count <= edge), len(edges))] += 1
    return found
