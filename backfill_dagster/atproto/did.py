"""DID text: what counts as one and which method it is of. Resolving DIDs lives in `identity`, not here.

Source: https://atproto.com/specs/did
"""

from __future__ import annotations

import re

DID_MAX_LENGTH = 2048

_DID = re.compile(r"did:[a-z]+:[a-zA-Z0-9._:%-]*[a-zA-Z0-9._-]")

_PLC_DID = re.compile(r"did:plc:[a-z2-7]{24}")


def is_did(text: str) -> bool:
    """Whether `text` is a syntactically valid DID (any method, not trimmed, at most 2048 characters)."""
    return len(text) <= DID_MAX_LENGTH and _DID.fullmatch(text) is not None


def is_plc_did(text: str) -> bool:
    """Whether `text` is a did:plc that can exist: 24 characters of a-z and 2-7 follow the method.

    Source: https://web.plc.directory/spec/v0.1/did-plc
    """
    return _PLC_DID.fullmatch(text) is not None


def did_method(did: str) -> str:
    """The method of a DID: `plc` of `did:plc:abc`.

    Raises:
        ValueError: `did` is not a DID.
    """
    if not is_did(did):
        raise ValueError(f"{did[:100]!r} is not a DID (did:<method>:<identifier>)")
    return did.split(":", 2)[1]
