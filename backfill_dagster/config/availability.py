"""What a config may say although this version doesn't do it yet: `validate` notes it, whatever runs refuses it."""

from __future__ import annotations

from backfill_dagster.config.models import BackfillConfig


def unavailable(config: BackfillConfig) -> list[str]:
    """One line for each thing the config asks for that isn't available in this version, with what to use instead."""
    found = []
    if config.processing.decode_processes > 0:
        found.append("processing.decode_processes over 0 is not available in this version; use 0")
    return found
