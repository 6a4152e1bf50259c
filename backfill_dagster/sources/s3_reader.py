"""Opens the objects that a source has listed, says which can't be read, and notices when one was replaced meanwhile.

An object is read in many requests. When another takes its place between two of them, the rows are of both, and a plan
made of them would delist accounts that stand in neither half. So each object is looked at again after its last row.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from backfill_dagster.aws import AwsPlace, aws_client, aws_errors, head_object, read_problem_text
from backfill_dagster.aws.arrow import ArrowS3
from backfill_dagster.errors import SourceError
from backfill_dagster.sources.s3_objects import S3Address, S3Object
from backfill_dagster.sources.tables import TableFile

_BUFFER_BYTES = 8 * 1024 * 1024
"""Of a CSV object, asked for at a time."""

_AT_A_TIME = 8
"""Objects that are looked at by threads, when each costs little but the wait."""

_PIECE = 256
"""So many looks may be on their way in vain when one has said what is wrong."""

_Found = TypeVar("_Found")


class S3Reader:
    """Reads the objects of an address.

    Args:
        address: names them.
        place: region and endpoint.
        arrow: makes pyarrow's client.
    """

    def __init__(self, address: S3Address, place: AwsPlace, arrow: ArrowS3) -> None:
        self.address = address
        self.arrow = arrow
        self._place = place

    def uri(self, found: S3Object) -> str:
        """Address of one object."""
        return self.address.uri(found.key)

    @contextmanager
    def reading(self, found: S3Object) -> Iterator[TableFile]:
        """One object, to be read in the block; when the block is through, it is still what was listed.

        Raises:
            SourceError: it was replaced, is gone, or can't be read.
        """
        with self.opening(found) as file:
            yield file
        self.check([found])

    @contextmanager
    def opening(self, found: S3Object) -> Iterator[TableFile]:
        """One object; what goes wrong in the block is about it."""
        name = self.uri(found)
        try:
            yield self._file(found)
        except (SourceError, OSError) as error:
            # Whatever is wrong with it may come from that: a mixture of two objects, or a request past the new end.
            if (changed := self.change([found])) is not None:
                raise SourceError(changed) from error
            if isinstance(error, SourceError):
                raise
            said = " ".join(str(error).split())[:200]
            raise SourceError(
                self.problem_text(error, name) or f"{name} is damaged or cut short ({said}): write it again"
            ) from error

    def problem_text(self, error: Exception, name: str) -> str | None:
        """What the service says to who reads `name`, or the object that the error names; None: it isn't S3's."""
        return read_problem_text(error, name, lambda: aws_client("s3", self._place))

    def check(self, objects: Sequence[S3Object]) -> None:
        """Raise SourceError when one of the objects isn't what was listed any more, or nobody can say."""
        for changed in self.each(objects, self._change):
            if changed is not None:
                raise SourceError(changed)

    def change(self, objects: Sequence[S3Object]) -> str | None:
        """What has become of the first of the objects that has changed; None: of none, as far as can be said."""
        try:
            self.check(objects)
        except _LookError:
            return None
        except SourceError as error:
            return str(error)
        return None

    def each(self, objects: Sequence[S3Object], look: Callable[[S3Object], _Found]) -> Iterator[_Found]:
        """What `look` finds out about each of the objects, in their order, some of them at a time."""
        if len(objects) == 1:
            yield look(objects[0])
            return
        with ThreadPoolExecutor(_AT_A_TIME, "look") as pool:
            for start in range(0, len(objects), _PIECE):
                yield from pool.map(look, objects[start : start + _PIECE])

    def _change(self, found: S3Object) -> str | None:
        name = self.uri(found)
        with aws_errors(f"look at {name}", lambda text, code: _LookError(text)):
            now = head_object(aws_client("s3", self._place), self.address.bucket, found.key)
        if now is None:
            return f"{name} has gone since it was listed: start again"
        # Not every service quotes its ETags in all answers.
        if (now["ContentLength"], now["ETag"].strip('"')) == (found.size, found.etag.strip('"')):
            return None
        return f"{name} was replaced while it was read: start again"

    def _file(self, found: S3Object) -> TableFile:
        name = self.uri(found)
        if "//" in f"/{found.key}":
            raise SourceError(f"{name} has an empty part in its key, which can't be read: copy it to another key")

        at = f"{self.address.bucket}/{found.key}"

        def random() -> Any:
            return self.arrow.filesystem().open_input_file(at)

        @contextmanager
        def stream() -> Iterator[io.BufferedReader]:
            # The buffer that counts is pyarrow's: Python's own is passed by when text is read, 8 KiB at a time.
            filesystem = self.arrow.filesystem()
            with (
                filesystem.open_input_stream(at, compression=None, buffer_size=_BUFFER_BYTES) as opened,
                io.BufferedReader(opened) as buffered,
            ):
                yield buffered

        return TableFile(name, stream, random)


class _LookError(SourceError):
    """Nobody can say whether an object is what it was."""
