"""What has to be in the Parquet, by the PDS's own listRecords; and what is, by pyarrow alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from backfill_dagster.model import RepoOutcome
from backfill_dagster.state import BackfillState
from backfill_dagster_tests.reference.accounts import Json, Xrpc
from backfill_dagster_tests.reference.writes import BLOCK, FOLLOW, LIKE, POST, REPOST
from backfill_dagster_tests.road import Came

Records = dict[str, tuple[str, str]]
"""URI -> (CID, the whole record as JSON with sorted keys)."""

_PAGE = 100
_SHORT = {LIKE: "like", REPOST: "repost", FOLLOW: "follow", BLOCK: "block"}


def exactly(value: Any) -> str:
    """JSON text that is the same for the same value only: 1 and true differ, the order of keys doesn't count."""
    return json.dumps(value, sort_keys=True)


def listed_values(xrpc: Xrpc, dids: Iterable[str]) -> dict[str, Json]:
    """What describeRepo and listRecords show of repos: URI -> `{uri, cid, value}`."""
    found: dict[str, Json] = {}
    for did in dids:
        for collection in xrpc.get("com.atproto.repo.describeRepo", repo=did)["collections"]:
            page: Json = {"cursor": ""}
            while "cursor" in page:
                where = {"repo": did, "collection": collection, "limit": _PAGE}
                where |= {"cursor": page["cursor"]} if page["cursor"] else {}
                page = xrpc.get("com.atproto.repo.listRecords", **where)
                found.update({one["uri"]: one for one in page["records"]})
    return found


def as_records(listed: dict[str, Json]) -> Records:
    return {uri: (one["cid"], exactly(one["value"])) for uri, one in listed.items()}


def record_type(listed: Json) -> str:
    collection: str = listed["uri"].split("/")[3]
    if collection == POST:
        return "reply" if isinstance(listed["value"].get("reply"), dict) else "post"
    return _SHORT.get(collection, collection)


def counts_by_type(listed: Iterable[Json]) -> Counter[str]:
    return Counter(record_type(one) for one in listed)


def results(state: BackfillState, came: Came) -> dict[str, RepoOutcome]:
    """What the ledger says of each DID in its current shard; those without a host left out."""
    plan = came.planned.plan
    items = [state.ledger.item(shard, one.did) for shard in plan.shards() for one in plan.dids(shard)]
    return {item.result.did: item.result for item in items if item is not None}


def parquet_rows(state: BackfillState, folder: str = "records") -> list[Json]:
    """All rows of all parts under `records/` or `quarantine/`, with the part's record type."""
    return [
        {**row, "record_type": path.parent.name.removeprefix("record_type=")}
        for path in sorted((Path(str(state.config.state_path)) / folder).rglob("*.parquet"))
        for row in pq.ParquetFile(path).read().to_pylist()
    ]


def as_written(rows: list[Json]) -> Records:
    found = {row["uri"]: (row["cid"], exactly(json.loads(row["record"]))) for row in rows}
    assert len(found) == len(rows), "a URI is there twice"
    return found


def typed_columns(listed: Json) -> Json:
    """The columns that a row has beside the whole record, worked out from listRecords' JSON."""
    did, collection, rkey = listed["uri"].split("/")[2:]
    value, kind = listed["value"], record_type(listed)
    date = value.get("createdAt")
    columns = {"author": did, "collection": collection, "rkey": rkey, "record_type": kind}
    columns["created_at"] = date if isinstance(date, str) else None
    if kind in ("post", "reply"):
        return columns | _post_columns(value)
    if kind in ("like", "repost"):
        return columns | {
            "subject_uri": _in(value, "subject", "uri"),
            "subject_cid": _in(value, "subject", "cid"),
            "via_uri": _in(value, "via", "uri"),
        }
    return columns | ({"subject": value["subject"]} if kind in ("follow", "block") else {})


def _post_columns(value: Json) -> Json:
    columns: Json = {"text": value.get("text"), "embed_type": _in(value, "embed", "$type")}
    for name in ("langs", "tags"):
        texts = value.get(name)
        is_good = isinstance(texts, list) and all(isinstance(text, str) for text in texts)
        columns[name] = texts if is_good else None
    for name, kind in (("labels", dict), ("embed", dict), ("facets", list)):
        columns[name] = exactly(value[name]) if isinstance(value.get(name), kind) else None
    for end in ("parent", "root"):
        for part in ("uri", "cid"):
            columns[f"reply_{end}_{part}"] = _in(value, "reply", end, part)
    return columns


def _in(value: Any, *names: str) -> str | None:
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, str) else None
