"""What the lives are made of: a small network, folders to begin in, and commands whose end is known.

Together the scenes touch every part of the protocol in some hundred durable calls each: several record types and
batches, a quarantine, a DID without a host, superseded rows with neighbours in their parts, a recovery with work of
every kind to do, compaction, purges, and snapshots of the log all the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from backfill_dagster.errors import LeaseHeldError
from backfill_dagster.localnet import LocalnetOptions
from backfill_dagster.model import Outcome
from backfill_dagster.plan import PlanStore
from backfill_dagster.records.part_file import part_key
from backfill_dagster.records.purges import PurgeLog
from backfill_dagster.scope import load_selection
from backfill_dagster.state import BackfillState
from backfill_dagster.worker import writer
from backfill_dagster.worker.backfill import run_backfill, shards_with_work
from backfill_dagster.worker.compaction import compact_backfill
from backfill_dagster.worker.planning import plan_backfill
from backfill_dagster.worker.purge import carry_out
from backfill_dagster.worker.retry import mark_for_retry
from backfill_dagster_tests.orchestration.network import ThreadedNetwork, threaded_network
from backfill_dagster_tests.road import write_config
from backfill_dagster_tests.torture.fate import Blow, Call
from backfill_dagster_tests.torture.life import SNAPSHOT_ENTRIES, Command, Life
from backfill_dagster_tests.torture.picture import Picture, finished_picture
from backfill_dagster_tests.worker.tiny import fold_of, only_shard

OPTIONS = LocalnetOptions(
    hosts=1, repos=4, seed=6, median_records=3, max_records=6, states={"deactivated": 1, "not_a_did": 1}
)
SETTINGS = {
    "record_types": ["app.bsky.feed.post", "app.bsky.feed.like"],
    "processing": {"batch_size": 2, "concurrent_requests": 1},
}
LIKES = "app.bsky.feed.like"
SUBJECT = {"uri": "at://did:web:a.example/app.bsky.feed.post/3k", "cid": "bafyrei"}
LIKE = {"collection": LIKES, "rkey": "3kaaaaaaaaaa2", "record": {"subject": SUBJECT}}
GONE = {"collection": LIKES, "rkey": "3kaaaaaaaaab2", "record": {"subject": SUBJECT}}
BROKEN = {"collection": LIKES, "rkey": "3kaaaaaaaaac2", "record": {"subject": 7}}


@dataclass(frozen=True)
class Scene:
    """A folder to begin in, commands, and what they come to when nothing goes wrong.

    Attributes:
        base: the folder; lives begin in copies of it.
        commands: what is run, each one again when it breaks.
        calls: the durable calls of an unbroken life.
        end: what is there after it.
    """

    base: Path
    commands: Sequence[Command]
    calls: Sequence[Call]
    end: Picture


class Scenes(Mapping[str, Scene]):
    """Scenes by name, each made when it is asked for: not every module needs all of them."""

    def __init__(self, makers: Mapping[str, Callable[[], Scene]]) -> None:
        self._makers = makers
        self._made: dict[str, Scene] = {}

    def __getitem__(self, name: str) -> Scene:
        if name not in self._made:
            self._made[name] = self._makers[name]()
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


async def run(state: BackfillState) -> None:
    """`backfill run`."""
    run_id = state.effects.new_id()
    planned = await plan_backfill(state, run_id=run_id)
    selection = load_selection(state.config)
    shards = shards_with_work(state, planned.plan, selection.scope)
    done = await run_backfill(state, planned.plan, selection, shards, run_id=run_id)
    for why in done.held.values():
        raise LeaseHeldError(why)


async def refresh(state: BackfillState) -> None:
    """`backfill plan --refresh`."""
    await plan_backfill(state, run_id=state.effects.new_id(), refresh=True)


async def retry_deactivated(state: BackfillState) -> None:
    """`backfill retry --outcome deactivated`."""
    mark_for_retry(state, PlanStore(state.store).read(), outcomes=[Outcome.DEACTIVATED], hosts=[])


async def compact(state: BackfillState) -> None:
    """`backfill compact`."""
    plan, scope = PlanStore(state.store).read(), load_selection(state.config).scope
    await compact_backfill(state, plan, scope, run_id=state.effects.new_id())


async def purge(state: BackfillState) -> None:
    """`backfill purge` of one account and one record of another."""
    plan, scope = PlanStore(state.store).read(), load_selection(state.config).scope
    first, second, *_ = [one.did for one in plan.dids(only_shard(state))]
    record = f"at://{second}/{LIKES}/{LIKE['rkey']}"
    PurgeLog(state.store).append([first], [record], at=state.effects.now_text(), by="a test", reason="")
    await carry_out(state, plan, scope, run_id=state.effects.new_id())


async def retry_first(state: BackfillState) -> None:
    """One DID alone is fetched again: its rows go out of parts that hold others' too."""
    shard = only_shard(state)
    first = PlanStore(state.store).read().dids(shard)[0].did
    state.ledger.mark_for_retry(shard, {first: fold_of(state, shard).dids[first][1]})


@contextmanager
def made_scenes(
    folder: Path, life: type[Life] = Life, settle: Callable[[Path], object] = lambda folder: None
) -> Iterator[Scenes]:
    """The scenes by name; the first run's is on a network of its own, as it was before the other one's changes.

    Args:
        folder: where to make them.
        life: where lives are led.
        settle: makes a folder with a config one to begin in.
    """
    with (
        patch.object(writer, "SNAPSHOT_ENTRIES", SNAPSHOT_ENTRIES),
        threaded_network(OPTIONS) as before,
        threaded_network(OPTIONS) as after,
    ):
        for net in (before, after):
            add_records(net)
        young, old = empty_folder(folder / "young", before), empty_folder(folder / "old", after)
        settle(young)
        settle(old)
        unbroken(old, [run], folder / "older", life)
        change_records(after)

        def on_older(*commands: Command, into: str) -> Scene:
            return unbroken(folder / "older", commands, folder / into, life)

        scenes = Scenes(
            {
                "first_run": lambda: unbroken(young, [run], folder / "first", life),
                "refresh": lambda: on_older(refresh, run, into="refreshed"),
                "retry": lambda: on_older(retry_deactivated, retry_first, run, into="retried"),
                "upkeep": lambda: on_older(compact, purge, into="kept_up"),
                "recovery": lambda: unbroken(
                    broken(scenes["refresh"], folder / "broken", life), [run], folder / "recovered", life
                ),
            }
        )
        yield scenes


def empty_folder(folder: Path, net: ThreadedNetwork) -> Path:
    folder.mkdir(parents=True)
    write_config(folder, net.network.plc_url, net.network.dids, **SETTINGS)
    return folder


def add_records(net: ThreadedNetwork) -> None:
    for did in net.network.active:
        net.do(net.network.control.add({"did": did, "records": [LIKE, GONE, BROKEN]}))


def change_records(net: ThreadedNetwork) -> None:
    """The first account adds, edits and deletes; the deactivated one is back; the others stay as they are."""
    first = net.network.active[0]
    edited = LIKE | {"record": {"subject": SUBJECT | {"cid": "bafyreib"}}}
    new = {"collection": LIKES, "record": {"subject": SUBJECT}}
    [away] = [did for did, entry in net.network.expected.items() if entry["outcome"] == "deactivated"]
    net.do(net.network.control.add({"did": first, "records": [new]}))
    net.do(net.network.control.edit({"did": first, **edited}))
    net.do(net.network.control.delete({"did": first, "collection": LIKES, "rkey": GONE["rkey"]}))
    net.do(net.network.control.status({"did": away, "status": "active"}))


def unbroken(base: Path, commands: Sequence[Command], folder: Path, life_of: type[Life] = Life) -> Scene:
    """Live in a copy of `base` to the end."""
    life_of.begin(base, folder)
    life = life_of(folder, life_of.fate_of())
    ended = life.run(commands)
    assert ended.why is None, repr(ended.why)
    calls = list(life.fate.calls)
    with life.opened() as state:
        return Scene(base, commands, calls, finished_picture(state))


def broken(scene: Scene, folder: Path, life_of: type[Life] = Life) -> Path:
    """A refresh that died right after its first entry with records; and dead files of an older epoch."""
    entries = [number for number, call in enumerate(scene.calls, 1) if is_entry(call)]
    life_of.begin(scene.base, folder)
    life = life_of(folder, life_of.fate_of(Blow.DEATH, entries[1] + 1))  # the first one is the seal
    assert life.run(scene.commands).left == scene.commands[1:]
    again = life_of(folder, life_of.fate_of())
    with again.opened() as state:
        plant_dead_files(state)
    again.plant()
    return folder


def is_entry(call: Call) -> bool:
    """Whether this call is the moment at which an entry of the shard's log comes to be."""
    return call.kind in ("link", "create") and "/log/localhost" in call.where


def plant_dead_files(state: BackfillState) -> None:
    """A staged and a published file that no entry names: stores without staging leave the second kind too."""
    shard = only_shard(state)
    fold = fold_of(state, shard)
    names = [part_key("like", shard=shard, seq=fold.seq, epoch=fold.epoch - 1, unique=one) for one in ("dead", "deed")]
    for key in names:
        with state.store.stage(key) as file:
            file.write(b"nobody's")
    state.store.publish(names[1:])
