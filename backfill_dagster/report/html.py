"""A coverage as one self-contained HTML page: no scripts, nothing loaded from anywhere; every text is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from backfill_dagster.model import Outcome
from backfill_dagster.report.coverage import Coverage
from backfill_dagster.report.markdown import lost_text
from backfill_dagster.report.reasons import REASONS

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#1b1f24}
table{border-collapse:collapse;margin:1rem 0;width:100%}
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #d8dee4;vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
.bar{display:flex;height:1.2rem;border-radius:4px;overflow:hidden;margin:1rem 0;background:#eaeef2}
.ok{background:#2da44e}.left{background:#d4a72c}.gone{background:#8c959f}
small{color:#57606a}code{overflow-wrap:anywhere}
"""


def render_html(coverage: Coverage) -> str:
    """The whole page."""
    complete = coverage.outcomes[Outcome.COMPLETE] + coverage.outcomes[Outcome.UNCHANGED]
    gone = coverage.dids - complete - coverage.left
    body = [
        f"<h1>{escape(coverage.name)}</h1>",
        f"<p>{complete:,} of {coverage.dids:,} DIDs complete, {coverage.left:,} left to fetch, {gone:,} not to be had. "
        f"{coverage.rows.total():,} live rows in <code>{escape(coverage.records_path)}</code>. "
        f"<small>{escape(coverage.generated_at)}</small></p>",
        *([f"<p><strong>{escape(lost_text(coverage))}</strong></p>"] if coverage.lost_parts else []),
        _bar(complete, coverage.left, gone),
        "<h2>Outcomes</h2>",
        _table(
            ("Outcome", "DIDs", "Why", "What to do"),
            [(o.value, coverage.outcomes[o], *REASONS[o]) for o in Outcome if coverage.outcomes[o]],
        ),
        "<h2>Hosts</h2>",
        _hosts(coverage),
        "<h2>Live rows</h2>",
        _table(("Record type", "Rows"), coverage.rows.most_common()),
        f"<p>{coverage.quarantined:,} records in quarantine, {coverage.undated:,} left out as undated.</p>",
        *_columns(coverage),
        *_missing(coverage),
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(coverage.name)}: coverage</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def _bar(complete: int, left: int, gone: int) -> str:
    total = max(complete + left + gone, 1)
    pieces = (("ok", complete), ("left", left), ("gone", gone))
    return (
        '<div class="bar" role="img" aria-label="complete, left, not to be had">'
        + "".join(f'<div class="{name}" style="width:{100 * count / total:.2f}%"></div>' for name, count in pieces)
        + "</div>"
    )


def _hosts(coverage: Coverage) -> str:
    outcomes = [outcome for outcome in Outcome if coverage.outcomes[outcome]]
    rows = [(host, *(counts[o] for o in outcomes)) for host, counts in sorted(coverage.hosts.items())]
    return _table(("Host", *(outcome.value for outcome in outcomes)), rows)


def _columns(coverage: Coverage) -> Iterable[str]:
    outcomes = [outcome for outcome in Outcome if coverage.outcomes[outcome]]
    for column, values in sorted(coverage.columns.items()):
        yield f"<h2>By {escape(column)}</h2>"
        rows = [(value, *(counts[o] for o in outcomes)) for value, counts in sorted(values.items())]
        yield _table((column, *(outcome.value for outcome in outcomes)), rows)


def _missing(coverage: Coverage) -> Iterable[str]:
    if coverage.missing:
        yield "<h2>What is missing</h2>"
    for outcome, missing in sorted(coverage.missing.items(), key=lambda item: -item[1].dids):
        yield f"<h3>{escape(outcome.value)}: {missing.dids:,}</h3><p>{escape(REASONS[outcome][0])}.</p>"
        yield _table(("Error", "DIDs"), missing.errors.most_common(10))
        yield _table(("DID", "Shard", "Detail"), missing.examples)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [[_cell(value) for value in row] for row in rows]
    header = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "\n".join(f"<tr>{''.join(cells)}</tr>" for cells in lines)
    return f"<table><thead><tr>{header}</tr></thead><tbody>\n{body}\n</tbody></table>"


def _cell(value: object) -> str:
    return f'<td class="n">{value:,}</td>' if isinstance(value, int) else f"<td>{escape(str(value))}</td>"
