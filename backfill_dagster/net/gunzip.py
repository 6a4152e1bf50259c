"""Decompression of a gzip body that is cut off as soon as it grows too big, and must end where gzip says it ends.

The HTTP library's own takes truncated gzip for good, so it is switched off (`session`).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

PIECE_MAX_BYTES = 256 * 1024
_GZIP_WINDOW_BITS = 31


class Gunzip:
    """One gzip member (RFC 1952); data behind it is refused, a second member too (no HTTP server sends one)."""

    def __init__(self) -> None:
        self._inflater = zlib.decompressobj(_GZIP_WINDOW_BITS)

    @property
    def is_complete(self) -> bool:
        """Whether the trailer (CRC and length) has been read and was right."""
        return self._inflater.eof

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Decompress a chunk in pieces of at most `PIECE_MAX_BYTES`; ValueError when it isn't good gzip."""
        while True:
            try:
                piece = self._inflater.decompress(chunk, PIECE_MAX_BYTES)
            except zlib.error as error:
                raise ValueError(f"broken gzip: {error}") from error
            if piece:
                yield piece
            if self._inflater.eof:
                if self._inflater.unused_data:
                    raise ValueError("broken gzip: data behind its end")
                return
            chunk = self._inflater.unconsumed_tail
            # A full piece may leave output inside zlib although all input is consumed.
            if not chunk and len(piece) < PIECE_MAX_BYTES:
                return
