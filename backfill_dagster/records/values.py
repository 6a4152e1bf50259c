"""What a record type's own columns hold, taken out of one decoded record. Columns of every type are `rows.py`'s.

The rule for odd records, after the lexicons (https://github.com/bluesky-social/atproto/tree/main/lexicons/app/bsky):
a field that a lexicon *requires* and that is there in the wrong type breaks the row contract (ValueError, the record
goes to quarantine); missing (or null) is null. Everything odd under an optional field is null: `reply`, `embed`,
`labels`, `facets`, `langs`, `tags` and `via` are optional. Whether a string is a DID, a URI or a CID isn't judged.
`createdAt`, required too, is checked in `rows.py`, which has it in hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from backfill_dagster.records.schema import BLOCK, FOLLOW, LIKE, POST, REPOST

Values = tuple[Any, ...]
"""One value per own column of the record type, in the schema's order."""

ValuesOf = Callable[[Mapping[str, Any], Mapping[str, Any]], Values]
"""Takes the decoded record, and the same in JSON form ($link, $bytes) for the columns that hold JSON."""


def post_values(record: Mapping[str, Any], in_json: Mapping[str, Any]) -> Values:
    """Values of a post or reply; JSON columns as UTF-8 bytes.

    Raises:
        ValueError: `text` is no string.
    """
    text = _required_text(record, "text")
    get = record.get
    embed = _object(get("embed"))
    reply = _object(get("reply"))
    parent, root = (_object(reply.get("parent")), _object(reply.get("root"))) if reply else (None, None)
    return (
        text,
        _texts(get("langs")),
        _texts(get("tags")),
        None if _object(get("labels")) is None else _json(in_json["labels"]),
        _json(in_json["facets"]) if type(get("facets")) is list else None,
        None if embed is None else _text(embed.get("$type")),
        None if embed is None else _json(in_json["embed"]),
        None if parent is None else _text(parent.get("uri")),
        None if parent is None else _text(parent.get("cid")),
        None if root is None else _text(root.get("uri")),
        None if root is None else _text(root.get("cid")),
    )


def subject_values(record: Mapping[str, Any], in_json: Mapping[str, Any]) -> Values:
    """Values of a like or repost: subject_uri, subject_cid, via_uri.

    Raises:
        ValueError: `subject` is no object, or its `uri` or `cid` is no string.
    """
    via = record.get("via")
    via_uri = _text(via.get("uri")) if type(via) is dict else None
    subject = record.get("subject")
    if subject is None:
        return None, None, via_uri
    if type(subject) is not dict:
        raise ValueError("subject is not an object")
    uri, cid = subject.get("uri"), subject.get("cid")
    if not (uri is None or type(uri) is str) or not (cid is None or type(cid) is str):
        raise ValueError("subject.uri or subject.cid is not a string")
    return uri, cid, via_uri


def account_values(record: Mapping[str, Any], in_json: Mapping[str, Any]) -> Values:
    """Value of a follow or block: subject.

    Raises:
        ValueError: `subject` is no string.
    """
    return (_required_text(record, "subject"),)


def no_values(record: Mapping[str, Any], in_json: Mapping[str, Any]) -> Values:
    """Any other collection has no own columns; its lexicon isn't known here, so any object will do."""
    return ()


_VALUES_OF: dict[str, ValuesOf] = {
    POST: post_values,
    LIKE: subject_values,
    REPOST: subject_values,
    FOLLOW: account_values,
    BLOCK: account_values,
}


def values_of(collection: str) -> ValuesOf:
    """The function for a collection's records."""
    return _VALUES_OF.get(collection, no_values)


def matched_text(record: Mapping[str, Any], match: str) -> str | None:
    """What a filter's list is searched for: the text under `subject_uri`, `parent_uri` or `root_uri`; None without it.

    `subject_uri` is the subject's `uri`, or the subject itself where that is a string (follows, blocks).
    """
    if match == "subject_uri":
        subject = record.get("subject")
        return _text(subject.get("uri")) if type(subject) is dict else _text(subject)
    reply = _object(record.get("reply"))
    post = _object(reply.get(match.removesuffix("_uri"))) if reply else None
    return None if post is None else _text(post.get("uri"))


def _required_text(record: Mapping[str, Any], name: str) -> str | None:
    value = record.get(name)
    if value is None or type(value) is str:
        return value
    raise ValueError(f"{name} is not a string")


def _text(value: Any) -> str | None:
    return value if type(value) is str else None


def _texts(value: Any) -> list[str] | None:
    if type(value) is not list:
        return None
    for one in value:
        if type(one) is not str:
            return None
    return value


def _object(value: Any) -> dict[str, Any] | None:
    return value if type(value) is dict else None


def _json(value: Any) -> bytes | None:
    return orjson.dumps(value)
