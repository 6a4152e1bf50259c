"""A small AT network on loopback for demos and tests: PLC directory, PDS hosts, real signed repos, faults on demand."""

from backfill_dagster.localnet.faults import Fault, parse_faults, read_faults
from backfill_dagster.localnet.network import HostInfo, LocalNetwork
from backfill_dagster.localnet.options import LocalnetOptions, RateLimits
from backfill_dagster.localnet.serve import run_localnet, serve

__all__ = [
    "Fault",
    "HostInfo",
    "LocalNetwork",
    "LocalnetOptions",
    "RateLimits",
    "parse_faults",
    "read_faults",
    "run_localnet",
    "serve",
]
