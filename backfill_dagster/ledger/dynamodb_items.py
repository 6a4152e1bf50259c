"""A ledger item as DynamoDB keeps it: keys, attributes both ways, cut to what an item may hold."""

from __future__ import annotations

import dataclasses
import hashlib
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

from backfill_dagster.errors import StateError
from backfill_dagster.ledger.dynamodb_requests import Key, WireItem
from backfill_dagster.ledger.dynamodb_wire import clean, clean_text, from_wire, to_wire
from backfill_dagster.ledger.item import item_attributes, item_from_attributes
from backfill_dagster.model import LedgerItem, Outcome, RepoOutcome

BUCKETS = 16
"""Partitions of one outcome in the attention index: one takes 1,000 writes a second at most."""

NEVER = "-"
"""`finished_at` of what never finished: an index key can't be null."""

CUT = "cut"
"""Names the attributes that an item had to lose entries of."""

_KEYED_MAX_BYTES = 512
"""Longer DIDs go by their hash: a sort key has at most 1,024 bytes, and with marks the shard's name goes before it."""

_HASHED = "sha256:"

JSON_MAX_BYTES = 392 * 1024
"""Of 400 KB: the rest is for keys, the DID among them, and the names of what was cut."""

_CUT_IN_TURN = ("records_seen_by_collection", "error_headers", "total_records_by_type", "types", "records_by_type")
"""The first is evidence that a next fetch brings again; then the old table's copies of what readers look for last."""

_WITHOUT = {"total_records_by_type": "{}", "types": ""}


def did_key(did: str) -> str:
    """The sort key of a DID: itself, or its hash where it can't be one."""
    text = clean_text(did)
    data = text.encode()
    if not data or len(data) > _KEYED_MAX_BYTES or text.startswith(_HASHED):
        return f"{_HASHED}{hashlib.sha256(data).hexdigest()}"
    return text


def item_pk(backfill: str, shard: str) -> str:
    """The partition key of a shard's items."""
    return f"{backfill}#{shard}"


def item_key(item: LedgerItem) -> Key:
    """Both keys of an item."""
    return item_pk(item.backfill, item.shard), did_key(item.result.did)


def attention_pk(backfill: str, outcome: Outcome, bucket: int) -> str:
    """The partition key of a sixteenth of an outcome's DIDs in the attention index."""
    return f"{backfill}#{outcome.value}#{bucket}"


def to_item(item: LedgerItem) -> WireItem:
    """The item with its keys and every attribute, cut if need be."""
    pk, did = item_key(item)
    outcome = item.result.outcome
    attributes = _attributes(item)
    attributes |= {"pk": pk, "did": did, "finished_at": attributes["finished_at"] or NEVER}
    if did.startswith(_HASHED):
        attributes["real_did"] = clean_text(item.result.did)
    if outcome.needs_attention:
        attributes["attention"] = attention_pk(item.backfill, outcome, zlib.crc32(did.encode()) % BUCKETS)
        attributes["shard_did"] = f"{item.shard}#{did}"
    return to_wire(attributes)


def as_kept(item: LedgerItem) -> LedgerItem:
    """The item as it comes back from the table: itself, unless it has to be cut or has texts that UTF-8 can't say."""
    attributes = item_attributes(item)
    try:
        if len(orjson.dumps(attributes)) <= JSON_MAX_BYTES:
            return item
    except TypeError:
        pass  # a lone surrogate
    return item_from_attributes(_attributes(item))


def _attributes(item: LedgerItem) -> dict[str, Any]:
    """The attributes of an item in clean text, within the bound.

    Their JSON is a little longer than what DynamoDB counts (names and texts in UTF-8, two digits a byte), and quickly
    made: its length is what is compared.
    """
    attributes = item_attributes(item)
    try:
        size = len(orjson.dumps(attributes))
    except TypeError:  # a lone surrogate
        attributes = clean(attributes)
        size = len(orjson.dumps(attributes))
    return attributes if size <= JSON_MAX_BYTES else _cut(attributes)


def _cut(attributes: dict[str, Any]) -> dict[str, Any]:
    was_cut = []
    for name in _CUT_IN_TURN:
        over = len(orjson.dumps(attributes)) - JSON_MAX_BYTES
        if over <= 0:
            break
        if attributes[name]:
            left = len(orjson.dumps(attributes[name])) - over
            attributes[name] = _WITHOUT[name] if name in _WITHOUT else largest(attributes[name], left)
            was_cut.append(name)
    return attributes | {CUT: ",".join(was_cut)}


def largest(counts: Mapping[str, Any], max_bytes: int) -> dict[str, Any]:
    """The largest numbers (of texts, the first by name) whose JSON has at most so many bytes."""
    kept, size = {}, 2
    order = sorted(counts.items(), key=lambda pair: (-pair[1] if isinstance(pair[1], int) else 0, pair[0]))
    for name, value in order:
        size += len(orjson.dumps({name: value})) - 1
        if size > max_bytes:
            break
        kept[name] = value
    return kept


def from_item(found: WireItem, where: object) -> LedgerItem:
    """An item of the table.

    Args:
        found: as DynamoDB gives it.
        where: names the table.

    Raises:
        StateError: it isn't one of ours; the text names its key.
    """
    try:
        values = from_wire(found)
        values["did"] = values.get("real_did", values["did"])
        if values["finished_at"] == NEVER:
            values["finished_at"] = None
        values = _DEFAULTS | values
        for name, problem in _problems(values):
            raise ValueError(f"{name} is {problem}")
        item = item_from_attributes(values)
        if item_key(item) != (values["pk"], found["did"]["S"]):
            raise ValueError("its key is not that of its backfill, shard and DID")
    except (KeyError, ValueError, TypeError, ArithmeticError, AttributeError) as error:
        raise unreadable(found, where, error) from error
    return item


def unreadable(found: Mapping[str, Any], where: object, error: BaseException) -> StateError:
    """What to say about an item that is none of ours."""
    key = " / ".join(str(next(iter(found.get(name, {"": "?"}).values())))[:200] for name in ("pk", "did"))
    why = f"it has no {error}" if isinstance(error, KeyError) else str(error)
    return StateError(
        f"{where}: the item {key!r} can't be read: {why[:200]}; another program wrote it: delete it, the next run "
        "writes it again from the log"
    )


_DEFAULTS: dict[str, Any] = {
    field.name: {} if field.default_factory is not dataclasses.MISSING else field.default
    for field in dataclasses.fields(RepoOutcome)
    if field.name not in ("did", "outcome")
}
"""What an item that an earlier version wrote lacks."""


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_map_of(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


_CHECKS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "str": ("text", _is_text),
    "Outcome": ("text", _is_text),
    "int": ("whole number", _is_number),
    "bool": ("true or false", lambda value: isinstance(value, bool)),
    "Mapping[str, int]": ("map of whole numbers", _is_map_of(_is_number)),
    "Mapping[str, str]": ("map of texts", _is_map_of(_is_text)),
}

_WANTED = {"backfill": "str", "shard": "str", "seq": "int"} | {
    field.name: str(field.type) for field in dataclasses.fields(RepoOutcome) if field.name != "tree"
}


def _problems(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, wanted in _WANTED.items():
        kind = wanted.removesuffix(" | None")
        if values[name] is None and kind != wanted:
            continue
        said, check = _CHECKS[kind]
        if not check(values[name]):
            yield name, f"{str(values[name])[:60]!r}, not a {said}"
