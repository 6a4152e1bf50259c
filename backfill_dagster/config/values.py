"""What a single value in the YAML may look like: a class per kind, used as `Annotated[type, Kind(...)]` on the models.

A kind reads the value (a string is read the way its key wants it, so that `"${PORT}"` works for a number) and says in
words what it accepts; error messages and the reference in docs/configuration.md use the same words. Rules that look at
two keys live on the models. Errors never carry the value: it may come from an environment variable.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from backfill_dagster.atproto.nsid import is_nsid

NOT_ACCEPTED = "not_accepted"
"""Error type of a value that its kind refuses."""

_WHOLE = re.compile(r"[+-]?[0-9]{1,15}(_[0-9]{3}){0,5}")
_FLOAT = re.compile(r"[+-]?([0-9]{1,15}(\.[0-9]{0,15})?|\.[0-9]{1,15})([eE][+-]?[0-9]{1,3})?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_CONTROL_BUT_LINES = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class Kind:
    """Base: `read` returns the value as the model keeps it, or raises ValueError (its text is never shown)."""

    @property
    def accepts(self) -> str:
        """What is accepted, as the end of a sentence."""
        raise TypeError(f"{type(self).__name__} does not say what it accepts")

    def read(self, value: object) -> object:
        """Read one value."""
        raise TypeError(f"{type(self).__name__} reads nothing")

    def _validate(self, value: object) -> object:
        try:
            return self.read(value)
        except ValueError:
            raise PydanticCustomError(NOT_ACCEPTED, "not accepted") from None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Pydantic's hook: this kind is the whole validation."""
        return core_schema.no_info_plain_validator_function(self._validate)


@dataclass(frozen=True)
class Text(Kind):
    """One line of text (or several), not empty; `pattern` has to match all of it."""

    what: str = "text"
    pattern: str | None = None
    max_length: int = 4096
    lines: bool = False

    @property
    def accepts(self) -> str:
        """What is accepted."""
        return self.what

    def read(self, value: object) -> str:
        """Text as it stands; numbers are not text, YAML has quotes for that."""
        control = _CONTROL_BUT_LINES if self.lines else _CONTROL
        if not isinstance(value, str) or not value.strip() or len(value) > self.max_length or control.search(value):
            raise ValueError
        if self.pattern is not None and re.fullmatch(self.pattern, value) is None:
            raise ValueError
        return value


@dataclass(frozen=True)
class WholeNumber(Kind):
    """An integer within bounds, both included."""

    minimum: int
    maximum: int

    @property
    def accepts(self) -> str:
        """What is accepted."""
        return f"a whole number from {self.minimum} to {self.maximum}"

    def read(self, value: object) -> int:
        """`100`, `1_000`, or the same as text."""
        if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not self.minimum <= value <= self.maximum:
            raise ValueError
        return value


@dataclass(frozen=True)
class Number(Kind):
    """A number within bounds, both included."""

    minimum: float
    maximum: float

    @property
    def accepts(self) -> str:
        """What is accepted."""
        return f"a number from {self.minimum:g} to {self.maximum:.15g}"

    def read(self, value: object) -> float:
        """`10`, `0.5`, or the same as text."""
        if isinstance(value, str) and (_FLOAT.fullmatch(value.strip()) or _WHOLE.fullmatch(value.strip())):
            value = float(value)
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.minimum <= value <= self.maximum:
            raise ValueError
        return float(value)


@dataclass(frozen=True)
class Flag(Kind):
    """True or false; the words of YAML 1.1 (yes, no, on, off) do too."""

    _words: ClassVar[dict[str, bool]] = {
        "true": True, "yes": True, "on": True, "false": False, "no": False, "off": False,
    }  # fmt: skip

    @property
    def accepts(self) -> str:
        """What is accepted."""
        return "true or false"

    def read(self, value: object) -> bool:
        """A bool or one of the words."""
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.strip().lower() in self._words:
            return self._words[value.strip().lower()]
        raise ValueError


@dataclass(frozen=True)
class Choice(Kind):
    """One of a few words; with `any_case` the spelling's case doesn't matter."""

    words: tuple[str, ...]
    any_case: bool = False

    @property
    def accepts(self) -> str:
        """What is accepted."""
        return self.words[0] if len(self.words) == 1 else f"one of {', '.join(self.words)}"

    def read(self, value: object) -> str:
        """The word as the models spell it."""
        for word in self.words:
            if value == word or (self.any_case and isinstance(value, str) and value.lower() == word.lower()):
                return word
        raise ValueError


@dataclass(frozen=True)
class SchemaVersion(Kind):
    """The version of the YAML's shape; `1.0` without quotes is a number to YAML and means the same."""

    @property
    def accepts(self) -> str:
        """What is accepted."""
        return '"1.0"'

    def read(self, value: object) -> str:
        """Always `1.0`."""
        if isinstance(value, bool) or value not in ("1.0", 1.0):
            raise ValueError
        return "1.0"


@dataclass(frozen=True)
class Nsid(Kind):
    """The NSID of a collection (https://atproto.com/specs/nsid); with `wildcard` also a namespace `a.b.*`."""

    wildcard: bool = False

    @property
    def accepts(self) -> str:
        """What is accepted."""
        one = "the NSID of a collection (app.bsky.feed.post)"
        return f"{one} or a whole namespace (app.bsky.feed.*)" if self.wildcard else one

    def read(self, value: object) -> str:
        """The NSID as it stands."""
        if not isinstance(value, str):
            raise ValueError
        # A namespace is good when anything in it would be an NSID: so it has at least two segments.
        name = value[:-1] + "x" if self.wildcard and value.endswith(".*") else value
        if not is_nsid(name):
            raise ValueError
        return value
