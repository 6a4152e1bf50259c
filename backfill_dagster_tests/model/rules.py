"""The rules of the protocol as switches: `Rules()` is the protocol, each other value leaves one of its ideas out.

What the rules do is in the steps; this file only names them, with the reason for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class WhenTaken(StrEnum):
    """What a writer with data in hand does when the number that it counted on is taken."""

    STOP = "it has lost the shard: it stops at once and touches nothing"
    READ_ON = "it reads on and takes the next number"
    OVERWRITE = "it never finds out: its entry replaces the one that is there"


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The protocol; every default is what the code does.

    Attributes:
        when_taken: fencing. A writer that has been overtaken has a stale fold in hand, and its parts may be swept.
        sweep_spares_newer: sweep only files of an older epoch. A stalled writer can wake up in its own recovery, and
            what a successor has staged is in no log that it has read.
        entry_before_publish: parts show in a plain glob only when an entry says that they count.
        lost_reply_is_checked: an append whose reply is lost reads the entry back and compares the nonce; otherwise it
            is taken for refused, and the batch is dropped.
        snapshot_keeps_entries: the numbers below a snapshot stay taken, for whoever still counts on one of them.
        seal_before_recovery: nobody can append any more when recovery decides what is dead.
        ledger_after_entry: the ledger follows the log.
        delete_after_entry: a rewrite deletes the old part when the entry says that it is gone.
    """

    when_taken: WhenTaken = WhenTaken.STOP
    sweep_spares_newer: bool = True
    entry_before_publish: bool = True
    lost_reply_is_checked: bool = True
    snapshot_keeps_entries: bool = True
    seal_before_recovery: bool = True
    ledger_after_entry: bool = True
    delete_after_entry: bool = True
