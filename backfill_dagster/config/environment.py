"""Environment variables in string values: `${NAME}` and `${NAME:-default}`; `$${` writes a plain `${`.

Remembers where a value came from one, so that no error message shows it. Keys are never expanded, and what a variable
holds is not expanded again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from backfill_dagster.config.problems import KeyPath, Problem, path_text

_REFERENCE = re.compile(r"\$\$\{|\$\{([^{}]*)\}?")
_BODY = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(:-(.*))?", re.DOTALL)


class Expander:
    """Expands the strings of one config.

    Attributes:
        problems: variables that aren't set, references that are none.
        written: path -> the value as written, of every value that had a reference in it.
    """

    def __init__(self, environ: Mapping[str, str], lines: Mapping[KeyPath, int]) -> None:
        self.problems: list[Problem] = []
        self.written: dict[KeyPath, str] = {}
        self._environ = environ
        self._lines = lines

    def expand(self, value: object, path: KeyPath = ()) -> object:
        """A copy of the value with all strings in it expanded; keys are left alone."""
        if isinstance(value, Mapping):
            return {key: self.expand(item, (*path, str(key))) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.expand(item, (*path, index)) for index, item in enumerate(value)]
        if isinstance(value, str) and "${" in value:
            self.written[path] = value
            return _REFERENCE.sub(lambda match: self._replacement(match, path), value)
        return value

    def _replacement(self, match: re.Match[str], path: KeyPath) -> str:
        if match[0] == "$${":
            return "${"
        body = _BODY.fullmatch(match[1])
        if body is None or not match[0].endswith("}"):
            self._problem(
                path, "a ${ that names no environment variable", "${NAME}, ${NAME:-default}, or $${ for a plain ${"
            )
            return match[0]
        name, has_default, default = body[1], body[2] is not None, body[3] or ""
        value = self._environ.get(name)
        if has_default:
            return value or default
        if value is None:
            self._problem(path, f"environment variable {name} is not set; set it, or give a default: ${{{name}:-...}}")
            return match[0]
        return value

    def _problem(self, path: KeyPath, message: str, accepted: str = "") -> None:
        self.problems.append(
            Problem(path=path_text(path), line=self._lines.get(path), message=message, accepted=accepted)
        )
