"""Leases in a table that accepts requests and never answers: beats, runs and releases end in time all the same."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from backfill_dagster.aws import AwsBounds, AwsError
from backfill_dagster.errors import FencedError
from backfill_dagster.ledger import DynamodbLedger, Lease, dynamodb_leases
from backfill_dagster.ledger import lease as lease_module
from backfill_dagster_tests.aws.proxy import Proxy, Seen, Trouble, proxied
from backfill_dagster_tests.ledger.dynamodb_tables import open_ledger, table_name

pytestmark = pytest.mark.usefixtures("aws_environ", "no_backoff")

NAME = "study/a"
SECONDS = 3.0
"""A beat waits a twelfth of it."""


@pytest.fixture
def proxy(ministack: str) -> Iterator[Proxy]:
    with proxied(ministack) as made:
        yield made


@pytest.fixture
def ledger(proxy: Proxy) -> DynamodbLedger:
    return ready_ledger(proxy)


def ready_ledger(proxy: Proxy) -> DynamodbLedger:
    """Behind the proxy, its table there and verified."""
    made = open_ledger(proxy.url, table_name())
    made._table.for_writing()
    return made


def take(ledger: DynamodbLedger, seconds: float = SECONDS) -> Lease:
    return Lease.acquire(ledger.leases, NAME, owner="me", run_id="r", lease_seconds=seconds)


def silent(target: str, times: int = 10**9) -> Callable[[Seen], Trouble | None]:
    """The next requests of a kind are never answered."""
    left = iter(range(times))
    return lambda seen: Trouble.HANG if seen.target == target and next(left, None) is not None else None


def seconds_until(condition: Callable[[], bool], at_most: float = 10) -> float:
    began = time.monotonic()
    while not condition() and time.monotonic() < began + at_most:
        time.sleep(0.01)
    return time.monotonic() - began


def is_fenced(lease: Lease) -> bool:
    try:
        lease.check()
    except FencedError:
        return True
    return False


class TestBeats:
    """What happens to the heartbeat's own thread."""

    def test_two_that_hang_lose_nothing(self, proxy: Proxy, ledger: DynamodbLedger) -> None:
        with take(ledger) as held:
            confirmed_at = held._confirmed_at
            proxy.choose = silent("PutItem", 2)
            waited = seconds_until(lambda: held._confirmed_at != confirmed_at or is_fenced(held))
            assert proxy.troubled == [Trouble.HANG] * 2
            held.check()
            assert waited < SECONDS / 2, "the third came in time"
            found = ledger.leases.read(NAME)
            assert found is not None
            assert found.beat >= 1

    def test_the_run_ends_before_anybody_takes_the_lease(self, proxy: Proxy, ledger: DynamodbLedger) -> None:
        with take(ledger) as held:
            proxy.choose = silent("PutItem")
            waited = seconds_until(lambda: is_fenced(held))
            assert waited == pytest.approx(SECONDS / 2, abs=0.4)
            with pytest.raises(
                FencedError, match=rf"the lease on {NAME} could not be confirmed for \d+ s; see why the"
            ):
                held.check()
            assert len(proxy.troubled) >= 3, "a beat that hangs doesn't keep the next one"
            proxy.choose = lambda seen: None

    def test_another_lease_beats_on(self, proxy: Proxy, ledger: DynamodbLedger) -> None:
        with (
            take(ledger) as held,
            Lease.acquire(ledger.leases, "study/b", owner="me", run_id="r", lease_seconds=SECONDS) as other,
        ):
            proxy.choose = lambda seen: (
                Trouble.HANG if seen.target == "PutItem" and seen.body["Item"]["did"]["S"] == NAME else None
            )
            seconds_until(lambda: is_fenced(held))
            assert is_fenced(held)
            other.check()
            assert other._record.beat >= 2
            proxy.choose = lambda seen: None

    def test_are_tried_once(self, proxy: Proxy, ledger: DynamodbLedger) -> None:
        with take(ledger, 3600) as held:
            for trouble in (Trouble.THROTTLED, Trouble.INTERNAL_ERROR, Trouble.RESET):
                proxy.seen.clear()
                proxy.choose = lambda seen, trouble=trouble: trouble  # type: ignore[misc]
                assert held.beat() is False
                assert len(proxy.seen) == 1
            proxy.choose = lambda seen: None
            assert held.beat() is True


class TestReleases:
    """A run has ended, and nobody wants to wait."""

    def test_of_a_table_that_hangs(self, proxy: Proxy, ledger: DynamodbLedger) -> None:
        held = take(ledger, 3600)
        proxy.choose = lambda seen: Trouble.HANG
        began = time.monotonic()
        assert held.release() is False
        assert time.monotonic() - began == pytest.approx(lease_module._RELEASE_SECONDS, abs=0.5)
        with pytest.raises(FencedError, match="was released"):
            held.check()

    def test_hides_no_error_of_the_run(
        self, proxy: Proxy, ledger: DynamodbLedger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lease_module, "_RELEASE_SECONDS", 0.2)
        with pytest.raises(ZeroDivisionError), take(ledger, 3600):
            proxy.choose = lambda seen: Trouble.HANG
            raise ZeroDivisionError

    def test_does_not_wait_for_a_beat_that_hangs(self, proxy: Proxy, ledger: DynamodbLedger) -> None:
        held = take(ledger, 60)
        proxy.choose = silent("PutItem", 1)
        beating = threading.Thread(target=held.beat, daemon=True)
        beating.start()
        seconds_until(lambda: bool(proxy.troubled))
        began = time.monotonic()
        assert held.release() is True
        assert time.monotonic() - began < 1
        assert ledger.leases.holders() == []

    def test_go_on_when_nobody_waits(self, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lease_module, "_RELEASE_SECONDS", 0.1)
        monkeypatch.setattr(dynamodb_leases, "LEASE_BOUNDS", AwsBounds(5, 0.5, 3))
        ledger = ready_ledger(proxy)
        held = take(ledger, 3600)
        proxy.choose = silent("PutItem", 1)
        assert held.release() is False
        assert ledger.leases.holders() != []
        seconds_until(lambda: ledger.leases.holders() == [])
        assert ledger.leases.holders() == []


class TestTaking:
    """More patient than a beat, and not without end."""

    def test_of_a_table_that_hangs(self, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dynamodb_leases, "LEASE_BOUNDS", AwsBounds(5, 0.3, 3))
        ledger = ready_ledger(proxy)
        proxy.choose = lambda seen: Trouble.HANG
        with pytest.raises(
            AwsError, match=r"can't read a lease in the DynamoDB table .*: Read timeout on endpoint URL"
        ):
            take(ledger)
        assert proxy.troubled == [Trouble.HANG] * 3

    def test_waits_out_what_passes(self, proxy: Proxy, ledger: DynamodbLedger) -> None:
        left = iter(range(20))
        proxy.choose = lambda seen: Trouble.THROTTLED if next(left, None) is not None else None
        take(ledger, 3600).release()
        assert len(proxy.troubled) == 20

    def test_is_bounded_by_these_figures(self, ledger: DynamodbLedger) -> None:
        leases = ledger.leases
        assert AwsBounds(connect_seconds=5, read_seconds=10, attempts_max=3) == dynamodb_leases.LEASE_BOUNDS
        assert leases._requests.patience.seconds_max == 60
        config = leases._requests.client.meta.config
        assert (config.connect_timeout, config.read_timeout) == (5, 10)
        beats = leases.hurried(5.0)._requests
        assert (beats.client.meta.config.connect_timeout, beats.client.meta.config.read_timeout) == (5.0, 5.0)
        assert (beats.client.meta.config.retries["total_max_attempts"], beats.patience.tries_max) == (1, 1)
