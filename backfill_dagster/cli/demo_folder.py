"""The folder of a demo: made afresh, held by one demo at a time, with the demo's own YAML in it."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from backfill_dagster.cli.demo_network import DemoNetwork
from backfill_dagster.cli.summary import shown_path
from backfill_dagster.cli.writing import writing
from backfill_dagster.errors import UsageError

MARKER = "made-by-backfill-demo"

DAGSTER_YAML = Path(__file__).parents[2] / "deploy" / "local" / "dagster.yaml"


@contextmanager
def claimed_folder(folder: Path) -> Iterator[Path]:
    """An empty folder for one demo; what an earlier demo left there goes, and stays out while the block runs.

    Raises:
        UsageError: the folder has something in it that no demo made, another demo runs in it, or the repository's
            files are not there.
        BackfillError: it can't be written.
    """
    folder = folder.absolute()
    if not DAGSTER_YAML.is_file():
        raise UsageError("the demo needs deploy/local/dagster.yaml: run it in a clone of the repository")
    with writing(folder, remedy="name another with --folder"):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()) and not (folder / MARKER).is_file():
            raise UsageError(f"{folder} is not empty and no demo made it: name another with --folder")
        marker = (folder / MARKER).open("a")
    # The lock goes with the process, however it ends.
    with marker:
        try:
            fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"another demo runs in {shown_path(folder)}: stop it, or name another with --folder"
            ) from None
        with writing(folder, remedy="name another with --folder"):
            _empty(folder)
            (folder / "dagster").mkdir()
            shutil.copy(DAGSTER_YAML, folder / "dagster" / "dagster.yaml")
        yield folder


def write_demo_config(folder: Path, network: DemoNetwork, *, shard_size: int, places: Mapping[str, Any]) -> Path:
    """The demo's YAML, in a config folder of its own.

    Args:
        folder: the demo's.
        network: where the hosts are.
        shard_size: DIDs in a shard, at most.
        places: the blocks `source`, `state` and `storage`, as far as they aren't on this disk.
    """
    block = {
        "name": "demo",
        "source": {"type": "sqlite", "path": str(network.dids_sqlite)},
        "record_types": ["app.bsky.feed.*", "app.bsky.graph.follow", "app.bsky.graph.block", "app.bsky.actor.profile"],
        "identity": {"plc_url": network.plc_url, "requests_per_second": 500, "handle_resolver": None},
        "processing": {"allow_private_hosts": True, "requests_per_second": 100, "shard_size": shard_size},
        "state": {"path": str(folder / "data")},
        **places,
    }
    path = folder / "configs" / "demo.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump({"backfill": block}, sort_keys=False), encoding="utf-8")
    return path


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name == MARKER:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
