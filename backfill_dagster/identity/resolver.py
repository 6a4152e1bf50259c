"""DID -> DID document: from the cache, else from the method's server, with retries.

One DID at a time; many are `batch`'s business. What the PDS endpoint of a document is worth is judged by `net`.
"""

from __future__ import annotations

from collections.abc import Sequence

from backfill_dagster.atproto.did import did_method, is_did
from backfill_dagster.atproto.did_document import DidDocument, parse_did_document
from backfill_dagster.errors import PermanentError
from backfill_dagster.identity.cache import DocumentCache
from backfill_dagster.identity.did_web import DidWeb
from backfill_dagster.identity.plc import PlcDirectory
from backfill_dagster.net import RetryPolicy


class Resolver:
    """Resolves did:plc and did:web.

    Args:
        directory: for did:plc.
        web: for did:web.
        cache: what is known already.
        max_age_seconds: how old an entry of the cache may be.
        retries: for transient faults of a server; the directory's 429s wait in its limiter and aren't counted.
    """

    def __init__(
        self,
        directory: PlcDirectory,
        web: DidWeb,
        cache: DocumentCache,
        *,
        max_age_seconds: float,
        retries: RetryPolicy,
    ) -> None:
        self._directory = directory
        self._web = web
        self._cache = cache
        self._max_age_seconds = max_age_seconds
        self._retries = retries

    async def resolve(self, did: str, *, fresh: bool = False) -> DidDocument:
        """The DID document; `fresh` asks the server although the cache knows.

        Raises:
            NotFoundError: no such DID (`error_code` DidNotFound, InvalidPlcDid), or it is gone (Tombstoned).
            InvalidDidDocumentError: the document is no use (NoPds, DidMismatch, InvalidDidDocument,
                UnsupportedDidWeb).
            PermanentError: not a DID (InvalidDid), or of a method that AT Protocol doesn't know
                (UnsupportedDidMethod).
            RefusedHostError: a did:web on a private host.
            TooLargeError: a document over 1 MiB.
            TransientError: the server is down, after the retries.
            StateError: the cache can't be used.
        """
        method = _supported_method(did)
        if not fresh and (known := self._cache.get(did, self._max_age_seconds)) is not None:
            return known
        if method == "plc":
            data = await self._retries.run(lambda: self._directory.document(did))
        else:
            data = await self._retries.without_rate_limits().run(lambda: self._web.document(did))
        document = parse_did_document(data, did)
        self._cache.put(document)
        return document

    def known(self, dids: Sequence[str]) -> dict[str, DidDocument]:
        """Those of at most 500 DIDs that the cache knows; asks nobody."""
        return self._cache.get_many(dids, self._max_age_seconds)


def _supported_method(did: str) -> str:
    if not is_did(did):
        raise PermanentError(f"{did[:100]!r} is not a DID (did:plc:… or did:web:…)", error_code="InvalidDid")
    method = did_method(did)
    if method not in ("plc", "web"):
        raise PermanentError(
            f"{did[:100]} has the DID method {method[:40]!r}; AT Protocol knows plc and web",
            error_code="UnsupportedDidMethod",
        )
    return method
