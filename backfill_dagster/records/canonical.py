"""JSON whose bytes follow from what it says, and objects of it that carry their own sha256."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson


def canonical_json(content: Any) -> bytes:
    """Keys sorted, no spaces, UTF-8; texts that UTF-8 can't say get `?` for the odd characters."""
    try:
        return orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        # Lone surrogates: a server's header bytes come as such. One odd header must not keep a batch from its commit.
        return orjson.dumps(_printable(content), option=orjson.OPT_SORT_KEYS)


def digest(content: Mapping[str, Any]) -> str:
    """sha256 of its canonical JSON, hex."""
    return hashlib.sha256(canonical_json(content)).hexdigest()


def hashed_json(content: Mapping[str, Any]) -> bytes:
    """Canonical JSON with its own digest beside what it says, under `sha256`."""
    return canonical_json({**content, "sha256": digest(content)})


def read_hashed_json(data: bytes) -> dict[str, Any]:
    """What `hashed_json` was given; fields of later versions count for the digest.

    Raises:
        ValueError: it is no JSON object, or not of the digest that it carries.
    """
    content = orjson.loads(data)
    if not isinstance(content, dict) or content.pop("sha256", None) != digest(content):
        raise ValueError("its sha256 is not the one it carries")
    return content


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, Mapping):
        return {_printable(key): _printable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(item) for item in value]
    return value
