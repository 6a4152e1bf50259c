"""One file to one key that nobody has taken: in one PUT, or in pieces when it is large. All or nothing.

The object carries a token, so that the "taken" which follows a lost reply is recognised as one's own success.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

from backfill_dagster.aws import head_object
from backfill_dagster.store.s3_conflict import CONFLICTS, patiently

PIECE_BYTES = 16 * 1024 * 1024
"""Larger files are uploaded in pieces of this size; S3 takes 10,000 of them, of 5 MiB at least."""

TAKEN = ("PreconditionFailed", "412")

_FINISHED = "NoSuchUpload"
"""What completing an upload again says, when the reply to the first time got lost."""

_TOKEN = "backfill-token"  # noqa: S105 - the name of a header


def upload(
    client: Any,
    bucket: str,
    at: str,
    file: IO[bytes],
    *,
    token: str,
    sleep: Callable[[float], object],
    piece_bytes: int = PIECE_BYTES,
) -> bool:
    """Upload a file from its beginning on; after a 409 all of it again, which S3 asks for.

    Args:
        client: boto3's for S3.
        bucket: the bucket.
        at: the whole key.
        file: open for reading, seekable.
        token: a text that never comes twice.
        sleep: waits between two tries.
        piece_bytes: size of the pieces.

    Returns:
        Whether the object is this file's; False when the key belongs to another one.

    Raises:
        botocore.exceptions.ClientError, BotoCoreError: as the service says; an upload in pieces was aborted, if the
            service let it be.
    """
    is_small = file.seek(0, 2) <= piece_bytes

    def once() -> bool:
        file.seek(0)
        try:
            if is_small:
                metadata = {_TOKEN: token}
                client.put_object(Bucket=bucket, Key=at, Body=file.read(), IfNoneMatch="*", Metadata=metadata)
            else:
                _upload_pieces(client, bucket, at, file, token, piece_bytes)
        except client.exceptions.ClientError as error:
            if error.response["Error"]["Code"] not in (*TAKEN, _FINISHED):
                raise
            found = head_object(client, bucket, at)
            if found is None:
                raise  # whatever was there is gone: the key is free again
            return bool(found["Metadata"].get(_TOKEN) == token)
        return True

    return patiently(once, sleep, again_on=(*CONFLICTS, *TAKEN, _FINISHED))


def _upload_pieces(client: Any, bucket: str, at: str, file: IO[bytes], token: str, piece_bytes: int) -> None:
    begun = client.create_multipart_upload(Bucket=bucket, Key=at, Metadata={_TOKEN: token})
    named = {"Bucket": bucket, "Key": at, "UploadId": begun["UploadId"]}
    try:
        pieces: list[dict[str, Any]] = []
        while piece := file.read(piece_bytes):
            number = len(pieces) + 1
            done = client.upload_part(**named, PartNumber=number, Body=piece)
            checksums = {name: value for name, value in done.items() if name.startswith("Checksum") and value}
            checksums.pop("ChecksumType", None)
            pieces.append({"ETag": done["ETag"], "PartNumber": number, **checksums})
        client.complete_multipart_upload(**named, MultipartUpload={"Parts": pieces}, IfNoneMatch="*")
    except BaseException:
        with suppress(Exception):  # the other error matters more; whoever recovers the shard aborts it
            client.abort_multipart_upload(**named)
        raise
