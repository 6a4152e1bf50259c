"""The network's truth without any HTTP: accounts, what their DIDs resolve to, their repos, and every change to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import libipld

from backfill_dagster.errors import UsageError
from backfill_dagster.localnet.accounts import Account, HostStatus, Identity, Population
from backfill_dagster.localnet.did_documents import did_document, given_document, plc_data
from backfill_dagster.localnet.generate import generate_repo
from backfill_dagster.localnet.given_car import GivenCar
from backfill_dagster.localnet.mix import is_reply, record_counts, record_type
from backfill_dagster.localnet.options import LocalnetOptions
from backfill_dagster.localnet.repo_writer import RepoBytes, blocks_of, commit_changes, import_anew, keys_of
from backfill_dagster.localnet.shelf import RepoShelf
from backfill_dagster.localnet.signing import SigningKey
from backfill_dagster.localnet.tids import EPOCH_END_US
from backfill_dagster.model import Outcome

_COMMIT_GAP_US = 1_000_000


class World:
    """All accounts of one network.

    Args:
        options: of the network.
        population: accounts and stray rows.
        cars: given files; their accounts are spread over the hosts.
        host_urls: origins of the PDS hosts in order.

    Raises:
        UsageError: two CAR files, or a file and an account, have one DID.
    """

    def __init__(
        self, options: LocalnetOptions, population: Population, cars: Sequence[GivenCar], host_urls: Sequence[str]
    ) -> None:
        self.options = options
        self.host_urls = list(host_urls)
        self.strays = dict(population.strays)
        self.accounts: dict[str, Account] = {account.did: account for account in population.accounts}
        self._cars: dict[str, GivenCar] = {}
        self._changed_counts: dict[str, dict[str, int]] = {}
        for number, car in enumerate(cars):
            if car.did in self.accounts:
                raise UsageError(f"{car.path}: its DID {car.did} is already in the network")
            self.accounts[car.did] = _car_account(car, number, len(host_urls))
            self._cars[car.did] = car
        self.shelf = RepoShelf(self.make_repo, options.cache_mib << 20)

    @property
    def rows(self) -> list[str]:
        """What the source lists: DIDs and the rows that are none."""
        return [*self.accounts, *self.strays]

    def account(self, did: str) -> Account:
        """The account of a DID.

        Raises:
            UsageError: there is none.
        """
        if did not in self.accounts:
            raise UsageError(f"no account {did!r} in this network")
        return self.accounts[did]

    def by_handle(self, handle: str) -> Account | None:
        """The account that a handle belongs to."""
        return next((a for a in self.accounts.values() if a.handle == handle), None)

    def on_host(self, host: int) -> Iterator[Account]:
        """Accounts whose repo is at a host, deleted ones left out, by DID."""
        found = (a for a in self.accounts.values() if a.host == host and a.status is not HostStatus.DELETED)
        return iter(sorted(found, key=lambda account: account.did))

    def named(self, host: int) -> list[str]:
        """DIDs whose document names a host."""
        resolves = (a for a in self.accounts.values() if a.identity is Identity.RESOLVES)
        return [a.did for a in resolves if a.named_host == host]

    def document(self, account: Account) -> dict[str, Any]:
        """The DID document as it is published now."""
        url = self.host_urls[account.named_host]
        car = self._cars.get(account.did)
        if car is not None and car.document is not None:
            return given_document(car.document, url)
        return did_document(account, url)

    def plc_data(self, account: Account) -> dict[str, Any]:
        """The PLC directory's `/data` as it is now (of a made-up key for CAR files)."""
        return plc_data(account, self.host_urls[account.named_host])

    def make_repo(self, did: str) -> RepoBytes:
        """Make the repo of an account as it was before any edit. Safe in a thread."""
        if did in self._cars:
            return self._cars[did].repo
        account = self.accounts[did]
        return generate_repo(self.options.seed, account.index, did, account.key, self._generated_counts(account))

    def repo_asked_at(self, account: Account, host: int) -> None:
        """Note a getRepo: an account that moves has its document changed by the first one at the old host."""
        if account.flips and account.named_host == host:
            account.named_host = account.host
            account.flips = False

    def _generated_counts(self, account: Account) -> dict[str, int]:
        options = self.options
        return record_counts(options.seed, account.index, median=options.median_records, cap=options.max_records)

    def counts(self, account: Account) -> Mapping[str, int]:
        """Record type -> count of what the repo holds now; known without making it."""
        if account.did in self._changed_counts:
            return self._changed_counts[account.did]
        if account.did in self._cars:
            return self._cars[account.did].counts
        return self._generated_counts(account)

    def expected(self, *, verify_signature: bool = True) -> dict[str, dict[str, Any]]:
        """DID -> `{outcome, records: {record type: count}}` of a full backfill of all record types.

        Args:
            verify_signature: under `verify: full`; False: under `verify: structure`.
        """
        out: dict[str, dict[str, Any]] = {}
        for account in self.accounts.values():
            out[account.did] = self.expected_of(account, verify_signature=verify_signature)
        for text, outcome in self.strays.items():
            out[text] = {"outcome": outcome.value, "records": {}}
        return out

    def expected_of(self, account: Account, *, verify_signature: bool = True) -> dict[str, Any]:
        """One account's entry of `expected`."""
        outcome = account.expected_outcome
        if outcome is Outcome.INVALID_REPO and not verify_signature:
            outcome = Outcome.COMPLETE
        if outcome is Outcome.COMPLETE and account.did in self._cars:
            outcome = self._cars[account.did].structure
        counts = dict(self.counts(account)) if outcome is Outcome.COMPLETE else {}
        return {"outcome": outcome.value, "records": counts}

    def change_records(self, did: str, changes: Mapping[str, bytes | None]) -> RepoBytes:
        """Commit changed records (key -> block, None deletes) in one new commit, one second after the last one.

        Raises:
            UsageError: no such account or record to delete, or one of a CAR file, which stays as it is.
        """
        account = self.account(did)
        rev_us = self.next_commit_us(did)
        repo = self.shelf.get(did)
        try:
            repo = commit_changes(repo, did, account.key, changes, rev_us=rev_us)
        except ValueError as error:
            raise UsageError(f"{did}: {error}") from error
        self.shelf.pin(did, repo)
        self._changed_counts[did] = _count(repo)
        account.signature_ok = True
        return repo

    def import_anew(self, did: str, *, sign_again: bool = True) -> RepoBytes:
        """Let a host have imported the repo: all its blocks are new to it, so any `since` gets all of them.

        Args:
            did: the account.
            sign_again: whether an empty commit follows; without, the commit stays the one that was imported.

        Raises:
            UsageError: as `change_records`.
        """
        account = self.account(did)
        rev_us = self.next_commit_us(did)
        repo = import_anew(self.shelf.get(did), did, account.key, rev_us=rev_us, sign_again=sign_again)
        self.shelf.pin(did, repo)
        account.signature_ok = account.signature_ok or sign_again
        return repo

    def next_commit_us(self, did: str) -> int:
        """The moment that the account's next commit will have (us since the epoch).

        Raises:
            UsageError: no such account, or one of a CAR file, which stays as it is.
        """
        self.account(did)
        if did in self._cars:
            raise UsageError(f"{did} is served from a CAR file and can't be changed")
        return max(self.shelf.get(did).revs_us[0], EPOCH_END_US) + _COMMIT_GAP_US

    def move(self, did: str, to_host: int, *, on_get_repo: bool = False) -> None:
        """Move an account's repo to another host; its document follows now or at the next getRepo at the old one.

        Raises:
            UsageError: no such account or host.
        """
        account = self.account(did)
        if not 0 <= to_host < len(self.host_urls):
            raise UsageError(f"no host {to_host}: there are 0 to {len(self.host_urls) - 1}")
        account.host = to_host
        account.flips = on_get_repo
        if not on_get_repo:
            account.named_host = to_host

    def rotate_key(self, did: str, *, sign_again: bool = True) -> SigningKey:
        """Give an account a new key in its document, and a new commit signed by it unless told otherwise.

        Raises:
            UsageError: as `change_records`.
        """
        account = self.account(did)
        self.next_commit_us(did)
        self.shelf.pin(did, self.shelf.get(did))
        account.key = SigningKey.derive(f"after {account.key.did_key}")
        account.signature_ok = False
        if sign_again:
            self.change_records(did, {})
        return account.key


def _car_account(car: GivenCar, number: int, hosts: int) -> Account:
    host = number % hosts
    key = SigningKey.derive(f"given {car.did}")
    return Account(car.did, -1, f"car-{number}.test", host, host, key, signature_ok=car.signature_ok)


def _count(repo: RepoBytes) -> dict[str, int]:
    blocks = blocks_of(repo)
    counts: Counter[str] = Counter()
    for key, cid in keys_of(repo.root, blocks).items():
        collection = key.partition("/")[0]
        answers = collection == "app.bsky.feed.post" and is_reply(_decoded(blocks[cid].block))
        counts[record_type(collection, is_reply=answers)] += 1
    return dict(counts)


def _decoded(block: bytes) -> object:
    try:
        return libipld.decode_dag_cbor(block)
    except ValueError:
        return None
