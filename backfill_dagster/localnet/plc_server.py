"""The PLC directory and the did:web servers: who an account is, by its DID.

Source: https://web.plc.directory/api/redoc
"""

from __future__ import annotations

from urllib.parse import unquote

from backfill_dagster.localnet.accounts import Identity
from backfill_dagster.localnet.replies import Reply, json_reply
from backfill_dagster.localnet.world import World

WELL_KNOWN = "/.well-known/did.json"


def split_path(path: str) -> tuple[str, str]:
    """DID and the path with `{did}` in its place: `/did:plc:abc/data` -> (`did:plc:abc`, `/{did}/data`)."""
    first, slash, rest = unquote(path).lstrip("/").partition("/")
    return (first, "/{did}" + slash + rest) if first.startswith("did:") else ("", path)


def answer_plc(world: World, did: str, path: str) -> Reply:
    """The PLC directory's answer.

    Args:
        world: the network's truth.
        did: from the path, empty when there is none.
        path: as of `split_path`.
    """
    if path == "/_health":
        return json_reply({"version": "localnet"})
    account = world.accounts.get(did)
    if account is None or account.web_port is not None or account.identity is Identity.UNKNOWN:
        return json_reply({"message": f"DID not registered: {did}"}, 404)
    if account.identity is Identity.TOMBSTONED:
        return json_reply({"message": f"DID not available: {did}"}, 410)
    if path == "/{did}":
        return Reply(200, json_reply(world.document(account)).body, "application/did+ld+json")
    if path == "/{did}/data":
        return json_reply(world.plc_data(account))
    return json_reply({"message": "Not Found"}, 404)


def answer_web(world: World, did: str, path: str) -> Reply:
    """What a did:web account's own server says at its well-known path."""
    account = world.accounts[did]
    if path != WELL_KNOWN or account.identity is Identity.UNKNOWN:
        return Reply(404, b"not found", "text/plain")
    if account.identity is Identity.TOMBSTONED:
        return Reply(410, b"gone", "text/plain")
    return json_reply(world.document(account))
