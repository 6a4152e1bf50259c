"""What errors of pyarrow's S3 client mean for a person, in the service's own words.

That client loses them at times: an error that it has no name for is a number, and one whose text is longer than what
was to be read is a stream that failed. Then the service is asked once more, by boto3.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from backfill_dagster.aws.problems import REMEDIES, error_code, problem_line, problem_text

_ERROR = re.compile(
    r"AWS Error (?:\[code (\d+)\]|(\w+))(?: \(HTTP status (\d+)\))? during (\w+) operation: (.*)", re.DOTALL
)
_ANY_ERROR = re.compile(r"(?<!['\"])\bAWS Error\b(.*)", re.DOTALL)
"""Whatever else it may say; between quotes it is a value of somebody's SQL or list."""

_UNPARSED = re.compile(r"Unable to parse ExceptionName: ([\w.\-]+) Message: (.*)", re.DOTALL)
"""A name that the C++ client doesn't know; it is the service's own."""

_ARCHIVED = re.compile(r"not valid for the object's (?:storage class|access tier)")
"""The service's words for InvalidObjectState, which the C++ client knows by a number that changes."""

_OBJECT = re.compile(r"key '(.+?)' in bucket '(.+?)'")

_CODES = {
    "ACCESS_DENIED": "AccessDenied",
    "INVALID_ACCESS_KEY_ID": "InvalidAccessKeyId",
    "SIGNATURE_DOES_NOT_MATCH": "SignatureDoesNotMatch",
    "REQUEST_TIME_TOO_SKEWED": "RequestTimeTooSkewed",
    "NO_SUCH_BUCKET": "NoSuchBucket",
    "NO_SUCH_KEY": "NoSuchKey",
    "RESOURCE_NOT_FOUND": "404",
    "SLOW_DOWN": "SlowDown",
    "SERVICE_UNAVAILABLE": "503",
    "THROTTLING": "SlowDown",
    "NETWORK_CONNECTION": "EndpointConnectionError",
    "REQUEST_TIMEOUT": "ReadTimeoutError",
}
"""What the C++ client calls them; it doesn't know all, and says the HTTP status of the others."""

_BROKEN = "INTERNAL_FAILURE"
_NUMBERED = "error "

_CLEAR = ("SlowDown", "503", "EndpointConnectionError", "ReadTimeoutError")
"""Asking again takes minutes, and brings nothing that isn't known."""


@dataclass(frozen=True, slots=True)
class _Told:
    """Attributes: the service's code, or the client's; the message; the request that it is about, if known."""

    code: str
    said: str
    operation: str

    @property
    def is_lost(self) -> bool:
        """Whether the service has said something else, or more. A code without a message is a guess."""
        is_guess = not self.said or self.code.startswith(_NUMBERED) or self.code.isdecimal() or self.code == _BROKEN
        return is_guess and self.code not in _CLEAR


def arrow_problem_text(error: BaseException, doing: str) -> str | None:
    """The one line for an error of pyarrow's S3 client; None when it is about something else.

    Args:
        error: its text, or the text of what was made of it (by DuckDB), has AWS' words.
        doing: as of `problem_text`.
    """
    told = _told(error)
    return None if told is None else _line(told, doing)


def read_problem_text(error: BaseException, uri: str, client: Callable[[], Any]) -> str | None:
    """The one line for an error of pyarrow's S3 client in reading; None when it is about something else.

    Where the client has lost what the service said, the object's first byte is asked for.

    Args:
        error: as of `arrow_problem_text`. The object that it names itself (`aws.named`) goes before `uri`.
        uri: `s3://bucket/key` of the object.
        client: boto3's for S3.
    """
    told = _told(error)
    if told is None:
        return None
    named = _OBJECT.search(str(error))
    where = f"s3://{named[2]}/{named[1]}" if named else uri
    refused = None
    if told.is_lost and told.operation in ("GetObject", "HeadObject"):
        refused = _refusal(where, client)
    return _line(told, f"read {where}") if refused is None else problem_text(refused, f"read {where}")


def _told(error: BaseException) -> _Told | None:
    found = _ERROR.search(str(error))
    if found is None:
        other = _ANY_ERROR.search(str(error))
        return None if other is None else _Told("", _message(other[1]), "")
    number, name, status, operation, said = found.groups()
    code = _CODES.get(name) or status or name or ""
    if unparsed := _UNPARSED.match(said):
        code, said = unparsed.groups()
    said = _message(said)
    if number is not None:
        code = _code_in(said) or f"{_NUMBERED}{number}"
    return _Told(code, said, operation)


def _message(said: str) -> str:
    said = said.partition("\n\n")[0].strip(" .:\n")  # DuckDB shows SQL below
    return said.removeprefix("No response body").strip(" .")


def _code_in(said: str) -> str | None:
    """A code of the service's that its message names."""
    if _ARCHIVED.search(said):
        return "InvalidObjectState"
    return next((word for word in re.findall(r"[A-Z][A-Za-z.]+", said) if word in REMEDIES), None)


def _line(told: _Told, doing: str) -> str:
    return problem_line(doing, ": ".join(filter(None, (told.code, told.said))) or "no reason given", told.code)


def _refusal(uri: str, client: Callable[[], Any]) -> Exception | None:
    """What the service says to whoever asks for the object's first byte; None: it gives it, or there is none."""
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, key = uri.removeprefix("s3://").partition("/")
    try:
        client().get_object(Bucket=bucket, Key=key, Range="bytes=0-0")["Body"].close()
    except (BotoCoreError, ClientError) as error:
        return None if error_code(error) == "InvalidRange" else error
    return None
