"""NSID text (`app.bsky.feed.post`), the name of a collection: what counts as one. Wildcards belong to `config`.

Source: https://atproto.com/specs/nsid
"""

from __future__ import annotations

import re

NSID_MAX_LENGTH = 253 + 1 + 63

_NSID = re.compile(
    r"[a-zA-Z](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)+"
    r"\.[a-zA-Z][a-zA-Z0-9]{0,62}"
)


def is_nsid(text: str) -> bool:
    """Whether `text` is a syntactically valid NSID: a reversed domain of at least two segments, and a name."""
    return len(text) <= NSID_MAX_LENGTH and _NSID.fullmatch(text) is not None
