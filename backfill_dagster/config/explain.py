"""Pydantic's errors as problems of the YAML: path, line, what was found, what is accepted, the nearest known key.

Also the walk over the models that the reference in the docs is made of. Rules about values live in values.py and on
the models.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from backfill_dagster.config.problems import KeyPath, Problem, found_text, path_text
from backfill_dagster.config.values import Choice, Kind

RULE_BROKEN = "rule_broken"
"""Error type of a rule over several keys; context `rule` is the text, shown without the value."""

_BLOCK = "a block of keys (a mapping)"
_LIST = "a list"


def rule_broken(rule: str) -> PydanticCustomError:
    """The error that a model raises when keys don't fit together; `rule` must not carry values."""
    return PydanticCustomError(RULE_BROKEN, "rule broken", {"rule": rule})


def explain(
    error: ValidationError,
    model: type[BaseModel],
    data: object,
    *,
    root: KeyPath,
    lines: Mapping[KeyPath, int],
    written: Mapping[KeyPath, str],
) -> list[Problem]:
    """Every error of one validation as a problem.

    Args:
        error: what pydantic raised.
        model: the model that was validated.
        data: what it was validated against, environment variables expanded.
        root: path of `data` in the file.
        lines: path -> line.
        written: path -> value as written, where it has environment variables in it.
    """
    found = error.errors(include_url=False)
    # Pydantic counts only the entries that are good: a list of one broken entry isn't also too short.
    broken_lists = {details["loc"][:-1] for details in found}
    return [
        _problem(details, _locate(details["loc"], model, data), root, lines, written)
        for details in found
        if details["type"] != "too_short" or details["loc"] not in broken_lists
    ]


@dataclass(frozen=True)
class _Place:
    """Where an error is: path in the YAML, the block that it stands in, the type it should have (None: no such key)."""

    path: KeyPath
    block: type[BaseModel]
    annotation: Any


def _problem(
    details: ErrorDetails,
    place: _Place,
    root: KeyPath,
    lines: Mapping[KeyPath, int],
    written: Mapping[KeyPath, str],
) -> Problem:
    kind, context = details["type"], details.get("ctx", {})
    path = (*root, *place.path, "type") if kind.startswith("union_tag") else (*root, *place.path)
    line = next((lines[path[:end]] for end in range(len(path), -1, -1) if path[:end] in lines), None)
    text, accepted, found, nearest = "not accepted", "", None, None
    if kind == "extra_forbidden":
        text, known = "unknown key", list(place.block.model_fields)
        nearest = next(iter(difflib.get_close_matches(str(path[-1]), known, n=1)), None)
        accepted = "" if nearest else ", ".join(known)
    elif kind == RULE_BROKEN:
        text = context["rule"]
    elif kind in ("missing", "union_tag_not_found"):
        text, accepted = "missing", _accepted(kind, context, place)
    else:
        # Not the tag that pydantic names: of a list it makes a text, with what came from the environment in it.
        value = details["input"].get("type") if kind == "union_tag_invalid" else details["input"]
        found, accepted = found_text(written.get(path, value)), _accepted(kind, context, place)
    return Problem(path=path_text(path), line=line, message=text, found=found, accepted=accepted, nearest=nearest)


def _accepted(kind: str, context: Mapping[str, Any], place: _Place) -> str:
    if kind.startswith("union_tag"):
        return Choice(tuple(str(tag) for block in block_types(place.annotation) for tag in _tags(block))).accepts
    if kind in ("too_short", "too_long"):
        bound = context.get("min_length") or context.get("max_length")
        return f"{_LIST} of at {'least' if kind == 'too_short' else 'most'} {bound}"
    return accepts(place.annotation)


def _locate(loc: tuple[int | str, ...], model: type[BaseModel], data: object) -> _Place:
    """Pydantic's place as a place in the YAML.

    Pydantic puts the tag of a union into it, and counts a single filter as the first of a list.
    """
    path: list[int | str] = []
    annotation: Any = model
    block = model
    for part in loc:
        blocks = block_types(annotation)
        if isinstance(part, int):
            annotation = item_type(annotation)
            if not isinstance(data, list):
                continue
            data = data[part]
        elif len(blocks) > 1:
            annotation = next(one for one in blocks if part in _tags(one))
            continue
        else:
            block = blocks[0]
            field = block.model_fields.get(part)
            annotation = _with_metadata(field) if field is not None else None
            data = data.get(part) if isinstance(data, Mapping) else None
        path.append(part)
    return _Place(tuple(path), block, annotation)


def block_types(annotation: Any) -> list[type[BaseModel]]:
    """The models that a value of this type may be: one for a block, several for a union, none for a plain value."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if _is_union(annotation) or typing.get_origin(annotation) is Annotated:
        members = typing.get_args(annotation)
        return [block for member in members if not isinstance(member, Kind) for block in block_types(member)]
    return []


def item_type(annotation: Any) -> Any:
    """The type of a list's entries; None when it is no list."""
    for part in _parts(annotation):
        if typing.get_origin(part) is tuple:
            return typing.get_args(part)[0]
    return None


def accepts(annotation: Any) -> str:
    """In words, what a key of this type accepts."""
    entries = item_type(annotation)
    if entries is not None:
        inner = "blocks" if block_types(entries) else accepts(entries)
        return f"{_LIST}; each: {inner}" if inner != "blocks" else f"a block, or {_LIST} of blocks"
    kinds = [part.accepts for part in _parts(annotation) if isinstance(part, Kind)]
    if typing.get_origin(annotation) is Literal:
        kinds = [Choice(typing.get_args(annotation)).accepts]
    text = " or ".join(kinds) if kinds else _BLOCK
    return f"{text}, or null" if kinds and type(None) in _parts(annotation) else text


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    if _is_union(annotation) or typing.get_origin(annotation) is Annotated:
        for member in typing.get_args(annotation):
            yield from _parts(member)


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (Union, types.UnionType)


def _with_metadata(field: Any) -> Any:
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def _tags(block: type[BaseModel]) -> tuple[str, ...]:
    field = block.model_fields.get("type")
    return tuple(typing.get_args(field.annotation)) if field is not None else ()
