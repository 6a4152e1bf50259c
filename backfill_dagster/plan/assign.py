"""Which shard a new DID goes to: top up the host's last shard, then open the next. Nothing ever moves.

Pure arithmetic over shard sizes; where the sizes come from and which DIDs are new is `make`'s business.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from backfill_dagster.model import Shard


def assign(existing: Mapping[Shard, int], hosts: Iterable[str], shard_size: int) -> Iterator[Shard]:
    """Give each new DID its shard; depends on nothing but the arguments.

    Only a host's last shard (the highest number) takes new DIDs, and only up to `shard_size`. Places that become free
    in earlier shards stay free, and a `shard_size` that was lowered leaves fuller shards as they are: no key of a
    shard ever changes what it stands for.

    Args:
        existing: shard -> places taken. A delisted DID keeps its place, so that it can come back without making the
            shard too large; a DID that was given to another shard has left its place.
        hosts: for each new DID, in order, the host part of its partition key.
        shard_size: DIDs per shard, at most.

    Yields:
        One shard per entry of `hosts`, in the same order.

    Raises:
        ValueError: `shard_size` is below 1.
    """
    if shard_size < 1:
        raise ValueError(f"shard_size {shard_size} is below 1")
    last: dict[str, int] = {}
    for shard in existing:
        last[shard.host] = max(shard.number, last.get(shard.host, 0))
    taken = {host: existing[Shard(host, number)] for host, number in last.items()}
    return _assign(last, taken, hosts, shard_size)


def _assign(last: dict[str, int], taken: dict[str, int], hosts: Iterable[str], shard_size: int) -> Iterator[Shard]:
    for host in hosts:
        if host not in last:
            last[host], taken[host] = 0, 0
        elif taken[host] >= shard_size:
            last[host], taken[host] = last[host] + 1, 0
        taken[host] += 1
        yield Shard(host, last[host])
