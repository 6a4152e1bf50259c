"""`backfill localnet`: a small AT network on loopback, to try things on."""

from __future__ import annotations

from pathlib import Path

import click

from backfill_dagster.cli.summary import counted, shown_path
from backfill_dagster.localnet import LocalnetOptions, LocalNetwork, read_faults, run_localnet


@click.command()
@click.option("--state", "folder", type=click.Path(path_type=Path), required=True, help="Where localnet.json goes.")
@click.option("--hosts", type=click.IntRange(1, 100), default=3, show_default=True, help="PDS hosts.")
@click.option("--repos", type=click.IntRange(0, 100_000), default=200, show_default=True, help="Accounts.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed makes the same network.")
@click.option("--median-records", type=click.IntRange(1, 20_000), default=1400, show_default=True, help="Per repo.")
@click.option("--car", "cars", multiple=True, type=click.Path(path_type=Path), help="Serve this CAR file too.")
@click.option("--faults", type=click.Path(path_type=Path), help="JSON file of faults to begin with.")
def localnet(
    folder: Path,
    hosts: int,
    repos: int,
    seed: int,
    median_records: int,
    cars: tuple[Path, ...],
    faults: Path | None,
) -> None:
    """Run a small AT network on loopback.

    Serves a PLC directory and N PDS hosts until SIGINT or SIGTERM; writes localnet.json into the state folder when
    they answer.
    """
    options = LocalnetOptions(
        hosts=hosts,
        repos=repos,
        seed=seed,
        median_records=median_records,
        cars=cars,
        faults=read_faults(faults) if faults else (),
    )

    def ready(network: LocalNetwork) -> None:
        where = shown_path((folder / "localnet.json").absolute())
        click.echo(
            f"ready: {counted(len(network.hosts), 'PDS host')}, {counted(len(network.dids), 'DID')}; see {where}"
        )

    run_localnet(folder, options, ready=ready)
