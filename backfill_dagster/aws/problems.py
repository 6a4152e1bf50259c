"""What boto3's errors mean for a person: one line with what was tried, what went wrong and the remedy.

The caller says what it was doing and which error of the tree it becomes. Texts of AWS never carry a secret; what a
stranger's server says is cut and put on one line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from backfill_dagster.errors import BackfillError, StateError

_SAID_MAX = 300

_CREDENTIALS = "see AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or the role of this machine"
_DENIED = "deploy/aws/ has a policy with what is needed: see that it is attached, or whose credentials these are"
_LATER = "the service is busy: start again later, with fewer runs at a time or more capacity"
_REGION = "set the region that it is in"

REMEDIES = {
    "AccessDenied": _DENIED,
    "AccessDeniedException": _DENIED,
    "AllAccessDisabled": _DENIED,
    "403": _DENIED,
    "InvalidAccessKeyId": f"the access key is unknown there: {_CREDENTIALS}",
    "UnrecognizedClientException": f"the access key is unknown there: {_CREDENTIALS}",
    "SignatureDoesNotMatch": f"the secret key is not that of the access key: {_CREDENTIALS}",
    "InvalidSignatureException": f"the secret key is not that of the access key: {_CREDENTIALS}",
    "ExpiredToken": "the credentials have expired: log in again",
    "ExpiredTokenException": "the credentials have expired: log in again",
    "RequestTimeTooSkewed": "this machine's clock is wrong: set it",
    "NoSuchBucket": "create the bucket, or correct its name",
    "NoSuchKey": "see that the object is there, or correct its key",
    "InvalidObjectState": "the object is archived: restore it first",
    "KMS.DisabledException": "the key that the object is encrypted with is turned off: turn it on",
    "404": "see that bucket and object are there, or correct the address",
    "PermanentRedirect": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "301": _REGION,
    "SlowDown": _LATER,
    "503": _LATER,
    "ThrottlingException": _LATER,
    "RequestLimitExceeded": _LATER,
    "ProvisionedThroughputExceededException": _LATER,
    "ResourceNotFoundException": "create it with `backfill ledger create`, or correct the table's name and region",
}

_CONNECTION_ERRORS = ("EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError")

_NEVER_SENT = frozenset(
    {
        "NoCredentialsError",
        "PartialCredentialsError",
        "NoRegionError",
        "ProfileNotFound",
        "InvalidEndpointConfigurationError",
    }
)
"""Known before the first try. Credentials that can't be renewed (CredentialRetrievalError) can end a later one."""

_BY_TYPE: Mapping[str, str] = {
    "NoCredentialsError": _CREDENTIALS,
    "PartialCredentialsError": _CREDENTIALS,
    "CredentialRetrievalError": _CREDENTIALS,
    "NoRegionError": "set its region in the config, or AWS_REGION",
    "ProfileNotFound": "correct AWS_PROFILE",
    "InvalidEndpointConfigurationError": "correct it, or take it away to go to AWS itself",
    **dict.fromkeys(
        _CONNECTION_ERRORS, "see that the endpoint is right and can be reached from here, then start again"
    ),
}


class AwsError(StateError):
    """A service refused or can't be reached.

    Attributes:
        code: the service's own name for it (`NoSuchKey`), or of a client's error its type.
        may_have_happened: no answer came, or one that says nothing: the request may still be on its way when the next
            question is answered.
    """

    def __init__(self, message: str, *, code: str = "", may_have_happened: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.may_have_happened = may_have_happened


def error_code(error: BaseException) -> str:
    """The service's own name for an error; of an error that no service sent, its type's."""
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict) and isinstance(response.get("Error"), dict):
        return str(response["Error"].get("Code") or "")
    return type(error).__name__


def problem_text(error: BaseException, doing: str) -> str:
    """The one line for a person.

    Args:
        error: of boto3.
        doing: reads on from "can't": `read s3://bucket/key`.
    """
    code = error_code(error)
    response: Any = getattr(error, "response", None)
    said = str(error)
    if isinstance(response, dict):
        message = str(response.get("Error", {}).get("Message") or "")
        said = f"{code}: {message}" if message and message != code else code
    return problem_line(doing, said, code)


def problem_line(doing: str, said: str, code: str) -> str:
    """What was tried, what went wrong, and the remedy for an error of that code."""
    said = "".join(one if one.isprintable() else "?" for one in " ".join(said.split()))[:_SAID_MAX].rstrip(".")
    remedy = REMEDIES.get(code) or _BY_TYPE.get(code) or "see what the service says about it, then start again"
    return f"can't {doing}: {said}; {remedy}"


@contextmanager
def aws_errors(
    doing: str, becomes: Callable[[str, str], BackfillError] = lambda text, code: AwsError(text, code=code)
) -> Iterator[None]:
    """Whatever boto3 raises in the block becomes one error of the tree.

    Args:
        doing: as of `problem_text`.
        becomes: line and code to error.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        said = becomes(problem_text(error, doing), error_code(error))
        if isinstance(said, AwsError):
            said.may_have_happened = _may_have_happened(error)
        raise said from error


def _may_have_happened(error: Exception) -> bool:
    """Whether a request may have been carried out, or may be yet: unless it was refused at its one and only try.

    boto3 tries again by itself, and what it raises in the end is about the last try: an earlier one that got no answer
    may be on its way still. A refusal is an answer of the 400s, but 409 (another try is under way, perhaps one's own)
    and RequestTimeout (the service gave up reading, which says nothing of a proxy before it). A request that was never
    sent can't have happened either.
    """
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):
        told = response.get("ResponseMetadata", {})
        status = int(told.get("HTTPStatusCode", 400))
        is_answer = status != 409 and status < 500 and error_code(error) != "RequestTimeout"
        return bool(told.get("RetryAttempts")) or not is_answer
    return error_code(error) not in _NEVER_SENT
