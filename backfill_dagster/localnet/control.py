"""The control endpoint: JSON over HTTP that changes the network while it runs and says what it has seen.

Every route is a POST with a JSON object, or a GET; the routes and their fields are in README.md.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import cbrrr
import libipld
import orjson
from aiohttp import web

from backfill_dagster.errors import UsageError
from backfill_dagster.localnet.accounts import Account, HostStatus, Identity
from backfill_dagster.localnet.faults import FaultTable, parse_faults
from backfill_dagster.localnet.generate import RECORD_CLOCK_ID
from backfill_dagster.localnet.repo_writer import RepoBytes
from backfill_dagster.localnet.tids import clock_text, tid
from backfill_dagster.localnet.traffic import Traffic
from backfill_dagster.localnet.world import World

Json = dict[str, Any]


class Control:
    """What the control endpoint does; usable without HTTP by tests in the same process.

    Args:
        world: the network's truth.
        faults: the faults in force.
        traffic: the request counters.
        apply_faults: takes hosts down and up as the faults say.
    """

    def __init__(
        self, world: World, faults: FaultTable, traffic: Traffic, apply_faults: Callable[[], Awaitable[None]]
    ) -> None:
        self._world = world
        self._faults = faults
        self._traffic = traffic
        self._apply_faults = apply_faults
        self._posts: dict[str, Callable[[Json], Awaitable[Json]]] = {
            "/add": self.add,
            "/edit": self.edit,
            "/delete": self.delete,
            "/move": self.move,
            "/status": self.status,
            "/rotate_key": self.rotate_key,
            "/import_anew": self.import_anew,
            "/faults": self.set_faults,
            "/requests/reset": self.reset_requests,
        }
        self._gets: dict[str, Callable[[Mapping[str, str]], Json]] = {
            "/state": self.state,
            "/account": lambda query: self.describe(query.get("did", "")),
            "/requests": lambda _: {"requests": traffic.counts()},
            "/faults": lambda _: {"faults": [fault.to_json() for fault in faults.faults]},
            "/_health": lambda _: {"version": "localnet"},
        }

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """The HTTP handler: 200 with JSON, 400 with `{"error"}` for what can't be done, 404 for another route."""
        try:
            if request.method == "POST" and request.path in self._posts:
                answer = await self._posts[request.path](await _json_object(request))
            elif request.method == "GET" and request.path in self._gets:
                answer = self._gets[request.path](request.query)
            else:
                routes = ", ".join([*(f"POST {p}" for p in self._posts), *(f"GET {p}" for p in self._gets)])
                return web.json_response({"error": f"no such route; there are {routes}"}, status=404)
        except UsageError as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.Response(body=orjson.dumps(answer), content_type="application/json")

    async def add(self, body: Json) -> Json:
        """Add records in one commit: `{did, records: [{collection, rkey?, record | block_base64}]}`."""
        did, rows = _text(body, "did"), body.get("records")
        if not isinstance(rows, list) or not rows:
            raise UsageError("add needs records: a list of {collection, rkey?, record}")
        self._world.account(did)
        at_us = self._world.next_commit_us(did)
        changes: dict[str, bytes | None] = {}
        for number, row in enumerate(rows):
            collection = _text(row, "collection")
            made_up = tid(at_us - 1_000 * (len(rows) - number), RECORD_CLOCK_ID)
            rkey = _text(row, "rkey") if "rkey" in row else made_up
            changes[f"{collection}/{rkey}"] = _block(row, collection, at_us)
        return self._commit(did, changes)

    async def edit(self, body: Json) -> Json:
        """Write one record under a known key: `{did, collection, rkey, record | block_base64}`."""
        did, collection = _text(body, "did"), _text(body, "collection")
        self._world.account(did)
        block = _block(body, collection, self._world.next_commit_us(did))
        return self._commit(did, {f"{collection}/{_text(body, 'rkey')}": block})

    async def delete(self, body: Json) -> Json:
        """Delete records in one commit: `{did, collection, rkey}`, or `{did, keys: ["<collection>/<rkey>"]}`."""
        keys = body.get("keys") or [f"{_text(body, 'collection')}/{_text(body, 'rkey')}"]
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise UsageError("keys is a list of texts <collection>/<rkey>")
        return self._commit(_text(body, "did"), dict.fromkeys(keys))

    async def move(self, body: Json) -> Json:
        """Move an account: `{did, to: host number or URL, when: "now" | "on_get_repo"}`."""
        did, to = _text(body, "did"), body.get("to")
        if isinstance(to, str) and to in self._world.host_urls:
            to = self._world.host_urls.index(to)
        if not isinstance(to, int) or body.get("when", "now") not in ("now", "on_get_repo"):
            raise UsageError('move needs to: a host number or URL; when is "now" or "on_get_repo"')
        self._world.move(did, to, on_get_repo=body.get("when") == "on_get_repo")
        return self.describe(did)

    async def status(self, body: Json) -> Json:
        """Change what is said of an account: `{did, status}`, of `HostStatus` or (not active ones) `Identity`."""
        account, status = self._world.account(_text(body, "did")), _text(body, "status")
        if status in list(HostStatus):
            account.status = HostStatus(status)
        elif status not in list(Identity):
            raise UsageError(f"unknown status {status!r}: one of {', '.join([*HostStatus, *Identity])}")
        account.identity = Identity(status) if status in list(Identity) else Identity.RESOLVES
        return self.describe(account.did)

    async def rotate_key(self, body: Json) -> Json:
        """Give an account a new key: `{did, sign_again: true}`; false leaves the commit signed by the old one."""
        key = self._world.rotate_key(_text(body, "did"), sign_again=body.get("sign_again") is not False)
        return {**self.describe(_text(body, "did")), "key": key.did_key}

    async def import_anew(self, body: Json) -> Json:
        """Have the repo imported by its host: `{did, sign_again: true}`; false keeps the commit as it was imported."""
        self._world.import_anew(_text(body, "did"), sign_again=body.get("sign_again") is not False)
        return self.describe(_text(body, "did"))

    async def set_faults(self, body: Json) -> Json:
        """Put faults in force: `{faults: [...], replace: false}`; an empty list with replace clears them."""
        faults = parse_faults(body.get("faults"))
        if body.get("replace") is True:
            self._faults.clear()
        self._faults.add(faults)
        await self._apply_faults()
        return {"faults": [fault.to_json() for fault in self._faults.faults]}

    async def reset_requests(self, body: Json) -> Json:
        """Begin to count requests anew."""
        self._traffic.reset()
        return {}

    def state(self, query: Mapping[str, str]) -> Json:
        """Everything: accounts, what is expected now, faults, requests."""
        return {
            "hosts": [{"url": url, "dids": self._world.named(n)} for n, url in enumerate(self._world.host_urls)],
            "accounts": {account.did: _account_json(account) for account in self._world.accounts.values()},
            "expected": self._world.expected(),
            "faults": [fault.to_json() for fault in self._faults.faults],
            "requests": self._traffic.counts(),
        }

    def describe(self, did: str) -> Json:
        """One account with its repo's commit (made for this if need be)."""
        account = self._world.account(did)
        repo = self._world.shelf.get(did)
        return {
            "did": did,
            **_account_json(account),
            "host_url": self._world.host_urls[account.host],
            "commit": libipld.encode_cid(repo.root),
            "rev": repo.rev,
            "key": account.key.did_key,
            "expected": self._world.expected_of(account),
        }

    def _commit(self, did: str, changes: Mapping[str, bytes | None]) -> Json:
        repo: RepoBytes = self._world.change_records(did, changes)
        commit = libipld.encode_cid(repo.root)
        return {"did": did, "commit": commit, "rev": repo.rev, "uris": [f"at://{did}/{key}" for key in changes]}


async def _json_object(request: web.Request) -> Json:
    try:
        body = orjson.loads(await request.read() or b"{}")
    except orjson.JSONDecodeError as error:
        raise UsageError(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise UsageError("the body is not a JSON object")
    return body


def _text(body: object, name: str) -> str:
    value = body.get(name) if isinstance(body, dict) else None
    if not isinstance(value, str) or not value:
        raise UsageError(f"needs {name!r}, a text")
    return value


def _block(row: Json, collection: str, at_us: int) -> bytes:
    """The block of a record given as JSON (with `$link` and `$bytes`), or as any bytes in base64."""
    try:
        if "block_base64" in row:
            return base64.b64decode(row["block_base64"], validate=True)
        record = row["record"]
        if isinstance(record, dict):
            record = {"$type": collection, "createdAt": clock_text(at_us) + "Z", **record}
            record = {name: value for name, value in record.items() if value is not None}
        return cbrrr.encode_dag_cbor(record, atjson_mode=True)
    except (KeyError, ValueError, TypeError) as error:
        raise UsageError(f"a record is `record` (JSON) or `block_base64`: {error!r}") from error


def _account_json(account: Account) -> Json:
    return {
        "handle": account.handle,
        "host": account.host,
        "named_host": account.named_host,
        "flips": account.flips,
        "status": account.status.value,
        "identity": account.identity.value,
    }
