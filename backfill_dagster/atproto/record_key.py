"""Record key text (rkey), the last part of a record's path: what counts as one, of whatever key type.

Source: https://atproto.com/specs/record-key
"""

from __future__ import annotations

import re

_RECORD_KEY = re.compile(r"[a-zA-Z0-9_~.:-]{1,512}")


def is_record_key(text: str) -> bool:
    """Whether `text` is a syntactically valid record key (1 to 512 characters, neither `.` nor `..`)."""
    return _RECORD_KEY.fullmatch(text) is not None and text not in (".", "..")
