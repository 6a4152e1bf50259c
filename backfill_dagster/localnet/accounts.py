"""The accounts of a local network: who they are, in what state, on which host. No HTTP, no repo bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from backfill_dagster.localnet.dice import dice, made_up_did
from backfill_dagster.localnet.options import LocalnetOptions
from backfill_dagster.localnet.signing import SigningKey
from backfill_dagster.model import Outcome


class HostStatus(StrEnum):
    """What an account's own PDS says about it."""

    ACTIVE = "active"
    DEACTIVATED = "deactivated"
    SUSPENDED = "suspended"
    TAKENDOWN = "takendown"
    DELETED = "deleted"
    DESYNCHRONIZED = "desynchronized"
    THROTTLED = "throttled"


class Identity(StrEnum):
    """What the PLC directory (or the account's own web server) says about its DID."""

    RESOLVES = "resolves"
    NO_PDS = "no_pds"
    TOMBSTONED = "tombstoned"
    UNKNOWN = "unknown"


_OUTCOME_OF_STATUS = {
    HostStatus.ACTIVE: Outcome.COMPLETE,
    HostStatus.DEACTIVATED: Outcome.DEACTIVATED,
    HostStatus.SUSPENDED: Outcome.SUSPENDED,
    HostStatus.TAKENDOWN: Outcome.TAKEN_DOWN,
    HostStatus.DELETED: Outcome.NOT_FOUND,
    HostStatus.DESYNCHRONIZED: Outcome.HTTP_ERROR,
    HostStatus.THROTTLED: Outcome.HTTP_ERROR,
}

NOT_DIDS = ("not a did", "did:plc:TOO-SHORT", "did:", "12345", "https://example.com/profile/someone")
"""Source rows that are no DIDs; neither are they handles, which could be resolved."""


@dataclass(slots=True)
class Account:
    """One account; the fields change as the control endpoint says.

    Attributes:
        did: its DID.
        index: its number in the network, -1 for a CAR file's.
        handle: in its DID document.
        host: number of the host that has its repo.
        named_host: number of the host that its DID document names.
        flips: the first getRepo at `named_host` makes the document name `host`.
        status: what `host` says.
        identity: what its DID resolves to.
        key: in the document, and (unless rotated without signing again) of the commit.
        legacy_key_form: whether the document has the key in the form of before Multikey.
        web_port: of its own server, for a did:web account.
        signature_ok: whether the commit is signed by `key`.
    """

    did: str
    index: int
    handle: str
    host: int
    named_host: int
    key: SigningKey
    flips: bool = False
    status: HostStatus = HostStatus.ACTIVE
    identity: Identity = Identity.RESOLVES
    legacy_key_form: bool = False
    web_port: int | None = None
    signature_ok: bool = True

    @property
    def expected_outcome(self) -> Outcome:
        """How a full backfill with `verify: full` ends for it; a move counts as followed by one more plan."""
        if self.identity is not Identity.RESOLVES:
            return Outcome.UNRESOLVABLE
        if self.named_host != self.host and not self.flips:
            return Outcome.NOT_FOUND
        outcome = _OUTCOME_OF_STATUS[self.status]
        return Outcome.INVALID_REPO if outcome is Outcome.COMPLETE and not self.signature_ok else outcome


@dataclass(frozen=True, slots=True)
class Population:
    """All accounts in source order, and the source's rows that are none (text -> outcome)."""

    accounts: tuple[Account, ...]
    strays: dict[str, Outcome]


def populate(options: LocalnetOptions, web_ports: Sequence[int]) -> Population:
    """Make the accounts of a seed.

    Args:
        options: of the network.
        web_ports: one port for each did:web account.
    """
    counts = options.state_counts()
    order = list(range(options.repos))
    dice(options.seed, "states").shuffle(order)
    state_of: dict[int, str] = {}
    for state, count in counts.items():
        if state not in ("other_method", "not_a_did"):
            for _ in range(min(count, len(order))):
                state_of[order.pop()] = state
    ports = iter(web_ports)
    accounts = []
    for index in range(options.repos):
        account = _account(options, index)
        _put_in_state(account, state_of.get(index, "active"), options.hosts, ports)
        accounts.append(account)
    strays = {_other_method_did(options.seed, n): Outcome.UNRESOLVABLE for n in range(counts.get("other_method", 0))}
    for number in range(counts.get("not_a_did", 0)):
        text = NOT_DIDS[number % len(NOT_DIDS)]
        strays[text if number < len(NOT_DIDS) else f"{text} {number}"] = Outcome.INVALID_DID
    return Population(tuple(accounts), strays)


def _account(options: LocalnetOptions, index: int) -> Account:
    host = index % options.hosts
    return Account(
        did=made_up_did(options.seed, index),
        index=index,
        handle=f"user-{index:05d}.test",
        host=host,
        named_host=host,
        key=SigningKey.derive(f"{options.seed} {index}"),
        legacy_key_form=index % 23 == 5,
    )


def _put_in_state(account: Account, state: str, hosts: int, ports: Iterator[int]) -> None:
    if state == "moved":
        account.host = (account.host + 1) % hosts
        account.flips = True
    elif state == "web":
        account.web_port = next(ports)
        account.did = f"did:web:localhost%3A{account.web_port}"
    elif state in ("tombstoned", "unknown", "no_pds"):
        account.identity = Identity(state)
    elif state != "active":
        account.status = HostStatus(state)


def _other_method_did(seed: int, number: int) -> str:
    return SigningKey.derive(f"{seed} other method {number}").did_key
