"""Accounts of the reference PDS, written and read over XRPC with nothing but the standard library."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlencode, urlsplit

from backfill_dagster_tests.reference.servers import ReferenceServers

WRITES_MAX = 200
"""Of one applyWrites."""

Json = dict[str, Any]


class Xrpc:
    """One keep-alive connection to the PDS, in one person's name."""

    def __init__(self, origin: str, authorization: str = "") -> None:
        self._connection = HTTPConnection(urlsplit(origin).netloc, timeout=30)
        self._headers = {"Authorization": authorization} if authorization else {}

    def get(self, nsid: str, **parameters: object) -> Any:
        return self._call("GET", f"{nsid}?{urlencode(parameters)}", None, {})

    def post(self, nsid: str, body: Mapping[str, Any] | None = None) -> Any:
        if body is None:
            return self._call("POST", nsid, None, {})
        return self._call("POST", nsid, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def upload(self, nsid: str, data: bytes, mime_type: str) -> Any:
        return self._call("POST", nsid, data, {"Content-Type": mime_type})

    def _call(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Any:
        self._connection.request(method, f"/xrpc/{path}", body, {**self._headers, **headers})
        response = self._connection.getresponse()
        text = response.read()
        assert response.status == 200, f"{path}: {response.status} {text[:500]!r}"
        is_json = response.headers.get_content_type() == "application/json"
        return json.loads(text) if is_json else text


class Account:
    """An account with a session.

    Attributes:
        did: its DID, in the reference PLC directory.
        handle: under `.test`.
        xrpc: in its own name.
    """

    def __init__(self, servers: ReferenceServers, name: str) -> None:
        # Plain words may be reserved by the PDS (`editor`, `friend`).
        self.handle = f"the-{name}.test"
        body = {"handle": self.handle, "email": f"{name}@example.com", "password": "a password"}
        session = Xrpc(servers.pds_url).post("com.atproto.server.createAccount", body)
        self.did: str = session["did"]
        self.xrpc = Xrpc(servers.pds_url, f"Bearer {session['accessJwt']}")

    def create(self, collection: str, record: Json, rkey: str | None = None, *, validate: bool | None = None) -> Json:
        """com.atproto.repo.createRecord; returns `{uri, cid}` (a strong reference)."""
        said = self.xrpc.post("com.atproto.repo.createRecord", self._write(collection, record, rkey, validate))
        return {"uri": said["uri"], "cid": said["cid"]}

    def put(self, collection: str, rkey: str, record: Json) -> None:
        """com.atproto.repo.putRecord: create or replace."""
        self.xrpc.post("com.atproto.repo.putRecord", self._write(collection, record, rkey, None))

    def delete(self, uri: str) -> None:
        """com.atproto.repo.deleteRecord."""
        collection, rkey = uri.split("/")[3:]
        body = {"repo": self.did, "collection": collection, "rkey": rkey}
        self.xrpc.post("com.atproto.repo.deleteRecord", body)

    def create_all(self, collection: str, records: Iterable[Json]) -> None:
        """Records under keys that the PDS chooses."""
        self.apply([{"$type": "create", "collection": collection, "value": record} for record in records])

    def apply(self, writes: list[Json], *, validate: bool = True) -> None:
        """com.atproto.repo.applyWrites, as often as needed; writes of `$type` create, update or delete."""
        for start in range(0, len(writes), WRITES_MAX):
            full = [
                {**write, "$type": f"com.atproto.repo.applyWrites#{write['$type']}"}
                for write in writes[start : start + WRITES_MAX]
            ]
            body = {"repo": self.did, "writes": full} | ({} if validate else {"validate": False})
            self.xrpc.post("com.atproto.repo.applyWrites", body)

    def _write(self, collection: str, record: Json, rkey: str | None, validate: bool | None) -> Json:
        body = {"repo": self.did, "collection": collection, "rkey": rkey, "record": record, "validate": validate}
        return {name: value for name, value in body.items() if value is not None}


def move(servers: ReferenceServers, account: Account, endpoint: str) -> None:
    """Migrate an account to another PDS, step by step as https://atproto.com/guides/account-migration has it."""
    lxm = "com.atproto.server.createAccount"
    proof = account.xrpc.get("com.atproto.server.getServiceAuth", aud="did:web:localhost", lxm=lxm)["token"]
    body = {
        "did": account.did,
        "handle": account.handle,
        "email": f"{account.handle}@example.com",
        "password": "a password",
    }
    session = Xrpc(endpoint, f"Bearer {proof}").post(lxm, body)
    there = Xrpc(endpoint, f"Bearer {session['accessJwt']}")
    repo = account.xrpc.get("com.atproto.sync.getRepo", did=account.did)
    there.upload("com.atproto.repo.importRepo", repo, "application/vnd.ipld.car")
    wanted = there.get("com.atproto.identity.getRecommendedDidCredentials")
    servers.move_in_directory(account.did, endpoint, wanted["verificationMethods"]["atproto"])
    there.post("com.atproto.server.activateAccount")
    account.xrpc.post("com.atproto.server.deactivateAccount", {})
    account.xrpc = there


def import_anew(servers: ReferenceServers, account: Account) -> None:
    """Let the first PDS have an account as one that moved in: away, forgotten, and back by importRepo."""
    for there, here in ((servers.second_pds(), servers.pds_url), (servers.pds_url, servers.second_pds())):
        move(servers, account, there)
        admin(servers, here).post("com.atproto.admin.deleteAccount", {"did": account.did})


def admin(servers: ReferenceServers, origin: str | None = None) -> Xrpc:
    """A PDS, by default the first, in its operator's name."""
    token = base64.b64encode(f"admin:{servers.admin_password}".encode()).decode()
    return Xrpc(origin or servers.pds_url, f"Basic {token}")


def take_down(servers: ReferenceServers, subject: Json) -> None:
    """A takedown of an account (`{did}`) or of one record (`{uri, cid}`)."""
    kind = "com.atproto.admin.defs#repoRef" if "did" in subject else "com.atproto.repo.strongRef"
    body = {"subject": {**subject, "$type": kind}, "takedown": {"applied": True, "ref": "test"}}
    admin(servers).post("com.atproto.admin.updateSubjectStatus", body)
