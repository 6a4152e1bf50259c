"""Any sequence of changes, with refreshes in between: after each one the rows are those of a fresh backfill.

The keys are few and of all layers, so that the trees are small and change their shape at every other step; so do
records that come back, contents that several records share, and keys on the edge of what is wanted.
`BACKFILL_TORTURE=1` tries many more.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backfill_dagster_tests.torture import TORTURE
from backfill_dagster_tests.worker.refreshes import HAS_THE_REPO, Hand, Refreshes, refreshing
from backfill_dagster_tests.worker.tiny import tiny

EXAMPLES = 300 if TORTURE else 15
COLLECTIONS = ("app.bsky.actor.profile", "app.bsky.feed.like", "app.bsky.feed.post", "com.example.a", "com.example.b")
KEYS = sorted(f"{name}/3l{a}{b}aaaaaaaaa" for name in COLLECTIONS for a in "bdfh" for b in "abc")
CONTENTS: Sequence[dict[str, Any]] = (
    {"text": "one", "createdAt": "2024-05-06T07:08:09Z"},
    {"text": "two", "createdAt": "2025-05-06T07:08:09Z", "reply": {}},
    {"text": "three", "createdAt": None},
    {"text": 4, "createdAt": "2025-05-06T07:08:09Z"},
)
CONFIGS: dict[str, dict[str, Any]] = {
    "everything": {"record_types": ["app.bsky.*", "com.example.*"]},
    "every other collection": {"record_types": list(COLLECTIONS[::2])},
    "one namespace": {"record_types": ["app.bsky.*"]},
    "a time range": {"record_types": ["app.bsky.*", "com.example.*"], "time_range": {"start_date": "2025-01-01"}},
}

accounts = st.integers(0, 1)
some_keys = st.lists(st.sampled_from(KEYS), min_size=1, max_size=10, unique=True)
a_range = st.tuples(st.integers(0, len(KEYS) - 1), st.integers(1, 25))
contents = st.sampled_from(CONTENTS)
steps = st.one_of(
    st.tuples(st.just("put"), accounts, some_keys, contents),
    st.tuples(st.just("put"), accounts, some_keys, contents),
    st.tuples(st.just("delete"), accounts, some_keys),
    st.tuples(st.just("delete a range"), accounts, a_range),
    st.tuples(st.just("delete a range"), accounts, a_range),
    st.tuples(st.just("vanish"), accounts, st.sampled_from(["", *COLLECTIONS])),
    st.tuples(st.just("status"), accounts, st.sampled_from(["active", "active", "deactivated", "takendown"])),
    st.tuples(st.just("rotate"), accounts),
    st.tuples(st.just("import"), accounts, st.booleans()),
    st.tuples(st.just("move"), accounts),
    st.tuples(st.just("refresh")),
)


async def take(step: tuple[Any, ...], hands: Sequence[Hand], one: Refreshes) -> None:
    """Do one step; what can't be done (nothing to delete) is left out."""
    name, rest = step[0], step[2:]
    if name == "refresh":
        await one.refresh()
        return
    hand = hands[step[1]]
    if name == "put":
        keys, content = rest
        for key in keys:
            await hand.put(key, content)
    elif name in ("delete", "delete a range"):
        wanted = rest[0] if name == "delete" else KEYS[rest[0][0] : sum(rest[0])]
        if there := [key for key in hand.held() if key in wanted]:
            await hand.delete(*there)
    elif name == "vanish":
        await hand.vanish(*rest)
    elif name == "status":
        await hand.status(*rest)
    elif name == "rotate":
        await hand.rotate_key()
    elif name == "import":
        await hand.import_anew(sign_again=rest[0])
    elif name == "move":
        await hand.move(1 - hand.network.account(hand.did).host)


async def story(folder: Path, config: dict[str, Any], filled: list[list[str]], told: list[tuple[Any, ...]]) -> None:
    async with tiny(repos=2, hosts=2, median=5) as network:
        hands = [Hand(network, did) for did in network.dids]
        for hand, keys in zip(hands, filled, strict=True):
            await hand.vanish()
            for key in keys:
                await hand.put(key, CONTENTS[0])
        with refreshing(folder, network, identity={"cache_days": 0}, **config) as one:
            await one.begin()
            for step in told:
                await take(step, hands, one)
            for hand in hands:
                await hand.status("active")
            ran = await one.refresh()
            assert set(ran.outcomes.values()) <= set(HAS_THE_REPO)


@pytest.mark.timeout(3600 if TORTURE else 120)
@settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    config=st.sampled_from(list(CONFIGS)),
    filled=st.lists(st.lists(st.sampled_from(KEYS), max_size=40, unique=True), min_size=2, max_size=2),
    told=st.lists(steps, min_size=5, max_size=10),
)
def test_a_refresh_is_a_fresh_backfill(
    folder: Path, config: str, filled: list[list[str]], told: list[tuple[Any, ...]]
) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as own:
        asyncio.run(story(Path(own), CONFIGS[config], filled, told))
