"""Randomness that depends on a seed and a label only, so that the same seed makes the same network on every machine."""

from __future__ import annotations

import base64
import hashlib
import random


def dice(seed: int, label: str) -> random.Random:
    """Dice for one purpose; other purposes never disturb their rolls."""
    return random.Random(f"localnet {seed} {label}")  # noqa: S311 - made-up records, not secrets


def made_up_did(seed: int, index: int) -> str:
    """The did:plc of the network's account number `index`; beyond the last account, of a stranger."""
    digest = hashlib.sha256(f"localnet {seed} did {index}".encode()).digest()
    return "did:plc:" + base64.b32encode(digest[:15]).decode().lower()
