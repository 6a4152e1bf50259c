"""`python -m backfill_dagster.localnet`: what `backfill localnet` does, without the rest of the project."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from backfill_dagster.errors import BackfillError
from backfill_dagster.localnet.faults import read_faults
from backfill_dagster.localnet.network import LocalNetwork
from backfill_dagster.localnet.options import LocalnetOptions
from backfill_dagster.localnet.serve import run_localnet


@click.command()
@click.option("--state", "state_dir", type=click.Path(path_type=Path), required=True, help="Folder for localnet.json.")
@click.option("--hosts", default=3, show_default=True, help="PDS hosts.")
@click.option("--repos", default=200, show_default=True, help="Accounts.")
@click.option("--seed", default=1, show_default=True, help="Same seed, same network.")
@click.option("--median-records", default=1400, show_default=True, help="Of the repo sizes.")
@click.option("--car", "cars", type=click.Path(path_type=Path), multiple=True, help="A CAR file to serve as it is.")
@click.option("--faults", "faults_file", type=click.Path(path_type=Path), help="JSON file of faults.")
def main(
    state_dir: Path,
    hosts: int,
    repos: int,
    seed: int,
    median_records: int,
    cars: tuple[Path, ...],
    faults_file: Path | None,
) -> None:
    """Run a small AT network on loopback until SIGINT or SIGTERM."""
    try:
        options = LocalnetOptions(
            hosts=hosts,
            repos=repos,
            seed=seed,
            median_records=median_records,
            cars=cars,
            faults=read_faults(faults_file) if faults_file else (),
        )
        run_localnet(state_dir, options, ready=_say_ready)
    except BackfillError as error:
        click.echo(str(error), err=True)
        sys.exit(error.exit_code)


def _say_ready(network: LocalNetwork) -> None:
    click.echo(f"ready: {len(network.hosts)} hosts, {len(network.dids)} rows, control at {network.control_url}")


if __name__ == "__main__":
    main()
