"""How many records of which type an account has: known from the seed alone, before any record is written.

Sizes follow a log-normal law; a few accounts are empty or tiny, as in the wild.
"""

from __future__ import annotations

import math

from backfill_dagster.localnet.dice import dice

SIGMA = 0.7
EMPTY_SHARE = 0.015
TINY_SHARE = 0.03

COLLECTION_OF_TYPE = {
    "post": "app.bsky.feed.post",
    "reply": "app.bsky.feed.post",
    "repost": "app.bsky.feed.repost",
    "like": "app.bsky.feed.like",
    "follow": "app.bsky.graph.follow",
    "block": "app.bsky.graph.block",
}
"""Record types that aren't simply their collection's NSID."""

SHARES = {
    "like": 0.44,
    "follow": 0.14,
    "post": 0.13,
    "reply": 0.13,
    "repost": 0.11,
    "block": 0.015,
    "app.bsky.graph.listitem": 0.01,
    "app.bsky.feed.threadgate": 0.006,
    "com.whtwnd.blog.entry": 0.004,
    "sh.tangled.feed.star": 0.004,
    "com.example-notes.note": 0.003,
    "app.bsky.graph.list": 0.002,
    "app.bsky.feed.postgate": 0.002,
    "app.bsky.feed.generator": 0.001,
    "app.bsky.graph.listblock": 0.001,
    "app.bsky.graph.starterpack": 0.001,
}
SINGLES = {"app.bsky.actor.profile": 1, "chat.bsky.actor.declaration": 20}
"""Types with one record `self`, and from which repo size on they are there."""

_TYPE_BY_COLLECTION = {collection: kind for kind, collection in COLLECTION_OF_TYPE.items() if kind != "reply"}


def record_type(collection: str, *, is_reply: bool) -> str:
    """The record type of `design/data.md`: short names for the five app.bsky collections, else the NSID."""
    kind = _TYPE_BY_COLLECTION.get(collection, collection)
    return "reply" if kind == "post" and is_reply else kind


def is_reply(record: object) -> bool:
    """Whether a (decoded) post counts as `reply`: its `reply` is an object, whatever that lacks."""
    return isinstance(record, dict) and isinstance(record.get("reply"), dict)


def record_counts(seed: int, index: int, *, median: int, cap: int) -> dict[str, int]:
    """Record type -> count of one account, without zeros; empty for an empty repo.

    Args:
        seed: the network's.
        index: the account's number.
        median: of the log-normal sizes, records.
        cap: no repo has more records.
    """
    rolls = dice(seed, f"size {index}")
    kind, size = rolls.random(), rolls.gauss(0.0, SIGMA)
    if kind < EMPTY_SHARE:
        return {}
    total = rolls.randint(1, 9) if kind < EMPTY_SHARE + TINY_SHARE else round(median * math.exp(size))
    total = max(1, min(total, cap))
    counts = {name: 1 for name, at_least in SINGLES.items() if total >= at_least}
    rest = total - len(counts)
    weights = {name: share * rolls.uniform(0.5, 1.5) for name, share in SHARES.items()}
    scale = rest / sum(weights.values())
    for name, weight in weights.items():
        counts[name] = int(weight * scale + rolls.random())
    surplus = sum(counts.values()) - total
    for name in sorted(SHARES, key=lambda name: -counts[name]):
        taken = min(surplus, counts[name])
        counts[name] -= taken
        surplus -= taken
    return {name: count for name, count in counts.items() if count}
