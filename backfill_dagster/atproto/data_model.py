"""The JSON form of the data model (`$link`, `$bytes`, `$type`): judging it, and encoding it as DAG-CBOR.

For whoever writes records or judges them; reading repos doesn't pass through here.
Source: https://atproto.com/specs/data-model
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TypeAlias

from backfill_dagster.atproto.cid import cid_bytes
from backfill_dagster.atproto.dag_cbor import Link, encode_dag_cbor

DataModelValue: TypeAlias = "bool | int | str | bytes | Link | list[DataModelValue] | dict[str, DataModelValue] | None"

_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")
_BLOB_FIELDS = frozenset({"$type", "ref", "mimeType", "size"})


def parse_json_record(value: object) -> dict[str, DataModelValue]:
    """Read the JSON form of a record: `$link` becomes `Link`, `$bytes` bytes, an integer-like float an integer.

    Raises:
        ValueError: the value breaks the data model; the text names where.
    """
    if type(value) is not dict:
        raise ValueError("a record is an object")
    try:
        parsed = _parse(value, "record")
    except RecursionError:
        raise ValueError("the record is nested too deeply") from None
    if type(parsed) is not dict:
        raise ValueError("a record is an object, neither a link nor bytes")
    return parsed


def encode_json_record(value: object) -> bytes:
    """The DAG-CBOR block of a record's JSON form.

    Raises:
        ValueError: as `parse_json_record`.
    """
    return encode_dag_cbor(parse_json_record(value))


def _parse(value: object, where: str) -> DataModelValue:
    match value:
        case None | bool() | int() | str():
            return value
        case float() if value.is_integer():
            return int(value)
        case list():
            return [_parse(item, f"{where}[{index}]") for index, item in enumerate(value)]
        case dict():
            return _parse_object(value, where)
    raise ValueError(f"{where}: {repr(value)[:100]} has no place in the data model")


def _parse_object(value: dict[str, object], where: str) -> DataModelValue:
    if "$link" in value:
        return _parse_link(value, where)
    if "$bytes" in value:
        return _parse_bytes(value, where)
    parsed = {key: _parse(item, f"{where}.{key}") for key, item in value.items()}
    if "$type" in value:
        kind = value["$type"]
        if type(kind) is not str or not kind:
            raise ValueError(f"{where}: $type is not a name")
        if kind == "blob":
            _check_blob(parsed, where)
    return parsed


def _parse_link(value: dict[str, object], where: str) -> Link:
    link = value["$link"]
    if len(value) != 1 or type(link) is not str:
        raise ValueError(f"{where}: a $link is the text of a CID and has no other fields beside it")
    try:
        return Link(cid_bytes(link))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _parse_bytes(value: dict[str, object], where: str) -> bytes:
    text = value["$bytes"]
    if len(value) != 1 or type(text) is not str or _BASE64.fullmatch(text) is None:
        raise ValueError(f"{where}: $bytes is base64 and has no other fields beside it")
    unpadded = text.rstrip("=")
    try:
        return base64.b64decode(unpadded + "=" * (-len(unpadded) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(f"{where}: $bytes is not base64 ({error})") from error


def _check_blob(value: dict[str, DataModelValue], where: str) -> None:
    size = value.get("size")
    if (
        not value.keys() >= _BLOB_FIELDS
        or type(value["ref"]) is not Link
        or type(value["mimeType"]) is not str
        or type(size) is not int
    ):
        raise ValueError(f"{where}: a blob has a link `ref`, a text `mimeType` and an integer `size`")
