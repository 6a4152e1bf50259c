"""The syntax of object keys: relative, plain, and out of the store's own folders. Nothing here touches a disk."""

from __future__ import annotations

STAGING = "staging"
"""Files that are written but not live yet, under the keys that they will have."""

TEMPORARY = ".tmp"
"""Files in the middle of being written; never listed, never read."""


def check_key(key: str) -> str:
    """Return `key` when it names an object below the root.

    Raises:
        ValueError: an empty, absolute or climbing path, a control character or backslash, or a reserved first folder.
    """
    steps = key.split("/")
    if any(step in ("", ".", "..") for step in steps):
        raise ValueError(f"{key!r} is not a key: a relative path without empty, '.' or '..' steps is")
    _check_characters(key)
    if steps[0] in (STAGING, TEMPORARY):
        raise ValueError(f"{key!r} is not a key: {steps[0]}/ is the store's own folder")
    return key


def check_prefix(prefix: str) -> str:
    """Return `prefix` when keys can start with it; the empty one takes all. ValueError as `check_key`."""
    steps = prefix.split("/")
    if any(step in ("", ".", "..") for step in steps[:-1]) or steps[-1] in (".", ".."):
        raise ValueError(f"{prefix!r} is not the beginning of a key")
    _check_characters(prefix)
    return prefix


def _check_characters(text: str) -> None:
    if "\\" in text or any(ord(character) < 0x20 or ord(character) == 0x7F for character in text):
        raise ValueError(f"{text!r} is not a key: it holds a control character or a backslash")
