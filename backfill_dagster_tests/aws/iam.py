"""What AWS would ask its policies: requests as actions on resources, and statements as IAM reads them.

https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backfill_dagster_tests.aws.proxy import Seen

ACCOUNT = "123456789012"


@dataclass(frozen=True)
class Asked:
    """Attributes: the action; the ARN of what it is done to; `s3:prefix`, where the action has that key."""

    action: str
    resource: str
    prefix: str | None = None


@dataclass(frozen=True)
class Statement:
    """One of a policy, with its placeholders filled in."""

    sid: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    prefixes: tuple[str, ...] | None
    """Patterns of `s3:prefix`; None: no condition."""

    def allows(self, asked: Asked) -> bool:
        if not any(_matches(action.lower(), asked.action.lower()) for action in self.actions):
            return False
        if not any(_matches(resource, asked.resource) for resource in self.resources):
            return False
        # A condition on a key that the request doesn't have is not met.
        return self.prefixes is None or (
            asked.prefix is not None and any(_matches(one, asked.prefix) for one in self.prefixes)
        )


def read_policy(path: Path, names: Mapping[str, str]) -> list[Statement]:
    """The statements of a policy file.

    Args:
        path: JSON.
        names: placeholder -> what takes its place.
    """
    text = path.read_text(encoding="utf-8")
    for placeholder, value in names.items():
        text = re.sub(rf"(?<![A-Z_]){placeholder}(?![A-Z])", value, text)
    policy = json.loads(text)
    assert policy["Version"] == "2012-10-17"
    assert len(re.sub(r"\s", "", text)) < 6144, "no managed policy may be longer"
    return [_statement(one) for one in policy["Statement"]]


def _statement(found: Mapping[str, Any]) -> Statement:
    assert set(found) <= {"Sid", "Effect", "Action", "Resource", "Condition"}
    assert found["Effect"] == "Allow"
    assert re.fullmatch("[A-Za-z0-9]+", found["Sid"])
    condition = found.get("Condition")
    prefixes = None
    if condition is not None:
        assert {operator: set(keys) for operator, keys in condition.items()} == {"StringLike": {"s3:prefix"}}
        prefixes = tuple(condition["StringLike"]["s3:prefix"])
    return Statement(found["Sid"], tuple(found["Action"]), tuple(found["Resource"]), prefixes)


def _matches(pattern: str, value: str) -> bool:
    regex = "".join({"*": ".*", "?": "."}.get(one, re.escape(one)) for one in pattern)
    return re.fullmatch(regex, value, re.DOTALL) is not None


def asked_of_dynamodb(seen: Seen, region: str) -> Iterator[Asked]:
    """What a request to DynamoDB has need of."""
    tables = [seen.body["TableName"]] if "TableName" in seen.body else list(seen.body["RequestItems"])
    for table in tables:
        arn = f"arn:aws:dynamodb:{region}:{ACCOUNT}:table/{table}"
        if "IndexName" in seen.body:
            arn += f"/index/{seen.body['IndexName']}"
        yield Asked(f"dynamodb:{seen.target}", arn)


def asked_of_s3(seen: Seen) -> Iterator[Asked]:
    """What a request to S3 has need of, in path style."""
    bucket, _, key = seen.path.lstrip("/").partition("/")
    if not key:
        yield _of_bucket(seen, f"arn:aws:s3:::{bucket}")
        return
    action = _of_object(seen)
    yield Asked(action, f"arn:aws:s3:::{bucket}/{key}")
    if action == "s3:GetObject":
        # Whether a missing object is "404" or "403" depends on who may list its key.
        yield Asked("s3:ListBucket", f"arn:aws:s3:::{bucket}", key)


def _of_bucket(seen: Seen, arn: str) -> Asked:
    if seen.method == "GET" and "uploads" in seen.query:
        return Asked("s3:ListBucketMultipartUploads", arn)  # an action without the key s3:prefix
    assert seen.method == "GET", seen
    assert seen.query.get("list-type") == "2", seen
    return Asked("s3:ListBucket", arn, seen.query.get("prefix"))


def _of_object(seen: Seen) -> str:
    names = set(seen.query) - {"x-id"}
    if seen.method in ("GET", "HEAD") and not names:
        return "s3:GetObject"
    if seen.method == "PUT" and names in (set(), {"partNumber", "uploadId"}):
        return "s3:PutObject"
    if seen.method == "POST" and names in ({"uploads"}, {"uploadId"}):
        return "s3:PutObject"
    if seen.method == "DELETE" and names == {"uploadId"}:
        return "s3:AbortMultipartUpload"
    assert (seen.method, names) == ("DELETE", set()), f"what is that? {seen}"
    return "s3:DeleteObject"


def denied(asked: Iterable[Asked], statements: Iterable[Statement]) -> list[Asked]:
    """What no statement allows."""
    known = list(statements)
    return [one for one in dict.fromkeys(asked) if not any(statement.allows(one) for statement in known)]


def unused(asked: Iterable[Asked], statements: Iterable[Statement]) -> Iterator[tuple[str, str]]:
    """Every action, resource or prefix that a statement names and no request had need of."""
    done = set(asked)
    for statement in statements:
        used = [one for one in done if statement.allows(one)]
        for action in statement.actions:
            if not any(one.action == action for one in used):
                yield statement.sid, action
        for resource in statement.resources:
            if not any(_matches(resource, one.resource) for one in used):
                yield statement.sid, resource
        for prefix in statement.prefixes or ():
            if not any(one.prefix is not None and _matches(prefix, one.prefix) for one in used):
                yield statement.sid, prefix
