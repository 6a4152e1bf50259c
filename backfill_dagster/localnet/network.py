"""A local network as an async context manager: binds the ports, starts the servers, stops them all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from backfill_dagster.localnet.accounts import Account, populate
from backfill_dagster.localnet.control import Control
from backfill_dagster.localnet.description import describe_network, write_description
from backfill_dagster.localnet.faults import Fault, FaultTable
from backfill_dagster.localnet.front import Hall, pds_front, plc_front, web_front
from backfill_dagster.localnet.given_car import read_given_car
from backfill_dagster.localnet.listener import Listener, bind
from backfill_dagster.localnet.options import LocalnetOptions
from backfill_dagster.localnet.traffic import Buckets, Traffic
from backfill_dagster.localnet.world import World


class HostInfo(NamedTuple):
    """A PDS host: its origin, and the DIDs whose document names it."""

    url: str
    dids: list[str]


class LocalNetwork:
    """A PLC directory, PDS hosts and a control endpoint on loopback, while the context lasts.

    ::

        async with LocalNetwork(LocalnetOptions(hosts=2, repos=20)) as network:
            network.plc_url, network.hosts, network.expected
            await network.set_faults([Fault(kind="status", host=0, times=3)])
            await network.control.add({"did": network.active[0], "records": [...]})

    Args:
        options: what it is made from.
        clock: seconds since the epoch, for the rate limit windows only; content never depends on it.

    Raises:
        UsageError: on entering, when a CAR file or a fault can't be used.
    """

    def __init__(self, options: LocalnetOptions | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self.options = options or LocalnetOptions()
        self.traffic = Traffic()
        self._clock = clock
        self._listeners: list[Listener] = []
        self._hosts: list[Listener] = []

    async def __aenter__(self) -> LocalNetwork:
        """Bind, make the accounts, and start to answer."""
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop all servers; open connections are cut."""
        await self._stop()

    async def _start(self) -> None:
        options = self.options
        ports = iter(options.ports)
        count = 2 + options.hosts + options.state_counts().get("web", 0)
        self._listeners = [Listener(bind(next(ports, None))) for _ in range(count)]
        self._plc, self._control, *rest = self._listeners
        self._hosts, webs = rest[: options.hosts], rest[options.hosts :]
        population = populate(options, [listener.port for listener in webs])
        cars = [read_given_car(path) for path in options.cars]
        self.world = World(options, population, cars, [listener.url for listener in self._hosts])
        self.faults = FaultTable(self.world.host_urls)
        self.faults.add(options.faults)
        self.control = Control(self.world, self.faults, self.traffic, self._apply_faults)
        await self._start_servers(webs)
        await self._apply_faults()

    async def _start_servers(self, webs: Iterable[Listener]) -> None:
        hall = Hall(self.world, self.faults, self.traffic, self.options.gzip)
        await self._plc.start(plc_front(hall, self._plc.url, self._plc.down))
        for number, listener in enumerate(self._hosts):
            buckets = Buckets(self.options.rate_limits, self._clock)
            await listener.start(pds_front(hall, number, buckets, listener.down))
        did_of_port = {a.web_port: a.did for a in self.world.accounts.values() if a.web_port is not None}
        for listener in webs:
            if listener.port in did_of_port:
                await listener.start(web_front(hall, listener.url, did_of_port[listener.port], listener.down))
        await self._control.start(self.control.handle)

    async def _stop(self) -> None:
        for listener in self._listeners:
            await listener.stop()
        self._listeners = []

    async def _apply_faults(self) -> None:
        down = self.faults.down_now()
        for name, listener in [("plc", self._plc), *enumerate(self._hosts)]:
            await (listener.down() if name in down else listener.up())

    @property
    def plc_url(self) -> str:
        """Origin of the PLC directory."""
        return self._plc.url

    @property
    def control_url(self) -> str:
        """Origin of the control endpoint."""
        return self._control.url

    @property
    def hosts(self) -> list[HostInfo]:
        """The PDS hosts with the DIDs whose documents name them now."""
        return [HostInfo(url, self.world.named(number)) for number, url in enumerate(self.world.host_urls)]

    @property
    def dids(self) -> list[str]:
        """The rows of the source: DIDs of all states, and the rows that are no DIDs."""
        return self.world.rows

    @property
    def active(self) -> list[str]:
        """DIDs that a backfill ends `complete`."""
        return [did for did, entry in self.expected.items() if entry["outcome"] == "complete"]

    @property
    def expected(self) -> dict[str, dict[str, Any]]:
        """DID -> `{outcome, records: {record type: count}}` of a full backfill (`verify: full`), as things stand."""
        return self.world.expected()

    @property
    def expected_structure(self) -> dict[str, dict[str, Any]]:
        """The same with `verify: structure`: CAR files without a known key are complete."""
        return self.world.expected(verify_signature=False)

    def account(self, did: str) -> Account:
        """The account of a DID; UsageError when there is none."""
        return self.world.account(did)

    def requests(self) -> dict[str, dict[str, int]]:
        """Server URL -> path -> requests so far."""
        return self.traffic.counts()

    def pds_requests(self) -> int:
        """Requests that PDS hosts have had so far, all together."""
        counts = self.traffic.counts()
        return sum(sum(counts.get(url, {}).values()) for url in self.world.host_urls)

    async def set_faults(self, faults: Iterable[Fault], *, replace: bool = True) -> None:
        """Put faults in force, by default instead of those that are; an empty list heals everything."""
        if replace:
            self.faults.clear()
        self.faults.add(faults)
        await self._apply_faults()

    def description(self, dids_sqlite: Path) -> dict[str, Any]:
        """What `localnet.json` says."""
        return describe_network(self.world, self.plc_url, self.control_url, dids_sqlite, self._ports())

    def write_description(self, folder: Path) -> Path:
        """Write `dids.sqlite`, then `localnet.json`, into a folder; each appears whole. Returns the JSON's path."""
        return write_description(folder, self.description(folder / "dids.sqlite"), self.dids)

    def _ports(self) -> list[int]:
        return [listener.port for listener in self._listeners]
