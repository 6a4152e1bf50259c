"""`backfill localnet`: a small AT network on loopback, to try things on."""

from __future__ import annotations

from pathlib import Path

import click

from backfill_dagster.localnet import LocalnetOptions, read_faults, run_localnet


@click.command()
@click.option("--state", "folder", type=click.Path(path_type=Path), required=True, help="Where localnet.json goes.")
@click.option("--hosts", type=click.IntRange(1, 64), default=3, show_default=True)
@click.option("--repos", type=click.IntRange(0, 100_000), default=200, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed makes the same network.")
@click.option("--car", "cars", multiple=True, type=click.Path(path_type=Path), help="Serve this CAR file too.")
@click.option("--faults", type=click.Path(path_type=Path), help="JSON file of faults to begin with.")
def localnet(folder: Path, hosts: int, repos: int, seed: int, cars: tuple[Path, ...], faults: Path | None) -> None:
    """Serve a PLC directory and N PDS hosts until SIGINT or SIGTERM; writes DIR/localnet.json when ready."""
    injected = read_faults(faults) if faults else ()
    run_localnet(folder, LocalnetOptions(hosts=hosts, repos=repos, seed=seed, cars=cars, faults=injected))
