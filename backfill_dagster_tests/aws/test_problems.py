"""Errors of pyarrow's S3 client: what they are called by the service, and its remedy."""

from __future__ import annotations

import pytest

from backfill_dagster.aws import arrow_problem_text


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            "When reading information for key 'a' in bucket 'b': AWS Error UNKNOWN (HTTP status 400) during HeadObject "
            "operation: Unable to parse ExceptionName: ExpiredToken Message: The provided token has expired.",
            "can't read it: ExpiredToken: The provided token has expired; the credentials have expired: log in again",
        ),
        (
            "AWS Error UNKNOWN (HTTP status 400) during GetObject operation: Unable to parse ExceptionName: "
            "ExpiredToken Message: The provided token has expired.\n\nLINE 1: FROM source",
            "can't read it: ExpiredToken: The provided token has expired; the credentials have expired: log in again",
        ),
        (
            "AWS Error UNKNOWN (HTTP status 400) during GetObject operation: Unable to parse ExceptionName: "
            "ExpiredToken Message: ",
            "can't read it: ExpiredToken; the credentials have expired: log in again",
        ),
        (
            "AWS Error UNKNOWN (HTTP status 400) during HeadObject operation: No response body.",
            "can't read it: 400; see what the service says about it, then start again",
        ),
        (
            "AWS Error ACCESS_DENIED during GetObject operation: Access Denied",
            "can't read it: AccessDenied: Access Denied; deploy/aws/ has a policy with what is needed: see that it is "
            "attached, or whose credentials these are",
        ),
        (
            "AWS Error [code 136] during GetObject operation: "
            "The operation is not valid for the object's storage class",
            "can't read it: InvalidObjectState: The operation is not valid for the object's storage class; "
            "the object is archived: restore it first",
        ),
        (
            "AWS Error [code 136] during GetObject operation: InvalidObjectState (no words)",
            "can't read it: InvalidObjectState: InvalidObjectState (no words); "
            "the object is archived: restore it first",
        ),
        (
            "AWS Error [code 99] during GetObject operation: Something new.",
            "can't read it: error 99: Something new; see what the service says about it, then start again",
        ),
        (
            "AWS Error UNKNOWN (HTTP status 400) during GetObject operation: Unable to parse ExceptionName: "
            "KMS.DisabledException Message: key/k is disabled.",
            "can't read it: KMS.DisabledException: key/k is disabled; "
            "the key that the object is encrypted with is turned off: turn it on",
        ),
        (
            "When reading it: AWS Error of a kind that nobody knows",
            "can't read it: of a kind that nobody knows; see what the service says about it, then start again",
        ),
        ("AWS Error", "can't read it: no reason given; see what the service says about it, then start again"),
        ("Conversion Error: Could not convert string 'AWS Error' to INT32", None),
        ("Not a regular file", None),
    ],
)
def test_what_pyarrow_says(error: str, text: str | None) -> None:
    assert arrow_problem_text(OSError(error), "read it") == text
