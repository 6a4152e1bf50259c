"""The smallest config, and writing variants of it to a file or building them from values."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

from backfill_dagster.config import BackfillConfig, load_config
from backfill_dagster.errors import ConfigError

SMALLEST: dict[str, Any] = {
    "name": "study",
    "source": {"type": "inline", "dids": ["did:plc:z72i7hdynmk6r22z27h6tvur"]},
    "record_types": ["app.bsky.feed.post"],
}


def build(environ: dict[str, str] | None = None, **blocks: Any) -> BackfillConfig:
    """The smallest config with other blocks, as if it stood in /somewhere/study.yaml."""
    return BackfillConfig.from_mapping(SMALLEST | blocks, path=Path("/somewhere/study.yaml"), environ=environ or {})


def problems_of(environ: dict[str, str] | None = None, **blocks: Any) -> list[str]:
    """The problem lines of a config that isn't valid."""
    _, problems = BackfillConfig.check(
        {"backfill": SMALLEST | blocks}, path=Path("/somewhere/study.yaml"), environ=environ or {}
    )
    return [str(problem) for problem in problems]


def write(folder: Path, text: str, name: str = "study.yaml") -> Path:
    """A YAML file with this (indented) text."""
    path = folder / name
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def error_lines(path: Path, environ: dict[str, str] | None = None) -> list[str]:
    """The lines of the error that loading the file ends in, without the file's path."""
    with pytest.raises(ConfigError) as caught:
        load_config(path, environ or {})
    return [line.removeprefix(f"{path}: ").strip() for line in str(caught.value).splitlines()]
