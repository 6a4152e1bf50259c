"""`localnet.json` and `dids.sqlite`: what a process outside needs to know of a running network."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson

from backfill_dagster.errors import UsageError
from backfill_dagster.localnet.world import World

JSON_NAME = "localnet.json"
_VERIFY_NOTE = (
    "expected holds for verify: full, expected_structure for verify: structure; they differ for CAR files whose key is "
    "unknown or whose signature is not in the allowed form. An account that moves counts as planned once more."
)


def describe_network(
    world: World, plc_url: str, control_url: str, dids_sqlite: Path, ports: list[int]
) -> dict[str, Any]:
    """The content of `localnet.json` (keys: README.md)."""
    return {
        "plc_url": plc_url,
        "control_url": control_url,
        "hosts": [{"url": url, "dids": world.named(number)} for number, url in enumerate(world.host_urls)],
        "dids_sqlite": str(dids_sqlite.absolute()),
        "seed": world.options.seed,
        "repos": world.options.repos,
        "verify": _VERIFY_NOTE,
        "expected": world.expected(),
        "expected_structure": world.expected(verify_signature=False),
        "ports": ports,
        "pid": os.getpid(),
    }


def write_description(folder: Path, description: dict[str, Any], rows: Iterable[str]) -> Path:
    """Write both files, the JSON last: who sees it can use the rest.

    Raises:
        UsageError: the folder can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_sqlite(folder / "dids.sqlite", rows)
        path = folder / JSON_NAME
        part = folder / f".{JSON_NAME}.{os.getpid()}"
        part.write_bytes(orjson.dumps(description, option=orjson.OPT_INDENT_2))
        part.replace(path)
    except OSError as error:
        raise UsageError(f"can't write to the state folder {folder}: {error.strerror}") from error
    return path


def _write_sqlite(path: Path, rows: Iterable[str]) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.unlink(missing_ok=True)
    base = sqlite3.connect(part)
    try:
        with base:
            base.execute("CREATE TABLE dids (did TEXT)")
            base.executemany("INSERT INTO dids VALUES (?)", ((row,) for row in rows))
    finally:
        base.close()
    part.replace(path)


def forget_description(folder: Path) -> tuple[int, ...]:
    """Remove the JSON of an earlier network, so that nobody waits on the wrong one; returns the ports it had."""
    path = folder / JSON_NAME
    try:
        ports = orjson.loads(path.read_bytes()).get("ports", [])
        path.unlink()
    except (OSError, ValueError, AttributeError):
        # Nothing there, or nothing readable: then there are no ports to prefer, and writing will say what is wrong.
        return ()
    return tuple(port for port in ports if isinstance(port, int) and 0 < port < 65536)
