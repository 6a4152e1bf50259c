"""The plan as a log of generations `plan/<generation:06d>.parquet`, put-if-absent; the last row of a DID counts.

Each generation holds only what changed: new DIDs, delisted ones, those with another shard, endpoint or key. How they
are read together is in `fold`, what a file looks like in `generation`, who makes the rows is `make`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from operator import attrgetter
from typing import Any

import pyarrow as pa

from backfill_dagster.errors import StateError
from backfill_dagster.model import UNROUTABLE_SHARD, PlannedDid, Shard
from backfill_dagster.plan.fold import REMEDY, GenerationFiles, current_rows, given, shard_sizes, touched, unreadable
from backfill_dagster.plan.generation import check_bytes, generation_bytes, read_metadata
from backfill_dagster.store import ObjectStore

PREFIX = "plan/"

_KEY = re.compile(r"plan/([0-9]{6,})\.parquet")


@dataclass(frozen=True)
class Plan:
    """The plan as of one generation; a snapshot that later generations don't change.

    Attributes:
        generation: number of its last generation, 0 when nothing has been planned yet.
        refresh: the refresh round that it asks for.
        metadata: of its last generation: config_hash, source_version, source_description, created_at, run_id,
            estimate, and whatever else the planner noted.
    """

    generation: int = 0
    refresh: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict)
    _files: GenerationFiles | None = None

    def dids(self, shard: str) -> list[PlannedDid]:
        """The DIDs that this shard is the current one of, delisted ones among them, in plan order.

        Empty for a shard that the plan doesn't know.

        Raises:
            StateError: a generation can't be read.
        """
        return list(current_rows(self._files, [shard]))

    def rows(self) -> Iterator[PlannedDid]:
        """Every DID of the plan with its current row, streamed, delisted and unroutable ones among them.

        Raises:
            StateError: a generation can't be read.
        """
        return current_rows(self._files)

    def by_shard(self, only: Sequence[str] | None = None) -> Iterator[tuple[str, list[PlannedDid]]]:
        """Every shard that has DIDs with all of them, the reserved one too, in one pass over the plan.

        Args:
            only: these shards.

        Raises:
            StateError: a generation can't be read.
        """
        for shard, planned in groupby(current_rows(self._files, only, by_shard=True), key=attrgetter("shard")):
            yield shard, list(planned)

    def given(self, dids: Iterable[str]) -> dict[tuple[str, str], tuple[int, int]]:
        """(DID, shard) -> the first and the last generation that give the DID this shard, of every one it ever had.

        Raises:
            StateError: a generation can't be read.
        """
        return given(self._files, list(dids))

    def shards(self) -> dict[str, int]:
        """Partition key -> current DIDs (delisted ones left out), by key; the reserved shard isn't among them.

        A shard whose DIDs have all moved away or left the source stays, with 0.
        """
        return {key: size[0] for key, size in self._sizes.items() if key != UNROUTABLE_SHARD}

    def touched(self) -> dict[str, int]:
        """Shard -> the last generation that has put a DID there, changed one, or taken one away to another shard.

        Raises:
            StateError: a generation can't be read.
        """
        return touched(self._files)

    def shards_since(self, generation: int) -> set[str]:
        """Partition keys of the shards that a later generation has put DIDs into, or changed where they are fetched.

        Raises:
            StateError: a generation can't be read.
        """
        sizes = shard_sizes(self._files and self._files.after(generation))
        return {key for key, (current, _) in sizes.items() if current and key != UNROUTABLE_SHARD}

    def hosts(self) -> dict[str, int]:
        """Host part of the partition keys -> current DIDs, by host."""
        counts: Counter[str] = Counter()
        for key, size in self.shards().items():
            counts[Shard.parse(key).host] += size
        return dict(counts)

    def places(self) -> dict[Shard, int]:
        """Shard -> places taken, as `assign` wants them: current DIDs and the delisted ones, which keep their place."""
        return {Shard.parse(key): sum(size) for key, size in self._sizes.items() if key != UNROUTABLE_SHARD}

    @property
    def count(self) -> int:
        """Current DIDs: all that the source names, with and without a host."""
        return sum(current for current, _ in self._sizes.values())

    @property
    def delisted(self) -> int:
        """DIDs that the source named once and doesn't any more."""
        return sum(delisted for _, delisted in self._sizes.values())

    @property
    def unroutable(self) -> int:
        """Current DIDs without a host."""
        return self._sizes.get(UNROUTABLE_SHARD, (0, 0))[0]

    @cached_property
    def _sizes(self) -> dict[str, tuple[int, int]]:
        return shard_sizes(self._files)


class PlanStore:
    """Reads and appends the generations of one backfill's plan."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def read(self) -> Plan:
        """The plan as it stands now.

        Raises:
            StateError: a generation is missing or can't be read; names it and the remedy.
        """
        numbers = self._generations()
        refresh = 0
        metadata: dict[str, Any] = {}
        for number in numbers:
            metadata = self._metadata(number)
            refresh = max(refresh, metadata["refresh"])
        files = GenerationFiles(self._store, tuple(generation_key(number) for number in numbers))
        return Plan(len(numbers), refresh, metadata, files if numbers else None)

    def damaged(self) -> list[str]:
        """One line for each generation that isn't byte for byte what was written, though it may be read. Reads all.

        Raises:
            StateError: the store refuses, or a generation is missing.
        """
        problems = []
        for number in self._generations():
            try:
                check_bytes(self._store.get(generation_key(number)))
            except ValueError as error:
                problems.append(str(unreadable(self._store.path(generation_key(number)), error)))
        return problems

    def append(self, base: Plan, rows: Iterable[PlannedDid], metadata: Mapping[str, Any]) -> Plan | None:
        """Commit the next generation, unless somebody else has: then read again, work out the rows again, try again.

        Args:
            base: the plan that the rows were worked out from.
            rows: what changes, each DID once; held in memory.
            metadata: JSON values with at least `refresh`; `generation` is put in here.

        Returns:
            The plan with the new generation, None when its number is taken.

        Raises:
            StateError: the store refuses.
            ValueError: a DID comes twice, or `refresh` goes back.
        """
        if metadata["refresh"] < base.refresh:
            raise ValueError(f"refresh can't go back from {base.refresh} to {metadata['refresh']}")
        number = base.generation + 1
        key, noted = generation_key(number), {**metadata, "generation": number}
        data = generation_bytes(rows, noted)
        # A number that these very bytes have taken is one's own: the reply to an earlier try got lost.
        if not self._store.put_if_absent(key, data) and self._store.get(key) != data:
            return None
        before = base._files or GenerationFiles(self._store, ())
        return Plan(number, metadata["refresh"], noted, before.with_next(key))

    def _generations(self) -> list[int]:
        """All numbers up to the highest one listed. A listing may miss what is created meanwhile: asked for by name."""
        matches = (_KEY.fullmatch(info.key) for info in self._store.list(PREFIX))
        listed = {int(match[1]) for match in matches if match is not None}
        numbers: list[int] = []
        for number in range(1, max(listed, default=0) + 1):
            if number not in listed and not self._store.exists(generation_key(number)):
                missing = self._store.path(generation_key(number))
                raise StateError(f"generation {number} of the plan is missing ({missing}): {REMEDY}")
            numbers.append(number)
        return numbers

    def _metadata(self, number: int) -> dict[str, Any]:
        key = generation_key(number)
        path = self._store.path(key)
        try:
            with self._store.open_input(key) as source:
                metadata = read_metadata(source)
        except (ValueError, OSError, pa.ArrowException) as error:
            raise self._store.read_problem(error, key) or unreadable(path, error) from error
        if metadata["generation"] != number:
            raise StateError(f"{path} says that it is generation {metadata['generation']} of the plan: {REMEDY}")
        return metadata


def generation_key(number: int) -> str:
    """Key of a generation's object."""
    return f"{PREFIX}{number:06d}.parquet"
