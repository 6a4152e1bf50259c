"""A coverage as Markdown: for the terminal and for Dagster's metadata."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from backfill_dagster.model import Outcome
from backfill_dagster.report.coverage import Coverage
from backfill_dagster.report.reasons import REASONS


def render_markdown(coverage: Coverage) -> str:
    """Headline, outcomes with reasons, hosts, rows by type."""
    outcomes = [outcome for outcome in Outcome if coverage.outcomes[outcome]]
    complete = coverage.outcomes[Outcome.COMPLETE] + coverage.outcomes[Outcome.UNCHANGED]
    parts = [
        f"**{coverage.name}**: {complete:,} of {coverage.dids:,} DIDs complete, {coverage.left:,} left to fetch, "
        f"{coverage.rows.total():,} live rows",
        table(
            ("outcome", "DIDs", "why", "what to do"),
            [(outcome.value, f"{coverage.outcomes[outcome]:,}", *REASONS[outcome]) for outcome in outcomes],
        ),
        table(
            ("host", *(outcome.value for outcome in outcomes)),
            [
                (host, *(f"{counts[outcome]:,}" for outcome in outcomes))
                for host, counts in sorted(coverage.hosts.items())
            ],
        ),
        table(("record type", "live rows"), [(name, f"{rows:,}") for name, rows in coverage.rows.most_common()]),
    ]
    if coverage.lost_parts:
        parts.insert(1, f"**{lost_text(coverage)}**")
    if coverage.quarantined or coverage.undated:
        parts.append(f"{coverage.quarantined:,} records in quarantine, {coverage.undated:,} left out as undated")
    return "\n\n".join(parts)


def lost_text(coverage: Coverage) -> str:
    """What a reader of a report over a damaged state has to know first."""
    return (
        f"Damaged: {coverage.lost_parts:,} parts missing or altered, and rows counted here are not there. "
        "`backfill verify` names them, `backfill repair` reopens their accounts."
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; cells are made safe for one line, without markup of their own."""
    lines = [_line(head), _line(["---"] * len(head)), *(_line(row) for row in rows)]
    return "\n".join(lines)


class Inert(str):
    """Text that `inert` has made; a table takes it as it is."""


def inert(text: str) -> Inert:
    """A stranger's text as Markdown that is text and nothing else: no link, no image, no emphasis, one line.

    Every ASCII punctuation mark may be escaped (https://spec.commonmark.org/0.31.2/#backslash-escapes), and with its
    slashes and dots escaped an address isn't taken for one. `@`, `-` and the like stay readable.
    """
    return Inert(re.sub(r"([\\`*_\[\]!#~|<>&]|(?<=:)/|(?<=/)/|(?<=www)\.)", r"\\\1", " ".join(text.split())))


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_safe(cell) for cell in cells) + " |"


def _safe(cell: str) -> str:
    if isinstance(cell, Inert):
        return cell
    return " ".join(cell.split()).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
