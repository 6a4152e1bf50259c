"""An account's whole made-up history: from counts by type to a signed repo, the same for the same seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import libipld

from backfill_dagster.localnet.dice import dice, made_up_did
from backfill_dagster.localnet.mix import COLLECTION_OF_TYPE, SINGLES
from backfill_dagster.localnet.records import Author
from backfill_dagster.localnet.repo_writer import NewRecord, RepoBytes, write_repo
from backfill_dagster.localnet.signing import SigningKey
from backfill_dagster.localnet.tids import EPOCH_END_US, EPOCH_START_US, MICROS_A_DAY, tid

STRANGERS = 512
"""Records point at accounts 0 to 511 of the seed, whether the network has them or not."""

RECORD_CLOCK_ID = 7
_COMMIT_DELAY_US = 40_000
_LEAST_GAP_US = 1_000


@cache
def _others(seed: int) -> Sequence[str]:
    return tuple(made_up_did(seed, index) for index in range(STRANGERS))


def generate_repo(seed: int, index: int, did: str, key: SigningKey, counts: Mapping[str, int]) -> RepoBytes:
    """Write the repo of account number `index`.

    Every record is a commit of its own, 40 ms after the moment in its record key, spread over the account's life
    within 2024 and 2025.

    Args:
        seed: the network's.
        index: the account's number.
        did: the account; only a few records and the commit depend on it.
        key: signs the commit.
        counts: record type -> how many.
    """
    rolls = dice(seed, f"repo {index}")
    total = sum(counts.values())
    born_us = EPOCH_START_US + int(rolls.random() * 300 * MICROS_A_DAY)
    span_us = int((EPOCH_END_US - MICROS_A_DAY - born_us) * (1 - 0.3 * rolls.random()))
    moments = sorted(born_us + MICROS_A_DAY // 24 + int(rolls.random() * span_us) for _ in range(total))
    kinds = [kind for kind, count in sorted(counts.items()) for _ in range(count)]
    rolls.shuffle(kinds)
    author = Author(rolls, did, _others(seed))
    records = []
    before_us = 0
    for number, (kind, moment) in enumerate(zip(kinds, moments, strict=True)):
        at_us = max(moment, before_us + _LEAST_GAP_US)
        before_us = at_us
        block = libipld.encode_dag_cbor(author.record(kind, at_us))
        path = f"{COLLECTION_OF_TYPE.get(kind, kind)}/{_record_key(kind, at_us, number)}"
        records.append(NewRecord(path, block, at_us + _COMMIT_DELAY_US))
    return write_repo(did, key, records, created_us=born_us, clock_id=index & 0x3FF)


def _record_key(kind: str, at_us: int, number: int) -> str:
    if kind in SINGLES:
        return "self"
    if kind == "com.whtwnd.blog.entry":
        return f"entry-{number}:draft_~{number % 7}"
    return tid(at_us, RECORD_CLOCK_ID)
