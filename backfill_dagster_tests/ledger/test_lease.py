"""Leases: who gets one, who has lost it, and what is said to whom; nobody waits for real."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from backfill_dagster.errors import FencedError, LeaseHeldError, StateError
from backfill_dagster.ledger import Lease, LeaseRecord
from backfill_dagster.ledger.process_identity import own_identity
from backfill_dagster_tests.ledger.fake_leases import (
    ELSEWHERE,
    HERE,
    LEASE_SECONDS,
    FakeClock,
    FakeTable,
    StoppedWaiter,
    take,
)

NAME = "study/a~0000"


@pytest.fixture
def table() -> FakeTable:
    return FakeTable()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


class TestTaking:
    """Who gets a lease, how soon, at which epoch."""

    def test_the_first_holder(self, table: FakeTable, clock: FakeClock) -> None:
        lease = take(table, clock, "one")
        assert (lease.name, lease.epoch, clock.sleeps) == (NAME, 1, [])
        lease.check()
        record = table.records[NAME]
        assert (record.owner_text, record.run_id, record.beat, record.released) == (
            "run one, pid 1 on h",
            "one",
            0,
            False,
        )

    def test_epochs_grow_with_every_holder(self, table: FakeTable, clock: FakeClock) -> None:
        epochs = []
        for run in ("one", "two", "three"):
            with take(table, clock, run) as lease:
                epochs.append(lease.epoch)
        assert (epochs, clock.sleeps) == ([1, 2, 3], [])

    def test_a_log_older_than_the_table_raises_the_epoch(self, table: FakeTable, clock: FakeClock) -> None:
        with take(table, clock, "one", at_least_epoch=7) as lease:
            assert lease.epoch == 7
        with take(table, clock, "two", at_least_epoch=3) as lease:
            assert lease.epoch == 8

    def test_a_beating_owner_is_named_after_a_beat(self, table: FakeTable, clock: FakeClock) -> None:
        owner = take(table, clock, "one")
        clock.during = lambda now: owner.beat() if now >= 1010 else None
        with pytest.raises(LeaseHeldError, match="study/a~0000 is held by run one, pid 1 on h; wait for it to end, or"):
            take(table, clock, "two")
        assert clock.now == 1010
        owner.check()

    def test_a_still_owner_loses_it_after_lease_seconds(self, table: FakeTable, clock: FakeClock) -> None:
        owner = take(table, clock, "one")
        lease = take(table, clock, "two")
        assert (clock.now, lease.epoch) == (1000 + LEASE_SECONDS, 2)
        owner.beat()
        with pytest.raises(FencedError, match=r"was lost \(to run two, pid 1 on h\); start again when that run"):
            owner.check()
        assert owner.release() is False
        lease.check()
        assert table.records[NAME].run_id == "two"

    def test_the_longer_patience_counts(self, table: FakeTable, clock: FakeClock) -> None:
        take(table, clock, "one", lease_seconds=600)
        take(table, clock, "two", lease_seconds=60)
        assert clock.now == 1600
        take(table, clock, "three", lease_seconds=120)
        assert clock.now == 1720

    @pytest.mark.parametrize("looks", [1, 23, 24])
    def test_a_challenger_that_was_stopped_itself_has_not_watched(
        self, table: FakeTable, clock: FakeClock, looks: int
    ) -> None:
        """What stopped it may have stopped the owner: on waking up it looks on, and meets the owner's next beat."""
        owner = take(table, clock, "one")

        def stopped_together(now: float) -> None:
            if len(clock.sleeps) == looks:
                clock.now += 3600
            if len(clock.sleeps) == looks + 1:
                owner.beat()

        clock.during = stopped_together
        if looks < 24:
            with pytest.raises(LeaseHeldError, match="held by run one"):
                take(table, clock, "two")
            assert len(clock.sleeps) == looks + 1
        else:
            assert take(table, clock, "two").epoch == 2

    def test_a_table_that_hangs_has_not_been_watched(self, clock: FakeClock) -> None:
        class Hanging(FakeTable):
            def read(self, name: str) -> LeaseRecord | None:
                clock.now += 1000
                return super().read(name)

        hanging = Hanging()
        take(hanging, clock, "one")
        took_from = clock.now
        assert take(hanging, clock, "two").epoch == 2
        assert sum(clock.sleeps) == LEASE_SECONDS
        assert clock.now - took_from == LEASE_SECONDS + 1000 * (len(clock.sleeps) + 1)

    def test_a_sleep_that_ends_early_is_no_patience(self, table: FakeTable, clock: FakeClock) -> None:
        take(table, clock, "one")

        def early(now: float) -> None:
            clock.now -= clock.sleeps[-1] / 2

        clock.during = early
        take(table, clock, "two")
        assert clock.now == pytest.approx(1000 + LEASE_SECONDS)

    def test_a_release_while_watching(self, table: FakeTable, clock: FakeClock) -> None:
        owner = take(table, clock, "one")
        clock.during = lambda _: (owner.release(), None)[1]
        assert take(table, clock, "two").epoch == 2
        assert len(clock.sleeps) == 1

    def test_a_dead_process_of_this_machine_loses_it_at_once(self, table: FakeTable, clock: FakeClock) -> None:
        take(table, clock, "one", identity=HERE)
        assert take(table, clock, "two", identity=HERE, wait=False).epoch == 2
        assert clock.sleeps == []

    def test_one_cannot_tell_who_is_dead_elsewhere(self, table: FakeTable, clock: FakeClock) -> None:
        take(table, clock, "one", identity=ELSEWHERE)
        with pytest.raises(LeaseHeldError, match="held by run one"):
            take(table, clock, "two", identity=HERE, wait=False)
        assert clock.sleeps == []

    def test_a_living_process_of_this_machine_is_waited_for_or_not(self, table: FakeTable, clock: FakeClock) -> None:
        take(table, clock, "one", identity=own_identity())
        with pytest.raises(LeaseHeldError, match="held by run one"):
            take(table, clock, "two", identity=own_identity(), wait=False)
        assert take(table, clock, "two", identity=own_identity()).epoch == 2  # it may be stopped: the beat decides

    def test_another_challenger_was_quicker(self, table: FakeTable, clock: FakeClock) -> None:
        take(table, clock, "one")
        quick = FakeClock()

        def overtake(_: float) -> None:
            if len(clock.sleeps) == 3:
                take(table, quick, "two")

        clock.during = overtake
        with pytest.raises(LeaseHeldError, match="held by run two"):
            take(table, clock, "three")

    @pytest.mark.parametrize("leaves", [True, False])
    def test_the_last_moment_can_be_anothers(self, clock: FakeClock, leaves: bool) -> None:
        class Overtaken(FakeTable):
            def compare_and_set(self, name: str, expected: object, new: object) -> bool:
                take(other, FakeClock(), "quick")
                self.records = {} if leaves else dict(other.records)
                return False

        other = FakeTable()
        with pytest.raises(LeaseHeldError, match="held by another run" if leaves else "held by run quick"):
            take(Overtaken(), clock, "slow")

    def test_a_lost_reply_to_ones_own_success(self, table: FakeTable, clock: FakeClock) -> None:
        table.mode = "lost reply"
        assert take(table, clock, "one").epoch == 1

    def test_a_sleep_that_raises_ends_the_attempt(self, table: FakeTable, clock: FakeClock) -> None:
        take(table, clock, "one")

        def stop(_: float) -> None:
            raise KeyboardInterrupt

        clock.during = stop
        with pytest.raises(KeyboardInterrupt):
            take(table, clock, "two")
        assert table.records[NAME].run_id == "one"


class TestKeeping:
    """Who may go on."""

    def test_beats_confirm(self, table: FakeTable, clock: FakeClock) -> None:
        lease = take(table, clock, "one")
        for beat in range(1, 20):
            clock.now += LEASE_SECONDS / 6
            lease.beat()
            lease.check()
            assert table.records[NAME].beat == beat

    def test_half_a_lease_without_a_beat_is_too_long(self, table: FakeTable, clock: FakeClock) -> None:
        lease = take(table, clock, "one")
        clock.now += LEASE_SECONDS / 2 - 0.001
        lease.check()
        clock.now += 0.001
        with pytest.raises(FencedError, match="could not be confirmed for 30 s; see why the ledger"):
            lease.check()
        lease.beat()
        lease.check()

    def test_a_table_that_fails_confirms_nothing(self, table: FakeTable, clock: FakeClock) -> None:
        lease = take(table, clock, "one")
        table.mode = "fails"
        clock.now += 20
        lease.beat()
        lease.check()
        clock.now += 10
        lease.beat()
        with pytest.raises(FencedError, match="could not be confirmed for 30 s"):
            lease.check()
        table.mode = ""
        lease.beat()
        lease.check()

    @pytest.mark.parametrize("mode", ["fails late", "lost reply"])
    def test_a_beat_whose_reply_got_lost(self, table: FakeTable, clock: FakeClock, mode: str) -> None:
        lease = take(table, clock, "one")
        table.mode = mode
        lease.beat()
        table.mode = ""
        clock.now += LEASE_SECONDS / 2 - 1
        lease.beat()
        clock.now += LEASE_SECONDS / 2 - 1
        lease.check()
        lease.beat()
        assert table.records[NAME].beat >= 2
        assert lease.release() is True

    def test_time_counts_from_before_the_beat_was_asked_for(self, table: FakeTable, clock: FakeClock) -> None:
        class Slow(FakeTable):
            def compare_and_set(self, name: str, expected: object, new: object) -> bool:
                clock.now += 40
                return super().compare_and_set(name, expected, new)  # type: ignore[arg-type]

        lease = take(Slow(), clock, "one")
        with pytest.raises(FencedError, match="could not be confirmed for 40 s"):
            lease.check()

    @pytest.mark.parametrize("mode", ["fails late", "lost reply"])
    def test_a_release_after_a_beat_whose_reply_got_lost(self, table: FakeTable, clock: FakeClock, mode: str) -> None:
        lease = take(table, clock, "one")
        table.mode = mode
        lease.beat()
        table.mode = ""
        assert lease.release() is True
        assert table.records[NAME].released is True

    def test_a_release_whose_reply_gets_lost(self, table: FakeTable, clock: FakeClock) -> None:
        lease = take(table, clock, "one")
        table.mode = "lost reply"
        assert lease.release() is True
        assert table.records[NAME].released is True

    @pytest.mark.parametrize("is_known", [True, False], ids=["has seen it", "has not"])
    def test_a_release_leaves_a_successors_lease_alone(
        self, table: FakeTable, clock: FakeClock, is_known: bool
    ) -> None:
        owner = take(table, clock, "one")
        successor = take(table, clock, "two")
        if is_known:
            owner.beat()
        before = table.records[NAME]
        assert owner.release() is False
        assert table.records[NAME] == before
        successor.beat()
        successor.check()

    def test_a_record_that_vanished(self, table: FakeTable, clock: FakeClock) -> None:
        lease = take(table, clock, "one")
        table.records.clear()
        lease.beat()
        with pytest.raises(FencedError, match=r"was lost \(its record is gone\)"):
            lease.check()
        lease.beat()
        assert table.records == {}

    def test_release_is_final_and_repeatable(self, table: FakeTable, clock: FakeClock) -> None:
        lease = take(table, clock, "one")
        assert lease.release() is True
        assert lease.release() is False
        assert table.records[NAME].released is True
        lease.beat()
        assert table.records[NAME].beat == 0
        with pytest.raises(FencedError, match="was released; start again"):
            lease.check()

    def test_release_from_a_table_that_fails_hides_no_other_error(self, table: FakeTable, clock: FakeClock) -> None:
        with pytest.raises(ZeroDivisionError), take(table, clock, "one"):
            table.mode = "fails"
            raise ZeroDivisionError
        assert table.records[NAME].released is False

    def test_an_acquire_at_a_table_that_fails(self, table: FakeTable, clock: FakeClock) -> None:
        table.mode = "fails"
        with pytest.raises(StateError, match="the ledger is gone"):
            take(table, clock, "one")


class TestThread:
    """The heartbeat is a thread of its own."""

    def acquire(self, table: FakeTable, stop: StoppedWaiter | threading.Event, seconds: float) -> Lease:
        return Lease.acquire(table, NAME, owner="o", run_id="r", lease_seconds=seconds, stop=stop)

    def test_it_beats_six_times_a_lease_until_released(self, table: FakeTable) -> None:
        class Counting(StoppedWaiter):
            def wait(self, timeout: float) -> bool:
                self.timeouts.append(timeout)
                if len(self.timeouts) == 4:
                    done.set()
                    go_on.wait(10)
                return self.is_set

        done, go_on, stop = threading.Event(), threading.Event(), Counting()
        lease = self.acquire(table, stop, 60)
        assert done.wait(10)
        assert stop.timeouts == [10.0] * 4
        assert table.records[NAME].beat == 3
        lease.release()
        go_on.set()
        assert self.ended(lambda: not self.threads())
        assert table.records[NAME].beat == 3

    def test_it_ends_when_the_lease_is_lost(self, table: FakeTable) -> None:
        lease = self.acquire(table, threading.Event(), 0.06)
        table.records.clear()
        assert self.ended(lambda: not self.threads())
        with pytest.raises(FencedError, match="its record is gone"):
            lease.check()

    def test_check_never_waits_for_the_table(self, table: FakeTable) -> None:
        class Blocked(FakeTable):
            def compare_and_set(self, name: str, expected: object, new: object) -> bool:
                if expected is not None:
                    blocked.set()
                    go_on.wait(10)
                return super().compare_and_set(name, expected, new)  # type: ignore[arg-type]

        blocked, go_on = threading.Event(), threading.Event()
        lease = self.acquire(Blocked(), threading.Event(), 3)
        assert blocked.wait(10)
        lease.check()
        go_on.set()
        assert lease.release() is True

    @staticmethod
    def threads() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == f"lease {NAME}"]

    @staticmethod
    def ended(condition: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + 10
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.005)
        return condition()
