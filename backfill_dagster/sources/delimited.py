"""Text files line by line: plain lists and CSV, gzipped or not, with bounds on what a line may be.

Bytes that are not UTF-8 become replacement characters, so that such a row ends as an invalid DID and its neighbours
are kept. Blank lines are no rows.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from backfill_dagster.errors import SourceError

LINE_MAX_CHARS = 1024 * 1024

_GZIP_MAGIC = b"\x1f\x8b"
_FOREIGN = {
    b"PAR1": "is a Parquet file: set source.format: parquet",
    b"SQLite format 3\0": "is a SQLite database: set source.type: sqlite",
    b"PK\x03\x04": "is a zip archive or a spreadsheet: save it as CSV",
    b"\x28\xb5\x2f\xfd": "is compressed with zstd: unpack it, or use gzip",
    b"\xff\xfe": "is UTF-16 text: save it as UTF-8",
    b"\xfe\xff": "is UTF-16 text: save it as UTF-8",
}


def text_lines(file: io.BufferedReader, name: str) -> Iterator[str]:
    """The lines of a plain list, trimmed, without the blank ones.

    Args:
        file: opened at its start.
        name: of the file, for errors.

    Raises:
        SourceError: it isn't text, is damaged, or has a line over `LINE_MAX_CHARS`.
        OSError: it can't be read.
    """
    with _reading(file, name) as lines:
        yield from (text for line in lines if (text := line.strip()))


def csv_rows(file: io.BufferedReader, name: str, delimiter: str = ",") -> Iterator[list[str]]:
    """The rows of a CSV file (RFC 4180), the header among them.

    Args:
        file: opened at its start.
        name: of the file, for errors.
        delimiter: between the cells.

    Raises:
        SourceError: as `text_lines`; or quotes that are not closed, which would swallow the rows that follow.
        OSError: it can't be read.
    """
    with _reading(file, name) as lines:
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        try:
            yield from filter(None, reader)
        except csv.Error as error:
            raise SourceError(
                f"{name}, line {reader.line_num}: not CSV as of RFC 4180 ({error}); correct it"
            ) from error


@contextmanager
def _reading(file: io.BufferedReader, name: str) -> Iterator[Iterator[str]]:
    try:
        with _unpacked(file) as data:
            _check_is_text(name, data.peek(16)[:16])
            text = io.TextIOWrapper(data, encoding="utf-8-sig", errors="replace", newline="")
            yield _bounded_lines(name, text)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SourceError(f"{name} is damaged or cut short ({error}): fetch or write it again") from error


@contextmanager
def _unpacked(raw: io.BufferedReader) -> Iterator[io.BufferedReader | gzip.GzipFile]:
    if raw.peek(2)[:2] != _GZIP_MAGIC:
        yield raw
        return
    with gzip.GzipFile(fileobj=raw) as unzipped:
        yield unzipped


def _check_is_text(name: str, start: bytes) -> None:
    for magic, remedy in _FOREIGN.items():
        if start.startswith(magic):
            raise SourceError(f"{name} {remedy}")


def _bounded_lines(name: str, text: io.TextIOWrapper) -> Iterator[str]:
    number = 0
    while line := text.readline(LINE_MAX_CHARS + 1):
        number += 1
        if len(line) > LINE_MAX_CHARS:
            raise SourceError(
                f"{name}, line {number} is longer than {LINE_MAX_CHARS} characters: is it a list of lines, or CSV?"
            )
        yield line
