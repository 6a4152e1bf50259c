"""How a repo changes from refresh to refresh, and what hosts make of it, as Hypothesis draws them.

A host's answer to `since` is always some of the blocks of its newest tree: which ones is where hosts differ, or lie.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

from backfill_dagster_tests.atproto.build_repo import level
from backfill_dagster_tests.records.changing_repo import COLLECTIONS, Moment

Change = tuple[Any, ...]
BlockOf = Callable[[str, int], bytes]
"""The block of a key's content of some number, from 0 to `CONTENTS` - 1."""

CONTENTS = 6


def starts(keys: Sequence[str]) -> st.SearchStrategy[list[str]]:
    """Any choice of the keys, large ones as often as small ones."""
    bits = st.integers(0, 2 ** len(keys) - 1)
    chosen = st.one_of(bits, st.builds(int.__or__, bits, bits), st.builds(int.__and__, bits, bits))
    return chosen.map(lambda drawn: [key for number, key in enumerate(keys) if drawn >> number & 1])


def changes(keys: Sequence[str]) -> st.SearchStrategy[list[Change]]:
    """What happens between two refreshes."""
    places, content = st.integers(0, len(keys) - 1), st.integers(0, CONTENTS - 1)
    few = st.lists(places, min_size=1, max_size=4)
    return st.lists(
        st.one_of(
            st.tuples(st.just("put"), few, content),
            st.tuples(st.just("delete"), few),
            st.tuples(st.just("put all"), places, st.integers(2, 8), content),
            st.tuples(st.just("delete all"), places, st.integers(2, 30)),
            st.tuples(st.just("vanish"), st.sampled_from(COLLECTIONS)),
            st.tuples(st.just("behead")),
        ),
        min_size=1,
        max_size=3,
    )


def changed(moment: Moment, told: Sequence[Change], keys: Sequence[str], block_of: BlockOf) -> Moment:
    """The repo after some changes; what can't be done (nothing to delete) is left out."""
    records = dict(moment.records)
    for name, *rest in told:
        if name == "behead":
            top = max(map(level, records), default=0)
            gone = [key for key in records if level(key) == top]
        elif name == "vanish":
            gone = [key for key in records if key.startswith(f"{rest[0]}/")]
        else:
            places = range(rest[0], min(rest[0] + rest[1], len(keys))) if name.endswith("all") else rest[0]
            chosen = [keys[place] for place in places]
            gone = chosen if name.startswith("delete") else []
            if name.startswith("put"):
                records |= {key: block_of(key, rest[-1]) for key in chosen}
        for key in gone:
            records.pop(key, None)
    return Moment(records)


HOSTS = st.one_of(
    st.tuples(st.just("honest"), st.just(0)),
    st.tuples(st.just("of long memory"), st.just(0)),
    st.tuples(st.just("of another rev"), st.integers(0, 5)),
    st.tuples(st.just("generous"), st.integers(0, 2**64 - 1)),
    st.tuples(st.just("forgetful"), st.integers(0, 2**64 - 1)),
    st.tuples(st.just("of few blocks"), st.integers(0, 2**64 - 1)),
    st.tuples(st.just("without since"), st.just(0)),
)


def answer(host: tuple[str, int], past: Sequence[Moment], now: Moment) -> set[bytes]:
    """The blocks that a host sends.

    Args:
        host: out of `HOSTS`.
        past: the repo's moments before, the one that is asked for (`since`) last.
        now: the repo.
    """
    name, number = host
    every = list(now.blocks)
    newer = {cid for cid in every if cid not in past[-1].blocks}
    by_lot = {cid for place, cid in enumerate(every) if number >> place % 64 & 1}
    if name == "of long memory":
        return {cid for cid in newer if not any(cid in one.blocks for one in past)}
    if name == "of another rev":
        return {cid for cid in every if cid not in past[number % len(past)].blocks}
    if name == "generous":
        return newer | by_lot
    if name == "forgetful":
        return newer & by_lot
    if name == "of few blocks":
        return by_lot
    return set(every) if name == "without since" else newer
