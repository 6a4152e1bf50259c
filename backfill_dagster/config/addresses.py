"""Kinds of values that are addresses: http(s) URLs, S3 addresses, local paths. Opening them happens elsewhere."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from backfill_dagster.config.explain import rule_broken
from backfill_dagster.config.values import Kind, Text

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:/")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.\-]{1,61}[a-z0-9]")
_BUCKET_RULE = "the bucket's name has to be 3 to 63 of a-z, 0-9, '-' and '.', with a letter or digit at both ends"


@dataclass(frozen=True)
class Url(Kind):
    """An http or https origin, perhaps with a path; the slash at the end is dropped.

    Attributes:
        may_have_path: whether a path is accepted.
    """

    may_have_path: bool = True

    @property
    def accepts(self) -> str:
        """What is accepted."""
        return f"an http:// or https:// URL without {'' if self.may_have_path else 'path, '}user, query and fragment"

    def read(self, value: object) -> str:
        """The URL without the slash at its end."""
        text = Text(max_length=2048).read(value)
        parts = urlsplit(text)
        if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"[\s@?#\\]", text):
            raise ValueError
        if parts.port == 0:  # reading .port raises ValueError by itself when it is no port at all
            raise ValueError
        if parts.path.strip("/") and not self.may_have_path:
            raise ValueError
        return text.rstrip("/")


class _BucketNameError(ValueError):
    """What is wrong with an S3 address is the bucket's name."""


class _MayNameBucket(Kind):
    """A kind whose error says so when the bucket's name is the trouble: `s3://Bucket/key` looks like what it wants."""

    def _validate(self, value: object) -> object:
        try:
            return self.read(value)
        except _BucketNameError:
            raise rule_broken(_BUCKET_RULE) from None
        except ValueError:
            return super()._validate(value)


@dataclass(frozen=True)
class S3Uri(_MayNameBucket):
    """`s3://bucket/key`.

    Attributes:
        needs_key: whether a bucket alone is refused.
    """

    needs_key: bool = True

    @property
    def accepts(self) -> str:
        """What is accepted."""
        return "an S3 address s3://bucket/key"

    def read(self, value: object) -> str:
        """The address as it stands."""
        text = Text(max_length=1200).read(value)
        bucket, _, key = text.removeprefix("s3://").partition("/")
        if not is_s3(text) or not bucket:
            raise ValueError
        if _BUCKET.fullmatch(bucket) is None:
            raise _BucketNameError
        if self.needs_key and not key:
            raise ValueError
        return text


@dataclass(frozen=True)
class FilePath(Kind):
    """A local file."""

    @property
    def accepts(self) -> str:
        """What is accepted."""
        return "a local path"

    def read(self, value: object) -> str:
        """The path as it stands."""
        text = Text().read(value)
        if _SCHEME.match(text):
            raise ValueError
        return text


@dataclass(frozen=True)
class StatePath(_MayNameBucket):
    """A folder, or `s3://bucket/prefix`."""

    @property
    def accepts(self) -> str:
        """What is accepted."""
        return "a folder, or an S3 address s3://bucket/prefix without empty, '.' and '..' steps"

    def read(self, value: object) -> str:
        """The path as it stands, without the slash at its end."""
        text = Text().read(value)
        if _SCHEME.match(text):
            text = S3Uri(needs_key=False).read(text).rstrip("/")
            _, *steps = text.removeprefix("s3://").split("/")
            if not {"", ".", ".."}.isdisjoint(steps):  # S3 takes them, but no two clients mean the same by them
                raise ValueError
        return text.rstrip("/") or "/"


def is_s3(path: str) -> bool:
    """Whether a path of the config is an S3 address."""
    return path.startswith("s3://")
