"""Configs for tests of definitions: nothing in them is ever fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

DID = "did:plc:z72i7hdynmk6r22z27h6tvur"


def write_yaml(folder: Path, file_name: str = "study.yaml", **changes: Any) -> Path:
    """A small valid config; `changes` replace whole keys of it."""
    block = {
        "name": "study",
        "source": {"type": "inline", "dids": [DID]},
        "record_types": ["app.bsky.feed.post", "app.bsky.graph.*", "com.my-site.thing.record"],
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file_name
    path.write_text(yaml.safe_dump({"backfill": block | changes}))
    return path
