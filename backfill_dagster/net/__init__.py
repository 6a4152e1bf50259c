"""HTTP towards strangers: guarded session, bounded fetch, rate limits and retries."""

from backfill_dagster.net.body import Body
from backfill_dagster.net.fetch import get
from backfill_dagster.net.host_safety import Origin, check_endpoint
from backfill_dagster.net.rate_limit import HostLimiter, Slot
from backfill_dagster.net.retry import RetryPolicy
from backfill_dagster.net.session import HttpSession, Timeouts, open_session
from backfill_dagster.net.total_limit import TotalLimiter

__all__ = [
    "Body",
    "HostLimiter",
    "HttpSession",
    "Origin",
    "RetryPolicy",
    "Slot",
    "Timeouts",
    "TotalLimiter",
    "check_endpoint",
    "get",
    "open_session",
]
