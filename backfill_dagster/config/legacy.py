"""Recognises the YAML of the old services, which `backfill migrate` reads; converting it is the work of `migrate`."""

from __future__ import annotations

from collections.abc import Mapping

from backfill_dagster.config.problems import KeyPath, Problem, path_text

_LEGACY_PLACES: tuple[KeyPath, ...] = (("plc_storage",), ("sync_storage",), ("source", "metadata"))


def legacy_problem(block: object, lines: Mapping[KeyPath, int]) -> Problem | None:
    """The one problem of a config in the old services' shape; None when it isn't in it."""
    for place in _LEGACY_PLACES:
        value = block
        for key in place:
            value = value.get(key, _ABSENT) if isinstance(value, Mapping) else _ABSENT
        if value is not _ABSENT:
            path = ("backfill", *place)
            message = "this is a YAML of the old services; `backfill migrate` turns it into today's form"
            return Problem(path=path_text(path), line=lines.get(path), message=message)
    return None


_ABSENT = object()
