"""One PDS host: the XRPC methods that a backfill may ask, answered as the reference PDS does.

Source: https://github.com/bluesky-social/atproto/tree/main/lexicons/com/atproto
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping

import cbrrr
import libipld

from backfill_dagster.localnet.accounts import Account, HostStatus
from backfill_dagster.localnet.faults import GET_REPO
from backfill_dagster.localnet.replies import CAR_CONTENT_TYPE, Reply, json_reply, xrpc_error
from backfill_dagster.localnet.repo_writer import RepoBytes, blocks_of, keys_of
from backfill_dagster.localnet.world import World

Query = Mapping[str, str]

_DID = re.compile(r"did:[a-z]+:[a-zA-Z0-9._:%-]*[a-zA-Z0-9._-]")
_TID = re.compile(r"[234567abcdefghij][234567abcdefghijklmnopqrstuvwxyz]{12}")
_REFUSALS = {
    HostStatus.DEACTIVATED: ("RepoDeactivated", "deactivated"),
    HostStatus.SUSPENDED: ("RepoSuspended", "suspended"),
    HostStatus.TAKENDOWN: ("RepoTakendown", "taken down"),
}


class _Refused(Exception):  # noqa: N818 - an answer, not an error
    def __init__(self, reply: Reply) -> None:
        super().__init__(reply)
        self.reply = reply


class PdsHost:
    """The answers of one host.

    Args:
        world: the network's truth.
        number: of the host.
    """

    def __init__(self, world: World, number: int) -> None:
        self._world = world
        self._number = number
        self._making: dict[str, asyncio.Task[RepoBytes]] = {}
        self._methods: dict[str, Callable[[Query], Awaitable[Reply]]] = {
            GET_REPO: self._get_repo,
            "com.atproto.sync.getRepoStatus": self._get_repo_status,
            "com.atproto.sync.getLatestCommit": self._get_latest_commit,
            "com.atproto.sync.listRepos": self._list_repos,
            "com.atproto.repo.listRecords": self._list_records,
            "com.atproto.repo.describeRepo": self._describe_repo,
            "com.atproto.identity.resolveHandle": self._resolve_handle,
            "com.atproto.server.describeServer": self._describe_server,
        }

    async def answer(self, method: str, query: Query) -> Reply:
        """Answer one request by its XRPC method; `_health` is one too."""
        if method in ("_health", "/_health"):
            return json_reply({"version": "localnet"})
        if method not in self._methods:
            return xrpc_error("MethodNotImplemented", "Method Not Implemented", 501)
        try:
            return await self._methods[method](query)
        except _Refused as refused:
            return refused.reply

    async def repo(self, did: str) -> RepoBytes:
        """The repo of an account, made in a thread if it has to be."""
        shelf = self._world.shelf
        if shelf.has(did):
            return shelf.get(did)
        if did not in self._making:
            self._making[did] = asyncio.create_task(asyncio.to_thread(self._world.make_repo, did))
        try:
            made = await asyncio.shield(self._making[did])
        finally:
            self._making.pop(did, None)
        shelf.keep(did, made)
        return shelf.get(did)

    def _account(self, did: str) -> Account:
        """The account, if this host has it in whatever state but deleted."""
        if _DID.fullmatch(did) is None:
            raise _Refused(xrpc_error("InvalidRequest", "Error: Params must have the property did, a valid DID"))
        account = self._world.accounts.get(did)
        if account is None or account.host != self._number or account.status is HostStatus.DELETED:
            raise _Refused(xrpc_error("RepoNotFound", f"Could not find repo for DID: {did}"))
        return account

    def _served(self, did: str) -> Account:
        """The account, if this host serves its repo."""
        account = self._account(did)
        if account.status in _REFUSALS:
            name, words = _REFUSALS[account.status]
            raise _Refused(xrpc_error(name, f"Repo has been {words}: {did}"))
        if account.status is not HostStatus.ACTIVE:
            raise _Refused(xrpc_error("InternalServerError", f"Repo is {account.status}", 500))
        return account

    async def _get_repo(self, query: Query) -> Reply:
        did, since = query.get("did", ""), query.get("since") or None
        if did in self._world.accounts:
            self._world.repo_asked_at(self._world.accounts[did], self._number)
        account = self._served(did)
        if since is not None and _TID.fullmatch(since) is None:
            raise _Refused(xrpc_error("InvalidRequest", "Error: since must be a valid TID"))
        repo = await self.repo(account.did)
        return Reply(200, repo.car(since), CAR_CONTENT_TYPE, chunked=True)

    async def _get_repo_status(self, query: Query) -> Reply:
        account = self._account(query.get("did", ""))
        if account.status is HostStatus.ACTIVE:
            repo = await self.repo(account.did)
            return json_reply({"did": account.did, "active": True, "rev": repo.rev})
        return json_reply({"did": account.did, "active": False, "status": account.status.value})

    async def _get_latest_commit(self, query: Query) -> Reply:
        repo = await self.repo(self._served(query.get("did", "")).did)
        return json_reply({"cid": libipld.encode_cid(repo.root), "rev": repo.rev})

    async def _list_repos(self, query: Query) -> Reply:
        limit, cursor = _limit(query, 500, 1000), query.get("cursor", "")
        page = [a for a in self._world.on_host(self._number) if a.did > cursor][: limit + 1]
        repos = []
        for account in page[:limit]:
            repo = await self.repo(account.did)
            active = account.status is HostStatus.ACTIVE
            status = {} if active else {"status": account.status.value}
            head = libipld.encode_cid(repo.root)
            repos.append({"did": account.did, "head": head, "rev": repo.rev, "active": active, **status})
        more = {"cursor": repos[-1]["did"]} if len(page) > limit else {}
        return json_reply({**more, "repos": repos})

    async def _list_records(self, query: Query) -> Reply:
        account = self._served(self._did_of(query.get("repo", "")))
        collection, limit = query.get("collection", ""), _limit(query, 50, 100)
        if not collection:
            raise _Refused(xrpc_error("InvalidRequest", 'Error: Params must have the property "collection"'))
        repo = await self._walkable(account)
        blocks = blocks_of(repo)
        found = [
            (k.partition("/")[2], cid)
            for k, cid in keys_of(repo.root, blocks).items()
            if k.startswith(f"{collection}/")
        ]
        ascending = query.get("reverse") == "true"
        found.sort(reverse=not ascending)
        cursor = query.get("cursor")
        if cursor:
            found = [row for row in found if (row[0] > cursor if ascending else row[0] < cursor)]
        records = [
            {
                "uri": f"at://{account.did}/{collection}/{rkey}",
                "cid": libipld.encode_cid(cid),
                "value": cbrrr.decode_dag_cbor(blocks[cid].block, atjson_mode=True),
            }
            for rkey, cid in found[:limit]
        ]
        more = {"cursor": found[:limit][-1][0]} if records else {}
        return json_reply({"records": records, **more})

    async def _describe_repo(self, query: Query) -> Reply:
        account = self._served(self._did_of(query.get("repo", "")))
        repo = await self._walkable(account)
        keys = keys_of(repo.root, blocks_of(repo))
        return json_reply(
            {
                "handle": account.handle,
                "did": account.did,
                "didDoc": self._world.document(account),
                "collections": sorted({key.partition("/")[0] for key in keys}),
                "handleIsCorrect": True,
            }
        )

    async def _resolve_handle(self, query: Query) -> Reply:
        account = self._world.by_handle(query.get("handle", ""))
        if account is None:
            return xrpc_error("HandleNotFound", "Unable to resolve handle")
        return json_reply({"did": account.did})

    async def _describe_server(self, query: Query) -> Reply:
        return json_reply({"did": "did:web:localhost", "availableUserDomains": [".test"], "inviteCodeRequired": False})

    async def _walkable(self, account: Account) -> RepoBytes:
        repo = await self.repo(account.did)
        if repo.verbatim:
            raise _Refused(xrpc_error("MethodNotImplemented", "Served from a CAR file: only sync methods", 501))
        return repo

    def _did_of(self, repo: str) -> str:
        account = None if repo.startswith("did:") else self._world.by_handle(repo)
        return repo if account is None else account.did


def _limit(query: Query, default: int, most: int) -> int:
    """The `limit` parameter; a refusal when it is out of bounds."""
    text = query.get("limit", str(default))
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= most:
        raise _Refused(xrpc_error("InvalidRequest", f"Error: limit must be 1 to {most}"))
    return int(text)
