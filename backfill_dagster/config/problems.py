"""One problem of a config file, as a value and as a line for a person. Finding problems happens elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from backfill_dagster.errors import ConfigError

KeyPath = tuple[str | int, ...]
"""Where something stands in the YAML: keys and list indexes from the root, `("backfill", "filters", 0, "match")`."""

_FOUND_MAX_CHARS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that has to change in a YAML file.

    Attributes:
        path: the key's path (`backfill.processing.batch_size`), empty when it is about the whole file.
        line: 1-based line in the file; None when there is no file (a config built in code).
        message: what is wrong, without the value.
        found: the value as written; environment variables stay unexpanded (`${NAME}`), so no secret gets out.
        accepted: what would be accepted, empty when the message says it all.
        nearest: for an unknown key the nearest known one.
    """

    path: str
    message: str
    line: int | None = None
    found: str | None = None
    accepted: str = ""
    nearest: str | None = None

    def __str__(self) -> str:
        """One line: place, what is wrong, what was found, what is accepted."""
        place = ": ".join(part for part in (f"line {self.line}" if self.line else "", self.path) if part)
        text = self.message
        if self.found is not None:
            text += f", found {self.found}"
        if self.accepted:
            text += f"; accepted: {self.accepted}"
        if self.nearest is not None:
            text += f"; did you mean {self.nearest}?"
        return f"{place}: {text}" if place else text


def path_text(path: Sequence[str | int]) -> str:
    """`("backfill", "filters", 0, "match")` as `backfill.filters[0].match`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def found_text(value: object) -> str:
    """A value of the YAML as an error shows it: one short line, containers only by their size."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, str | int | float) else str(value)
    return text if len(text) <= _FOUND_MAX_CHARS else text[: _FOUND_MAX_CHARS - 1] + "…"


def config_error(path: Path, problems: Sequence[Problem]) -> ConfigError:
    """All problems of one file as one error, a line each, in the file's order."""
    ordered = sorted(problems, key=lambda problem: (problem.line or 0, problem.path))
    if len(ordered) == 1:
        return ConfigError(f"{path}: {ordered[0]}")
    return ConfigError("\n".join([f"{path}: {len(ordered)} problems", *(f"  {problem}" for problem in ordered)]))
