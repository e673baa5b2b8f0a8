"""Parts have their shares, groups stay whole, and the same arguments give the same parts."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from finetune.splitting import histogram, split

SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}
GROUPS = st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.sampled_from("uvwxyz"))


@given(GROUPS, st.integers(0, 5))
def test_a_group_is_never_cut_and_nothing_is_lost(groups: dict[str, str], seed: int) -> None:
    parts = split(groups, SHARES, seed=seed)
    assert parts.keys() == groups.keys()
    for group in set(groups.values()):
        assert len({parts[key] for key in groups if groups[key] == group}) == 1
    assert parts == split(dict(reversed(groups.items())), SHARES, seed=seed)


def test_many_small_groups_come_close_to_their_shares() -> None:
    groups = {str(n): str(n // 3) for n in range(3_000)}
    counts = Counter(split(groups, SHARES, seed=1).values())
    assert {part: round(counts[part] / 3_000, 2) for part in SHARES} == SHARES


def test_another_seed_gives_other_parts() -> None:
    groups = {str(n): str(n) for n in range(100)}
    assert split(groups, SHARES, seed=1) != split(groups, SHARES, seed=2)


def test_ten_pairs_are_enough_for_three_parts() -> None:
    groups = {str(n): str(n) for n in range(10)}
    assert Counter(split(groups, SHARES, seed=0).values()) == {
        "train": 8,
        "validation": 1,
        "test": 1,
    }


def test_a_huge_group_goes_where_there_is_room() -> None:
    groups = {str(n): "huge" if n < 70 else str(n) for n in range(100)}
    for seed in range(20):
        assert split(groups, SHARES, seed=seed)["0"] == "train"


def test_a_part_without_a_share_stays_empty() -> None:
    groups = {str(n): str(n) for n in range(50)}
    parts = split(groups, {"train": 0.9, "validation": 0.1, "test": 0.0}, seed=0)
    assert "test" not in parts.values()


def test_a_histogram_counts_up_to_each_edge() -> None:
    assert histogram([1, 4, 5, 9], (4, 8)) == [2, 1, 1]
