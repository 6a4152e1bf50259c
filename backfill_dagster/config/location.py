"""Where relative paths of a config start: `BACKFILL_ROOT`, the folder of workspace.yaml, or the YAML's own folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def find_root(path: Path, environ: Mapping[str, str]) -> Path:
    """The base of relative paths in the YAML at `path`; absolute."""
    chosen = environ.get("BACKFILL_ROOT")
    if chosen:
        return absolute(Path(chosen).expanduser())
    folder = absolute(path).parent
    return next((above for above in (folder, *folder.parents) if (above / "workspace.yaml").is_file()), folder)


def absolute(path: Path) -> Path:
    """The path from the root of the file system, without `..`; links stay as they are."""
    return Path(os.path.abspath(path))  # noqa: PTH100  (Path.resolve would follow links, Path.absolute keeps `..`)
