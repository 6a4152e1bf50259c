"""AT URIs (`at://<authority>/<collection>/<rkey>`) as they stand in records: syntax and their three parts.

The strict form only: no fragment, no query, no trailing slash.
Source: https://atproto.com/specs/at-uri-scheme
"""

from __future__ import annotations

from dataclasses import dataclass

from backfill_dagster.atproto.did import is_did
from backfill_dagster.atproto.handle import is_handle
from backfill_dagster.atproto.nsid import is_nsid
from backfill_dagster.atproto.record_key import is_record_key

AT_URI_MAX_LENGTH = 8192


@dataclass(frozen=True, slots=True)
class AtUri:
    """The parts of an AT URI; `str()` gives its text back.

    Attributes:
        authority: a DID or a handle, as written.
        collection: NSID, None when the URI names a whole repo.
        rkey: record key, None when the URI names a repo or a collection.
    """

    authority: str
    collection: str | None = None
    rkey: str | None = None

    def __str__(self) -> str:
        return "at://" + "/".join(part for part in (self.authority, self.collection, self.rkey) if part is not None)


def parse_at_uri(text: str) -> AtUri:
    """Take an AT URI apart.

    Raises:
        ValueError: `text` is not an AT URI; the text says which part isn't right.
    """
    shown = repr(text[:100])
    if len(text) > AT_URI_MAX_LENGTH:
        raise ValueError(f"{shown}... is longer than an AT URI's {AT_URI_MAX_LENGTH} characters")
    if not text.startswith("at://"):
        raise ValueError(f"{shown} doesn't start with at://")
    authority, *path = text[5:].split("/")
    if not is_did(authority) and not is_handle(authority):
        raise ValueError(f"{shown}: the authority is neither a DID nor a handle")
    if len(path) > 2:
        raise ValueError(f"{shown} has more than a collection and a record key")
    if path and not is_nsid(path[0]):
        raise ValueError(f"{shown}: the collection is not an NSID")
    if len(path) == 2 and not is_record_key(path[1]):
        raise ValueError(f"{shown}: the last part is not a record key")
    return AtUri(authority, *path)


def is_at_uri(text: str) -> bool:
    """Whether `text` is a valid AT URI in the strict form that Lexicon asks for."""
    try:
        parse_at_uri(text)
    except ValueError:
        return False
    return True


def author_of(uri: str) -> str:
    """The authority of a record's AT URI, which is a DID in all that this project makes; nothing is checked."""
    return uri.removeprefix("at://").partition("/")[0]
