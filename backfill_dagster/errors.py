"""The error tree. Every error this project raises on purpose is here; nothing else is.

::

    BackfillError                     one line for a person, with the remedy; carries the exit code
    ├── UsageError                    exit 2: the command or the config has to change
    │   ├── ConfigError               all problems of one YAML file
    │   ├── SourceError               the source of DIDs (or of a filter list) can't be read
    │   └── UnknownShardError         a partition key that no plan knows
    ├── StateError                    the state folder is unwritable, full, foreign or unreadable
    │   └── ObjectMissingError        a key that isn't in the store
    ├── LeaseHeldError                a living owner works on this shard or host
    ├── FencedError                   another writer took the shard over: stop at once, touch nothing
    ├── InterruptedRunError           someone asked the run to stop (SIGINT, SIGTERM)
    ├── TransientError                trying again may succeed
    │   ├── RateLimitedError          429: backpressure, never a failure
    │   ├── ServerFaultError          5xx, malformed answers of a server that may recover
    │   ├── NetworkError              refused, reset, truncated, DNS, TLS
    │   └── TimedOutError             connect, first byte, idle or total
    └── PermanentError                trying again can't help; the answer is about one DID
        ├── NotFoundError             404, 410 and their XRPC forms
        ├── AccountUnavailableError   deactivated, suspended, taken down, repo not found
        ├── RefusedHostError          a private address, or not a plain http(s) origin
        ├── TooLargeError             a body over its bound
        ├── InvalidDidDocumentError   a DID document that names no usable PDS
        └── InvalidRepoError          CAR, CID, MST or signature check failed
            └── InvalidSignatureError the structure is good, the signature isn't
"""

from __future__ import annotations

from collections.abc import Mapping


class BackfillError(Exception):
    """Base of the tree: its text is one line that says what happened and what to do next."""

    exit_code = 1


class UsageError(BackfillError):
    """The command line or the configuration has to change before anything can work."""

    exit_code = 2


class ConfigError(UsageError):
    """One YAML file is not a valid backfill config; the text has one line per problem."""


class SourceError(UsageError):
    """A source can't be opened or doesn't have the shape that the config says."""


class UnknownShardError(UsageError):
    """A partition key that the plan doesn't know."""


class StateError(BackfillError):
    """The state folder is unwritable, full, foreign, corrupt or of another schema version.

    Attributes:
        may_have_happened: whether what failed may have been done all the same, or may be yet, whatever a look now says:
            so it is with a service that gave no answer.
    """

    may_have_happened = False


class ObjectMissingError(StateError):
    """The store has nothing under this key."""


class LeaseHeldError(BackfillError):
    """A lease is held by an owner whose heart beats; the text names it."""


class FencedError(BackfillError):
    """Another writer has taken this shard over. The loser stops, commits nothing and deletes nothing of the other's.

    Attributes:
        may_stand: whether the entry in hand may have been written all the same: then its parts are left alone too.
    """

    def __init__(self, message: str, *, may_stand: bool = False) -> None:
        super().__init__(message)
        self.may_stand = may_stand


class InterruptedRunError(BackfillError):
    """The run was asked to stop; what was committed stays, the rest is pending."""


class TransientError(BackfillError):
    """A fault that may pass: tried again within bounds, then `http_error` or pending.

    Attributes:
        http_status: the status code, None when no answer came.
        headers: the answer's headers that are evidence (rate limits, retry-after, server), lower case.
        body_sha256: hex digest of the (bounded) body, None without one.
    """

    def __init__(
        self,
        message: str,
        *,
        http_status: int | None = None,
        headers: Mapping[str, str] | None = None,
        body_sha256: str | None = None,
    ) -> None:
        super().__init__(message)
        self.http_status = http_status
        self.headers = dict(headers or {})
        self.body_sha256 = body_sha256


class RateLimitedError(TransientError):
    """The server asked for a pause (429). Attribute `retry_after_seconds` is None when it didn't say how long."""

    def __init__(self, message: str, *, retry_after_seconds: float | None = None, **evidence: object) -> None:
        super().__init__(message, **evidence)  # type: ignore[arg-type]
        self.retry_after_seconds = retry_after_seconds


class ServerFaultError(TransientError):
    """A 5xx, or an answer that makes no sense from a server that may recover."""


class NetworkError(TransientError):
    """Connection refused or reset, a body cut short, DNS or TLS trouble."""


class TimedOutError(TransientError):
    """One of the four timeouts ran out."""


class PermanentError(BackfillError):
    """An answer that repeating can't change. Attributes as of `TransientError`, plus `error_code` (XRPC error name)."""

    def __init__(
        self,
        message: str,
        *,
        error_code: str | None = None,
        http_status: int | None = None,
        headers: Mapping[str, str] | None = None,
        body_sha256: str | None = None,
    ) -> None:
        super().__init__(message)
        self.error_code = error_code
        self.http_status = http_status
        self.headers = dict(headers or {})
        self.body_sha256 = body_sha256


class NotFoundError(PermanentError):
    """The server says that there is no such thing."""


class AccountUnavailableError(PermanentError):
    """The PDS won't serve this repo; `error_code` is RepoNotFound, RepoDeactivated, RepoSuspended or RepoTakendown."""


class RefusedHostError(PermanentError):
    """A server address that this project doesn't talk to."""


class TooLargeError(PermanentError):
    """A body (or what it decompresses to) is over its bound."""


class InvalidDidDocumentError(PermanentError):
    """A DID document that isn't one, isn't about this DID, or names no usable PDS."""


class InvalidRepoError(PermanentError):
    """The CAR, a CID, the MST or the commit breaks the protocol's rules."""


class InvalidSignatureError(InvalidRepoError):
    """The commit isn't signed by the account's current key, or not in the one allowed form (low-S)."""
