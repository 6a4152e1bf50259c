"""Rows of a query for people and for programs: a table of the first ones, or all of them as JSON or CSV in a file.

The file is a temporary one: rows count only once the query has ended well, and there may be more than fit into memory.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, time
from itertools import islice
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, TextIO
from unicodedata import category

from rich.console import Console
from rich.table import Table
from rich.text import Text

from backfill_dagster.cli.summary import counted, print_lines
from backfill_dagster.report.query import Row

ROWS_SHOWN_MAX = 1000

_IN_MEMORY_BYTES = 8 * 1024 * 1024

_WIDE = 1_000_000
"""Characters of a line that goes to no terminal: nothing is wrapped there."""


_CONTROLS = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories of what moves a cursor, turns the direction of writing or ends a line."""


@dataclass(frozen=True)
class TopRows:
    """What a table shows: the first rows, and whether there are more."""

    columns: Sequence[str]
    rows: Sequence[Row]
    has_more: bool


def top_rows(columns: Sequence[str], rows: Iterator[Row]) -> TopRows:
    """Take the rows that a table shows; of the others, none but one is looked at."""
    first = list(islice(rows, ROWS_SHOWN_MAX + 1))
    return TopRows(columns, first[:ROWS_SHOWN_MAX], len(first) > ROWS_SHOWN_MAX)


def print_rows(top: TopRows) -> None:
    """A table on stdout, and how many rows it has."""
    console = Console(width=None if sys.stdout.isatty() else _WIDE)
    table = Table(show_edge=False)
    for name in top.columns:
        table.add_column(Text(_printable(name)), overflow="fold")
    for row in top.rows:
        table.add_row(
            *(Text("null", style="dim") if value is None else Text(_printable(_text(value))) for value in row)
        )
    console.print(table)
    shown = counted(len(top.rows), "row")
    more = f"the first {shown} are shown and there are more: --csv or --json prints all"
    print_lines(console, ["", more if top.has_more else shown])


def json_file(columns: Sequence[str], rows: Iterator[Row]) -> BinaryIO:
    """All rows as one JSON object with `columns` and `rows`."""
    with _text_file() as (file, text):
        text.write(f'{{"columns": {json.dumps(list(columns))}, "rows": [')
        for number, row in enumerate(rows):
            text.write(",\n" if number else "\n")
            text.write(json.dumps([plain(value) for value in row]))
        text.write("\n]}\n")
    return file


def csv_file(columns: Sequence[str], rows: Iterator[Row]) -> BinaryIO:
    """All rows as CSV: null is empty, what is no plain value is JSON."""
    with _text_file() as (file, text):
        writer = csv.writer(text)
        writer.writerow(columns)
        writer.writerows(["" if value is None else _text(value) for value in row] for row in rows)
    return file


def plain(value: Any) -> Any:
    """A value of DuckDB's as JSON has it.

    Times are ISO 8601, bytes base64; decimals, infinities and what JSON has no form for are text, so that no digit is
    lost; a map's keys are text.
    """
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, datetime):
        return value.isoformat().removesuffix("+00:00") + ("Z" if value.tzinfo and not value.utcoffset() else "")
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, Mapping):
        return {_text(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value)


def _cell(value: Any) -> Text:
    return Text("null", style="dim") if value is None else Text(_printable(_text(value)))


def _text(value: Any) -> str:
    form = plain(value)
    return form if isinstance(form, str) else json.dumps(form, ensure_ascii=False)


def _printable(text: str) -> str:
    """Strangers wrote it: control characters, which a terminal would obey, are shown and do nothing."""
    return "".join(one.encode("unicode_escape").decode("ascii") if category(one) in _CONTROLS else one for one in text)


@contextmanager
def _text_file() -> Iterator[tuple[BinaryIO, TextIO]]:
    """A temporary file and how to write text to it in the block; after it the file stands at its beginning."""
    file: Any = SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 - the caller reads and closes it
    try:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        yield file, text
        text.flush()
        text.detach()
        file.seek(0)
    except BaseException:
        file.close()
        raise
