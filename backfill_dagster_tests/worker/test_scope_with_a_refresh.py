"""A config that comes to want other records together with a refresh, and one that wants the same in other words."""

from __future__ import annotations

from pathlib import Path

from backfill_dagster.localnet import LocalNetwork
from backfill_dagster.state import BackfillState
from backfill_dagster_tests.road import expected_rows, rows_by_author
from backfill_dagster_tests.worker.refreshes import Hand, left_to_do, run
from backfill_dagster_tests.worker.telling import Told, fresh, heard, named, scope_of, told
from backfill_dagster_tests.worker.tiny import assert_sound, rows_in, state_of, tiny

POST, LIKE, FOLLOW = "app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.graph.follow"
LIKES = {"record_types": [LIKE]}


TWO_OF_THEM = {"concurrent_requests": 1, "quota": {"requests": 2}}


async def change_everybody(network: LocalNetwork) -> None:
    for did in network.dids:
        await Hand(network, did).add(LIKE, {"subject": {"uri": f"at://{did}/{POST}/x", "cid": "x"}})
        await Hand(network, did).delete(Hand(network, did).held(LIKE)[0])


async def test_together_with_a_refresh_whole_repos_are_fetched(folder: Path) -> None:
    """A delta is measured against rows of its own scope: what other rows stand for, it can't tell."""
    async with tiny(repos=3) as network:
        names = named(network)
        with state_of(folder, network) as state:
            await run(state)
            scopes = {scope_of(state): "old"}
        await change_everybody(network)
        with state_of(folder, network, **LIKES) as state:
            scopes[scope_of(state)] = "new"
            assert (await run(state, refresh=True)).requests == 3
            rows, likes = await fresh(folder, network, names, **LIKES)
            assert told(state, names, scopes) == {n: Told("complete", likes[n], 4, 1, "new", 1) for n in "abc"}
            assert {one[-1].whole for one in heard(state).values()} == {True}
            assert rows_in(state) == rows
            assert_sound(state)
            assert (await run(state, refresh=True)).requests == 3
            assert told(state, names, scopes) == {n: Told("unchanged", likes[n], 7, 1, "new", 2) for n in "abc"}
            assert rows_in(state) == rows
        with state_of(folder, network) as state:
            assert (await run(state, refresh=True)).requests == 3
            assert {one[-1] for one in heard(state).values()} == {(9, "complete", True)}
            assert rows_by_author(state.config) == expected_rows(network)
            assert_sound(state)


async def test_a_refresh_that_changes_its_mind_half_way(folder: Path) -> None:
    """Whoever still has rows of the scope that counts again is asked for what is newer, the others for all."""
    async with tiny(repos=4) as network:
        names = named(network)
        with state_of(folder, network) as state:
            await run(state)
            scopes = {scope_of(state): "old"}
            before = rows_in(state)
        with state_of(folder, network, record_types=[LIKE], processing=TWO_OF_THEM) as state:
            scopes[scope_of(state)] = "new"
            assert (await run(state, refresh=True)).requests == 2
        with state_of(folder, network) as state:
            assert (await run(state)).requests == 4
            whole = {names[did]: sum(rows.values()) for did, rows in expected_rows(network).items()}
            assert told(state, names, scopes) == {
                "a": Told("complete", whole["a"], 7, 1, "old", 1),
                "b": Told("complete", whole["b"], 7, 1, "old", 1),
                "c": Told("unchanged", whole["c"], 7, 1, "old", 1),
                "d": Told("unchanged", whole["d"], 7, 1, "old", 1),
            }
            assert rows_in(state) == before
            assert_sound(state)


def files_of(state: BackfillState) -> dict[str, bytes]:
    root = Path(str(state.config.state_path))
    kept = ("log", "plan", "records", "quarantine", "staging")
    return {str(path): path.read_bytes() for name in kept for path in root.glob(f"{name}/**/*") if path.is_file()}


async def test_the_same_wish_in_other_words_is_no_work(folder: Path) -> None:
    async with tiny(repos=3) as network:
        likes = [f"at://{did}/{key}" for did in network.dids for key in Hand(network, did).held(LIKE)]
        follows = [f"at://{did}/{key}" for did in network.dids for key in Hand(network, did).held(FOLLOW)]
        (folder / "likes.csv").write_text("uri\n" + "\n".join([*reversed(likes), likes[0]]) + "\n")
        of_likes = {"record_type": LIKE, "source": {"type": "inline", "uris": likes}}
        of_follows = {"record_type": FOLLOW, "source": {"type": "inline", "uris": follows}}
        first = {
            "record_types": [POST, LIKE, FOLLOW],
            "filters": [of_likes, of_follows],
            "time_range": {"start_date": "2024-06-01", "end_date": "2025-06-30"},
        }
        in_other_words = {
            "record_types": [FOLLOW, POST, LIKE],
            "filters": [of_follows, of_likes | {"source": {"type": "file", "path": str(folder / "likes.csv")}}],
            "time_range": {"start_date": "2024-06-01T00:00:00Z", "end_date": "2025-07-01T01:59:59.999999+02:00"},
        }
        with state_of(folder, network, **first) as state:
            await run(state)
            scope, before = scope_of(state), files_of(state)
        for key in [*first, None]:
            with state_of(folder, network, **(first | {key: in_other_words[key]} if key else in_other_words)) as state:
                assert (scope_of(state), left_to_do(state)) == (scope, []), key
                assert (await run(state)).requests == 0
                assert files_of(state) == before
