"""The five questions of data.md, asked as it says."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import pytest

from backfill_dagster.ledger import ShardSummary
from backfill_dagster.ledger.dynamodb_items import BUCKETS
from backfill_dagster.model import Outcome
from backfill_dagster_tests.ledger.contract import OTHER, SHARD, item, lease
from backfill_dagster_tests.ledger.dynamodb_tables import client_of, open_ledger, table_name
from backfill_dagster_tests.repository import ROOT

pytestmark = pytest.mark.usefixtures("aws_environ", "no_backoff")

QUERIES = re.findall(r"(?m)^aws dynamodb query (.*)$", (ROOT / "docs" / "data.md").read_text(encoding="utf-8"))


def parameters(line: str) -> dict[str, Any]:
    """What boto3 takes for a command line of AWS' tool."""
    words, found = shlex.split(line), {}
    while words:
        name = "".join(part.title() for part in words.pop(0).removeprefix("--").split("-"))
        flag = not words or words[0].startswith("--")
        value = True if flag else words.pop(0)
        found[name] = json.loads(value) if isinstance(value, str) and value.startswith("{") else value
    return found


@pytest.mark.parametrize("server", ["ministack", "dynalite"])
def test_the_five_questions(request: pytest.FixtureRequest, server: str) -> None:
    url, table = request.getfixturevalue(server), table_name()
    ledger = open_ledger(url, table)
    ledger.put([item(f"did:plc:{number}", 1, Outcome.HTTP_ERROR) for number in range(30)])
    ledger.put([item("did:plc:abc", 1), item("did:plc:abc", 1, shard=OTHER)])
    ledger.put_summary(SHARD, ShardSummary(outcomes={"complete": 1, "http_error": 30}, seq=1))
    for one in (lease(), lease(name="study/free", released=True)):
        ledger.leases.compare_and_set(one.name, None, one)

    def ask(number: int, **changes: Any) -> list[dict[str, Any]]:
        asked = parameters(QUERIES[number]) | {"TableName": table} | changes
        items: list[dict[str, Any]] = client_of(url).query(**asked)["Items"]
        return items

    assert len(QUERIES) == 5
    assert len(ask(0)) == 31
    assert sorted(one["pk"]["S"] for one in ask(1)) == [f"study#{SHARD}", f"study#{OTHER}"]
    buckets = [{":a": {"S": f"study#http_error#{bucket}"}} for bucket in range(BUCKETS)]
    found = [one["did"]["S"] for values in buckets for one in ask(2, ExpressionAttributeValues=values)]
    assert sorted(found) == sorted(f"did:plc:{number}" for number in range(30))
    [summary] = ask(3)
    assert summary["outcomes"] == {"M": {"complete": {"N": "1"}, "http_error": {"N": "30"}}}
    assert [one["name"]["S"] for one in ask(4)] == [lease().name]
