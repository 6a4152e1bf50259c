"""The entries of `record_types`: which collections one takes, its asset name, and whether two clash.

Entries are NSIDs of collections, or whole namespaces `a.b.*`. What a record's own type is, is known in `records`.
"""

from __future__ import annotations

from collections.abc import Sequence


def asset_name(record_type: str) -> str:
    """Dagster's name for an entry of `record_types` (design: architecture, "Dagster names")."""
    if record_type.endswith(".*"):
        record_type = record_type[:-1] + "all"
    return record_type.replace("-", "__").replace(".", "_")


def clashes_of(entries: Sequence[object]) -> str:
    """Entries of `record_types` that stand twice or would share an asset name; empty when there is none."""
    firsts: dict[str, int] = {}
    clashes = []
    for index, entry in enumerate(entries):
        first = firsts.setdefault(asset_name(str(entry)), index)
        if first != index:
            what = "repeats" if entries[first] == entry else "would have the same asset name as"
            clashes.append(f"entry {index + 1} {what} entry {first + 1}")
    return "; ".join(clashes)


def takes(entry: str, record_type: str) -> bool:
    """Whether an entry (an NSID or a whole namespace) takes a collection."""
    return record_type.startswith(entry[:-1]) if entry.endswith(".*") else record_type == entry
