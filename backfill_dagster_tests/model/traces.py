"""A step in one line: who, what, and what it changed on the disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from backfill_dagster_tests.model.actions import Step
from backfill_dagster_tests.model.world import Entry, Part, Row, World, by_name


def said(before: World, step: Step) -> str:
    """For example `epoch 3 publishes a part | records +part 5-3{a2 c1}, staging -part 5-3{a2 c1}`.

    A part is called by its seq and epoch and shows its rows: DIDs, each with the version of its repo.
    """
    changes = ", ".join(_changes(before, step.world))
    return f"epoch {step.epoch} {step.action.words}" + (f" | {changes}" if changes else "")


def _changes(before: World, after: World) -> Iterator[str]:
    for seq in range(1, len(after.log) + 1):
        old, new = before.entry(seq), after.entry(seq)
        if new != old:
            yield (
                f"log[{seq}] "
                + (f"= {_entry(new)}" if new else "deleted")
                + (f", was {_entry(old)}" if old and new else "")
            )
    for sign, one, other in (("+", after, before), ("-", before, after)):
        yield from (f"records {sign}{_part(part)}" for part in by_name(one.records - other.records))
        yield from (f"staging {sign}{_part(part)}" for part in by_name(one.staging - other.staging))
    yield from (f"ledger {did}: {seq}" for did, seq in sorted(after.ledger - before.ledger))
    if after.snapshot != before.snapshot:
        yield f"snapshot of {len(after.snapshot)} entries"


def _entry(entry: Entry) -> str:
    if entry.is_seal:
        return f"seal of epoch {entry.epoch}"
    parts = [f"+{_part(part)}" for part in by_name(entry.adds)] + [f"-{_part(part)}" for part in by_name(entry.removes)]
    return f"epoch {entry.epoch} {' '.join(parts)}"


def _part(part: Part) -> str:
    return f"part {part.seq}-{part.epoch}{{{_rows(part.rows)}}}"


def _rows(rows: Iterable[Row]) -> str:
    return " ".join(f"{did}{version}" for did, version in sorted(rows))
