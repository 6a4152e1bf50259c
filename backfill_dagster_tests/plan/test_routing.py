"""From a source's text and the directory's answer to a route."""

from __future__ import annotations

import pytest

from backfill_dagster.atproto.did_document import DidDocument
from backfill_dagster.errors import (
    BackfillError,
    InvalidDidDocumentError,
    NetworkError,
    NotFoundError,
    PermanentError,
    RefusedHostError,
    StateError,
)
from backfill_dagster.model import ERROR_DETAIL_MAX_BYTES, UNROUTABLE_SHARD, Outcome
from backfill_dagster.plan.routing import Candidates, Route, invalid, resolve_handles, route_of
from backfill_dagster.sources import SourceRow

DID = "did:plc:" + "a" * 24
ROW = SourceRow(DID, {"cohort": "b"})


def test_rows_are_told_apart_and_the_first_one_wins() -> None:
    texts = [
        DID,
        "did:web:example.com",
        "did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme",
        "Alice.Example.com",
        "alice.example.com",
        "did:plc:tooshort",
        "",
        "not a did",
        DID.upper(),
    ]
    rows = [SourceRow(text, {"n": str(number)}) for number, text in enumerate(texts)]
    found = Candidates.of([*rows, SourceRow(DID, {"n": "again"})])
    assert list(found.dids) == texts[:3]
    assert found.dids[DID].columns == {"n": "0"}
    assert {handle: row.columns["n"] for handle, row in found.handles.items()} == {"alice.example.com": "3"}
    assert list(found.neither) == [*texts[5:8], DID.upper()]
    assert found.count == 8
    assert Candidates.of([]).count == 0


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("", "the source's value is empty"),
        ("<script>", "'<script>' is not a DID (did:plc:… or did:web:…)"),
        ("x" * 200, f"'{'x' * 80}…' is not a DID (did:plc:… or did:web:…)"),
        ("two\nlines", "'two\\nlines' is not a DID (did:plc:… or did:web:…)"),
    ],
)
def test_what_is_neither(text: str, detail: str) -> None:
    route = invalid(SourceRow(text, {}))
    assert route.host == ""
    planned = route.planned
    assert (planned.did, planned.shard, planned.outcome) == (text, UNROUTABLE_SHARD, Outcome.INVALID_DID)
    assert (planned.error_code, planned.error_detail) == ("InvalidDid", detail)


@pytest.mark.parametrize(
    ("answer", "outcome", "code"),
    [
        (NetworkError("refused"), Outcome.PENDING, "DirectoryDown"),
        (RefusedHostError("private"), Outcome.REFUSED_HOST, "RefusedHost"),
        (NotFoundError("gone"), Outcome.UNRESOLVABLE, "NotFound"),
        (NotFoundError("gone", error_code="Tombstoned"), Outcome.UNRESOLVABLE, "Tombstoned"),
        (InvalidDidDocumentError("no PDS", error_code="NoPds"), Outcome.UNRESOLVABLE, "NoPds"),
        (PermanentError("what"), Outcome.UNRESOLVABLE, "InvalidDidDocument"),
        (DidDocument(DID, "a.example", "https://10.0.0.1", ""), Outcome.REFUSED_HOST, "RefusedHost"),
        (DidDocument(DID, "a.example", "ftp://example.com", ""), Outcome.REFUSED_HOST, "RefusedHost"),
        (DidDocument(DID, "a.example", "https://user@example.com/x?y", ""), Outcome.REFUSED_HOST, "RefusedHost"),
    ],
)
def test_no_host(answer: DidDocument | BackfillError, outcome: Outcome, code: str) -> None:
    route = route_of(DID, ROW, answer, allow_private_hosts=False)
    assert route.host == ""
    assert (route.planned.outcome, route.planned.error_code) == (outcome, code)
    assert route.planned.error_detail != ""
    assert route.planned.columns == {"cohort": "b"}


def test_a_long_reason_is_cut() -> None:
    route = route_of(DID, ROW, NotFoundError("long\n" * 1000), allow_private_hosts=False)
    assert len(route.planned.error_detail.encode()) <= ERROR_DETAIL_MAX_BYTES
    assert "\n" not in route.planned.error_detail


@pytest.mark.parametrize(
    ("endpoint", "host", "url"),
    [
        ("https://PDS.Example.com", "pds.example.com", "https://pds.example.com"),
        ("https://pds.example.com:443/", "pds.example.com", "https://pds.example.com"),
        ("https://pds.example.com:8443", "pds.example.com_8443", "https://pds.example.com:8443"),
        ("http://pds.example.com", "pds.example.com_80", "http://pds.example.com:80"),
        ("https://bücher.example", "xn--bcher-kva.example", "https://xn--bcher-kva.example"),
    ],
)
def test_a_host(endpoint: str, host: str, url: str) -> None:
    route = route_of(DID, ROW, DidDocument(DID, "a.example", endpoint, "did:key:z"), allow_private_hosts=False)
    assert (route.host, route.planned.pds_endpoint) == (host, url)
    assert (route.planned.handle, route.planned.signing_key) == ("a.example", "did:key:z")
    assert (route.planned.shard, route.planned.outcome) == ("", None)


def test_what_is_about_no_single_did_is_raised() -> None:
    with pytest.raises(StateError):
        route_of(DID, ROW, StateError("the cache is broken"), allow_private_hosts=False)


class FakeResolver:
    """Answers by handle."""

    async def resolve_handle(self, handle: str) -> str:
        if handle.startswith("down"):
            raise NetworkError("no answer")
        if handle.startswith("nobody"):
            raise NotFoundError("no such handle")
        return DID


async def test_handles() -> None:
    rows = {name: SourceRow(name, {}) for name in ("alice.example", "down.example", "nobody.example")}
    resolver: object = FakeResolver()
    found = {h: answer async for h, _, answer in resolve_handles(rows, resolver)}  # type: ignore[arg-type]
    assert found.pop("alice.example") == DID
    assert all(isinstance(answer, Route) for answer in found.values())
    reasons = {h: (a.planned.outcome, a.planned.error_code) for h, a in found.items() if isinstance(a, Route)}
    assert reasons == {
        "down.example": (Outcome.PENDING, "HandleResolverDown"),
        "nobody.example": (Outcome.INVALID_DID, "HandleNotFound"),
    }
