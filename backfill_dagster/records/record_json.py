"""One block to Python values and to the AT Protocol's JSON, exactly: links are `$link`, byte strings `$bytes`.

libipld is fast and gives links and byte strings both as `bytes`; orjson then refuses, and cbrrr, which tells them
apart, decodes the block again. So the fast road is exact where it is taken.
Source: https://atproto.com/specs/data-model
"""

from __future__ import annotations

import base64
from typing import Any

import cbrrr
import orjson

from backfill_dagster.atproto.cid import cid_text
from backfill_dagster.atproto.dag_cbor import decode_dag_cbor

_RESERVED = frozenset({"$link", "$bytes"})


def record_json(record: Any, block: bytes) -> tuple[bytes, Any]:
    """A decoded record in the protocol's JSON.

    Args:
        record: what `decode_dag_cbor` makes of `block`.
        block: the DAG-CBOR.

    Returns:
        The JSON text (UTF-8) and the value that it stands for; that value is `record` itself when there are no links
        and byte strings.

    Raises:
        ValueError: JSON can't hold it (a map with a key `$link` or `$bytes`, nesting over 254, an integer over 64
            bits), or links or bytes stand beside numbers that are not in their shortest form.
    """
    if block.count(b"$") > ("$type" in record) and (b"$link" in block or b"$bytes" in block):
        return _exact_json(block)
    try:
        return orjson.dumps(record), record
    except TypeError:
        return _exact_json(block)


def block_json(block: bytes) -> bytes | None:
    """The JSON of any block, object or not; None if it can't be read or JSON can't hold it."""
    try:
        decode_dag_cbor(block)
        return _exact_json(block)[0]
    except ValueError:
        return None


def _exact_json(block: bytes) -> tuple[bytes, Any]:
    try:
        record = cbrrr.decode_dag_cbor(block, atjson_mode=True)
    except ValueError:
        # cbrrr's JSON mode refuses floats; whatever else it refuses is refused again here.
        return _json_with_floats(block)
    return _dumps(record), record


def _json_with_floats(block: bytes) -> tuple[bytes, Any]:
    try:
        record = cbrrr.decode_dag_cbor(block)
    except ValueError as error:
        raise ValueError(f"the block is not strict DAG-CBOR ({error})") from error
    if _has_reserved_key(record):
        raise ValueError("a key is $link or $bytes, which AT Protocol JSON keeps for links and bytes")
    text = _dumps(record)
    return text, orjson.loads(text)


def _has_reserved_key(value: Any) -> bool:
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if type(value) is dict:
            if not _RESERVED.isdisjoint(value):
                return True
            waiting += value.values()
        elif type(value) is list:
            waiting += value
    return False


def _dumps(record: Any) -> bytes:
    try:
        return orjson.dumps(record, default=_as_json)
    except TypeError as error:
        raise ValueError(f"JSON can't hold the record: {error}") from error


def _as_json(value: Any) -> dict[str, str]:
    """What orjson has no form for: of all that a block can hold, only links and byte strings."""
    if isinstance(value, cbrrr.CID):
        return {"$link": cid_text(value.cid_bytes)}
    return {"$bytes": base64.b64encode(value).decode().rstrip("=")}
