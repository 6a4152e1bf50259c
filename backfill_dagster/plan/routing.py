"""From a source's text to a route: which DID it is, and which PDS host has its repo, or why there is none.

Asks the identity layer; decides no shard and stores nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field

from backfill_dagster.atproto.did import is_did, is_plc_did
from backfill_dagster.atproto.did_document import DidDocument
from backfill_dagster.atproto.handle import is_handle
from backfill_dagster.errors import BackfillError, NotFoundError, PermanentError, RefusedHostError, TransientError
from backfill_dagster.identity import HandleResolver, Resolver, resolve_all
from backfill_dagster.model import UNROUTABLE_SHARD, Outcome, PlannedDid, cut_detail
from backfill_dagster.net import check_endpoint
from backfill_dagster.sources import SourceRow

HOST_MAX_CHARACTERS = 180
"""A shard's key stands in file names, beside some 60 characters more; most file systems end at 255."""


@dataclass(frozen=True)
class Route:
    """Where a DID's repo is.

    Attributes:
        planned: everything but the shard: `UNROUTABLE_SHARD` with an outcome, or "" for the assignment to fill.
        host: host part of its partition keys, empty when unroutable.
    """

    planned: PlannedDid
    host: str = ""


@dataclass
class Candidates:
    """The source's rows by what they are; the first row of a DID wins, a handle counts as the DID it stands for."""

    dids: dict[str, SourceRow] = field(default_factory=dict)
    handles: dict[str, SourceRow] = field(default_factory=dict)
    neither: dict[str, SourceRow] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many different ones the source has."""
        return len(self.dids) + len(self.handles) + len(self.neither)

    @classmethod
    def of(cls, rows: Iterable[SourceRow]) -> Candidates:
        """Sort the rows of a source."""
        found = cls()
        for row in rows:
            if is_plc_did(row.text) or (is_did(row.text) and not row.text.startswith("did:plc:")):
                found.dids.setdefault(row.text, row)
            elif is_handle(row.text):
                found.handles.setdefault(row.text.lower(), row)
            else:
                found.neither.setdefault(row.text, row)
        return found


def unroutable(did: str, row: SourceRow, outcome: Outcome, code: str, detail: str) -> Route:
    """A row without a host, with the reason."""
    return Route(
        PlannedDid(
            did=did,
            shard=UNROUTABLE_SHARD,
            outcome=outcome,
            error_code=code,
            error_detail=cut_detail(detail),
            columns=row.columns,
        )
    )


def invalid(row: SourceRow) -> Route:
    """A row that is neither a DID nor a handle."""
    shown = row.text if len(row.text) <= 80 else row.text[:80] + "…"
    detail = f"{shown!r} is not a DID (did:plc:… or did:web:…)" if row.text else "the source's value is empty"
    return unroutable(row.text, row, Outcome.INVALID_DID, "InvalidDid", detail)


async def resolve_handles(
    handles: dict[str, SourceRow], resolver: HandleResolver | None
) -> AsyncIterator[tuple[str, SourceRow, str | Route]]:
    """For each handle its DID, or the route of one that has none."""
    for handle, row in handles.items():
        if resolver is None:
            detail = f"{handle} is a handle and identity.handle_resolver is null: set it, or list the DID"
            yield handle, row, unroutable(handle, row, Outcome.INVALID_DID, "HandleNotResolved", detail)
            continue
        try:
            did = await resolver.resolve_handle(handle)
        except TransientError as error:
            yield handle, row, unroutable(handle, row, Outcome.PENDING, "HandleResolverDown", str(error))
        except BackfillError as error:
            yield handle, row, unroutable(handle, row, Outcome.INVALID_DID, "HandleNotFound", str(error))
        else:
            yield handle, row, did


async def resolve_routes(
    rows: dict[str, SourceRow],
    resolver: Resolver,
    *,
    fresh: frozenset[str],
    allow_private_hosts: bool,
    on_resolved: Callable[[], None],
) -> AsyncIterator[Route]:
    """A route for every DID, in the order in which the answers come."""
    for wanted, again in (
        ([did for did in rows if did not in fresh], False),
        ([did for did in rows if did in fresh], True),
    ):
        async for did, answer in resolve_all(wanted, resolver, fresh=again):
            yield route_of(did, rows[did], answer, allow_private_hosts)
            on_resolved()


def route_of(did: str, row: SourceRow, answer: DidDocument | BackfillError, allow_private_hosts: bool) -> Route:
    """Judge what the directory said about one DID."""
    if isinstance(answer, TransientError):
        return unroutable(did, row, Outcome.PENDING, "DirectoryDown", str(answer))
    if isinstance(answer, RefusedHostError):
        return unroutable(did, row, Outcome.REFUSED_HOST, "RefusedHost", str(answer))
    if isinstance(answer, PermanentError):
        code = answer.error_code or ("NotFound" if isinstance(answer, NotFoundError) else "InvalidDidDocument")
        return unroutable(did, row, Outcome.UNRESOLVABLE, code, str(answer))
    if isinstance(answer, BackfillError):
        raise answer
    try:
        origin = check_endpoint(answer.pds_endpoint, allow_private_hosts)
    except RefusedHostError as error:
        return unroutable(did, row, Outcome.REFUSED_HOST, "RefusedHost", str(error))
    if len(origin.shard_host) > HOST_MAX_CHARACTERS:
        detail = f"the PDS host name has {len(origin.shard_host)} characters; file names hold {HOST_MAX_CHARACTERS}"
        return unroutable(did, row, Outcome.REFUSED_HOST, "HostNameTooLong", detail)
    planned = PlannedDid(
        did=did,
        shard="",
        pds_endpoint=origin.url,
        handle=answer.handle,
        signing_key=answer.signing_key,
        columns=row.columns,
    )
    return Route(planned, origin.shard_host)
