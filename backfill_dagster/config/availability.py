"""What a config may say although this version doesn't do it yet: `validate` notes it, whatever runs refuses it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from backfill_dagster.config.models import BackfillConfig


@dataclass(frozen=True)
class Lack:
    """One thing that isn't available.

    Attributes:
        what: its name, as an error has it.
        instead: what to do.
        is_asked: whether a config asks for it.
    """

    what: str
    instead: str
    is_asked: Callable[[BackfillConfig], bool]


LACKS = (Lack("processing.decode_processes over 0", "use 0", lambda config: config.processing.decode_processes > 0),)


def unavailable(config: BackfillConfig) -> list[str]:
    """One line for each thing the config asks for that isn't available in this version, with what to use instead."""
    return [f"{lack.what} is not available in this version; {lack.instead}" for lack in LACKS if lack.is_asked(config)]
