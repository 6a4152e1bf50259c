"""Assignment: shards top up, open, and never change what they stand for."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill_dagster.model import Shard
from backfill_dagster.plan.assign import assign

HOSTS = st.sampled_from(["a.test", "b.test", "localhost_2583"])
EXISTING = st.dictionaries(st.builds(Shard, HOSTS, st.integers(0, 12000)), st.integers(0, 9), max_size=8)


def keys(existing: dict[Shard, int], hosts: list[str], shard_size: int) -> list[str]:
    return [shard.key for shard in assign(existing, hosts, shard_size)]


def test_the_first_shard_of_a_host_is_zero_and_a_full_one_is_followed_by_the_next() -> None:
    assert keys({}, ["a.test", "b.test", "a.test", "a.test"], 2) == [
        "a.test~0000",
        "b.test~0000",
        "a.test~0000",
        "a.test~0001",
    ]


def test_only_the_last_shard_is_topped_up() -> None:
    existing = {Shard("a.test", 0): 1, Shard("a.test", 2): 3}
    assert keys(existing, ["a.test"] * 3, 4) == ["a.test~0002", "a.test~0003", "a.test~0003"]


def test_a_lower_shard_size_leaves_fuller_shards_as_they_are() -> None:
    assert keys({Shard("a.test", 0): 9}, ["a.test"] * 3, 2) == ["a.test~0001", "a.test~0001", "a.test~0002"]


def test_a_higher_shard_size_tops_up_the_last_one() -> None:
    existing = {Shard("a.test", 0): 2, Shard("a.test", 1): 2}
    assert keys(existing, ["a.test"] * 3, 4) == ["a.test~0001", "a.test~0001", "a.test~0002"]


def test_a_last_shard_that_everybody_left_is_used_again() -> None:
    assert keys({Shard("a.test", 0): 2, Shard("a.test", 1): 0}, ["a.test"], 2) == ["a.test~0001"]


def test_numbers_grow_beyond_four_digits() -> None:
    assert keys({Shard("a.test", 9999): 1}, ["a.test"], 1) == ["a.test~10000"]


def test_a_size_below_one_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="shard_size 0 is below 1"):
        assign({}, [], 0)


@given(EXISTING, st.lists(HOSTS, max_size=60), st.integers(1, 7))
def test_no_shard_grows_over_the_size_and_each_did_stays_on_its_host(
    existing: dict[Shard, int], hosts: list[str], shard_size: int
) -> None:
    given_shards = list(assign(existing, hosts, shard_size))
    assert [shard.host for shard in given_shards] == hosts
    for shard, news in Counter(given_shards).items():
        assert existing.get(shard, 0) + news <= shard_size


@given(EXISTING, st.lists(HOSTS, max_size=60), st.integers(1, 7))
def test_only_the_last_shard_and_newer_ones_are_given_and_only_the_newest_stays_open(
    existing: dict[Shard, int], hosts: list[str], shard_size: int
) -> None:
    sizes = Counter(existing)
    sizes.update(assign(existing, hosts, shard_size))
    for host in set(hosts):
        last = max((shard.number for shard in existing if shard.host == host), default=0)
        touched = {shard.number for shard in sizes if shard.host == host and sizes[shard] != existing.get(shard, 0)}
        newest = max(max(touched), last)
        assert touched <= set(range(last, newest + 1))
        for number in range(last, newest):
            assert sizes[Shard(host, number)] >= shard_size


@given(EXISTING, st.lists(HOSTS, max_size=40), st.integers(0, 40), st.integers(1, 7))
def test_planning_in_two_steps_gives_what_one_step_gives(
    existing: dict[Shard, int], hosts: list[str], cut: int, shard_size: int
) -> None:
    first = list(assign(existing, hosts[:cut], shard_size))
    between = Counter(existing)
    between.update(first)
    # An entry of 0 has to stay: it still is the host's last shard.
    second = list(assign({**existing, **between}, hosts[cut:], shard_size))
    assert first + second == list(assign(existing, hosts, shard_size))


@given(EXISTING, st.lists(HOSTS, max_size=40), st.integers(1, 7))
def test_hosts_do_not_influence_each_other(existing: dict[Shard, int], hosts: list[str], shard_size: int) -> None:
    together = [shard for shard in assign(existing, hosts, shard_size) if shard.host == "a.test"]
    alone = {shard: size for shard, size in existing.items() if shard.host == "a.test"}
    assert together == list(assign(alone, [host for host in hosts if host == "a.test"], shard_size))
