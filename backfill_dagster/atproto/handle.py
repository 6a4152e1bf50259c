"""Handle text (`alice.example.com`): what counts as one. Resolving handles lives in `identity`, not here.

Source: https://atproto.com/specs/handle
"""

from __future__ import annotations

import re

HANDLE_MAX_LENGTH = 253

_HANDLE = re.compile(r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\.)+[a-zA-Z](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?")


def is_handle(text: str) -> bool:
    """Whether `text` is a syntactically valid handle, in either case and without a leading `@`."""
    return len(text) <= HANDLE_MAX_LENGTH and _HANDLE.fullmatch(text) is not None
