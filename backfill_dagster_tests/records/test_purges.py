"""The log of purge orders: dense numbers whoever writes, and nothing in it that can change unseen."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import orjson
import pytest

from backfill_dagster.errors import StateError
from backfill_dagster.model import Outcome, RepoOutcome
from backfill_dagster.records.fold import Fold
from backfill_dagster.records.purges import Purge, PurgeLog, Purges, purge_key
from backfill_dagster.store import LocalStore
from backfill_dagster_tests.records.test_snapshot import signed

A, B, C = "did:plc:a", "did:plc:b", "did:web:c.example"
POST = f"at://{A}/app.bsky.feed.post/3k"
LIKE = f"at://{B}/app.bsky.feed.like/3k"
SAID = {"at": "2026-11-24T12:00:00.000Z", "by": "me on here", "reason": "asked for"}


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "state")


@pytest.fixture
def log(store: LocalStore) -> PurgeLog:
    return PurgeLog(store)


def path_of(store: LocalStore, number: int) -> Path:
    return Path(store.path(purge_key(number)))


def test_orders_are_numbered_and_come_back(log: PurgeLog) -> None:
    assert log.read() == []
    first = log.append([A], [], **SAID)
    second = log.append([], [POST, LIKE], **SAID | {"reason": "die Tür \udcff"})
    assert (first.number, second.number) == (1, 2)
    assert log.read() == [
        Purge(number=1, dids=[A], uris=[], **SAID),
        Purge(number=2, dids=[], uris=[POST, LIKE], **SAID | {"reason": "die Tür ?"}),
    ]
    assert log.damaged() == {}


def test_two_that_purge_at_once_both_get_a_number(store: LocalStore) -> None:
    def purge(number: int) -> None:
        for turn in range(5):
            PurgeLog(LocalStore(Path(store.uri))).append([f"did:plc:{number}x{turn}"], [], **SAID)

    threads = [threading.Thread(target=purge, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    orders = PurgeLog(store).read()
    assert [order.number for order in orders] == list(range(1, 21))
    assert len({did for order in orders for did in order.dids}) == 20


def test_a_changed_byte_purges_nobody_else(log: PurgeLog, store: LocalStore) -> None:
    log.append([A], [POST], **SAID)
    whole = path_of(store, 1).read_bytes()
    dice = random.Random(4)
    for place in dice.sample(range(len(whole)), 60):
        changed = bytearray(whole)
        changed[place] ^= 1 << dice.randrange(8)
        path_of(store, 1).write_bytes(changed)
        with pytest.raises(StateError, match=r"000001\.json can't be read: .*; bring it back from a backup, or let"):
            log.read()
    path_of(store, 1).write_bytes(whole)
    assert len(log.read()) == 1


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "is missing"),
        (b"", "can't be read: "),
        (b"[]", "can't be read: "),
        (b'{"number":1}', "can't be read: its sha256"),
        ("next", "says that it is order 2"),
    ],
)
def test_an_order_that_is_no_good_is_named(
    log: PurgeLog, store: LocalStore, content: bytes | str | None, problem: str
) -> None:
    for did in (A, B):
        log.append([did], [], **SAID)
    if content is None:
        path_of(store, 1).unlink()
    else:
        path_of(store, 1).write_bytes(path_of(store, 2).read_bytes() if content == "next" else content)  # type: ignore[arg-type]
    with pytest.raises(StateError, match="000001.json " + problem):
        log.read()
    with pytest.raises(StateError):
        log.append([C], [], **SAID)
    assert list(log.damaged()) == [1]
    assert log.damaged()[1].startswith(problem)
    log.put_again(Purge(number=1, dids=[C], **SAID))
    assert [order.dids for order in log.read()] == [[C], [B]]


def test_fields_of_later_versions_are_let_be(log: PurgeLog, store: LocalStore) -> None:
    log.append([A], [], **SAID)
    path = path_of(store, 1)
    path.write_bytes(signed(orjson.loads(path.read_bytes()) | {"until": "tomorrow"}))
    assert log.read() == [Purge(number=1, dids=[A], uris=[], **SAID)]


def test_what_else_lies_there_is_no_order(log: PurgeLog, store: LocalStore) -> None:
    store.put("purges/notes.txt", b"x")
    store.put("purges/12.json", b"x")
    assert log.read() == []


def test_orders_add_up() -> None:
    purges = Purges.of([Purge(dids=[A]), Purge(dids=[C, A], uris=[LIKE]), Purge(uris=[POST, LIKE])])
    assert purges.dids == {A, C}
    assert purges.uris == {POST, LIKE}
    assert purges.uris_of(A) == {POST}
    assert purges.uris_of(C) == frozenset()
    assert Purges.of([]) == Purges()


def test_what_is_open_in_a_shard() -> None:
    purges = Purges.of([Purge(dids=[A, C], uris=[LIKE, POST])])
    known = {B: (RepoOutcome(did=B, outcome=Outcome.COMPLETE), 1)}
    fold = Fold(dids=known)
    assert purges.open_dids(fold, [B]) == []
    assert purges.open_dids(fold, [A, A, B, C]) == [A, C]
    assert purges.open_uris(fold, [B]) == [LIKE]
    assert purges.open_uris(fold, [A, B]) == [POST, LIKE]
    done = Fold(dids=known, purged=frozenset({A, LIKE}))
    assert purges.open_dids(done, [A, B, C]) == [C]
    assert purges.open_uris(done, [A, B]) == [POST]
