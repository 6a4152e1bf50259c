"""A local network as a process: up until SIGINT or SIGTERM."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
from collections.abc import Callable
from pathlib import Path

from backfill_dagster.localnet.description import forget_description
from backfill_dagster.localnet.network import LocalNetwork
from backfill_dagster.localnet.options import LocalnetOptions

Ready = Callable[[LocalNetwork], None]


async def serve(state_dir: Path, options: LocalnetOptions, *, ready: Ready | None = None) -> None:
    """Run a network; writes `localnet.json` into `state_dir` when it answers, and stops on SIGINT or SIGTERM.

    Started again in the same folder it takes its old ports when they are free, so that DIDs keep their hosts.

    Args:
        state_dir: where `localnet.json` and `dids.sqlite` go.
        options: of the network.
        ready: called once with the network when everything is there.

    Raises:
        UsageError: an option or the folder can't be used.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    # Also when SIGINT came in ignored, as it does for a shell's background jobs.
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        earlier = forget_description(state_dir)
        async with LocalNetwork(dataclasses.replace(options, ports=options.ports or earlier)) as network:
            network.write_description(state_dir)
            if ready is not None:
                ready(network)
            await stop.wait()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def run_localnet(state_dir: Path, options: LocalnetOptions, *, ready: Ready | None = None) -> None:
    """`serve` for callers without an event loop: `backfill localnet`."""
    asyncio.run(serve(state_dir, options, ready=ready))
