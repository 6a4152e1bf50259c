"""DIDs and handles: who they are and which PDS they live on."""

from backfill_dagster.identity.batch import resolve_all
from backfill_dagster.identity.cache import DocumentCache
from backfill_dagster.identity.handle import HandleResolver
from backfill_dagster.identity.open import Directory, open_resolver
from backfill_dagster.identity.resolver import Resolver

__all__ = ["Directory", "DocumentCache", "HandleResolver", "Resolver", "open_resolver", "resolve_all"]
