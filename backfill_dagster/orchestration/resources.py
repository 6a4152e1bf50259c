"""What runs are given and tests swap: the list of DIDs, and the config with its state.

Thin: a resource holds settings that the UI can show, the work is in `config`, `sources` and `state`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from pydantic import Field, PrivateAttr

from backfill_dagster import config as blocks
from backfill_dagster.config import BackfillConfig, load_config
from backfill_dagster.config.sources import Source
from backfill_dagster.effects import Effects
from backfill_dagster.logs import configure_logging
from backfill_dagster.orchestration import names
from backfill_dagster.plan import Plan, PlanStore
from backfill_dagster.state import BackfillState, open_state


class DidSource(dg.ConfigurableResource[None]):
    """A list of DIDs: stands for the `source` block of a config."""

    keep_columns: list[str] = Field(default_factory=list, description="More columns, carried into plan and reports.")

    @abstractmethod
    def block(self) -> Source:
        """The `source` block that this resource stands for."""


class SqliteSource(DidSource):
    """DIDs in a SQLite database, opened read-only."""

    path: str = Field(description="The database file.")
    query: str = Field(default="SELECT did FROM dids", description="Any single SELECT.")

    def block(self) -> blocks.SqliteSource:
        """The config block."""
        return blocks.SqliteSource(
            type="sqlite", path=self.path, query=self.query, keep_columns=tuple(self.keep_columns)
        )


class FileSource(DidSource):
    """DIDs in a local CSV, Parquet or text file."""

    path: str = Field(description="The file.")
    format: str | None = Field(default=None, description="csv, parquet or text; by the suffix when not given.")
    column: str | None = Field(default=None, description="The column with the DIDs.")
    header: bool = Field(default=True, description="Whether the first line of a CSV names its columns.")

    def block(self) -> blocks.FileSource:
        """The config block."""
        return blocks.FileSource.model_validate({"type": "file", **_given(self)})


class S3Source(DidSource):
    """DIDs in CSV or Parquet objects on S3."""

    path: str = Field(description="One object, a prefix or a glob.")
    format: str | None = Field(default=None, description="csv or parquet; by the suffix when not given.")
    column: str | None = Field(default=None, description="The column with the DIDs.")
    query: str | None = Field(default=None, description="DuckDB SQL over the objects, as table `source`.")
    region: str | None = Field(default=None, description="AWS region; from the AWS environment when not given.")
    endpoint_url: str | None = Field(default=None, description="Address of another S3 service.")
    header: bool = Field(default=True, description="Whether the first line of CSV objects names the columns.")

    def block(self) -> blocks.S3Source:
        """The config block."""
        return blocks.S3Source.model_validate({"type": "s3", **_given(self)})


class InlineSource(DidSource):
    """DIDs written down."""

    dids: list[str] = Field(description="The DIDs.")

    def block(self) -> blocks.InlineSource:
        """The config block."""
        return blocks.InlineSource(type="inline", dids=tuple(self.dids))


def source_of(config: BackfillConfig) -> DidSource:
    """The resource for a config's `source` block."""
    settings = config.source.model_dump(mode="json", exclude={"type"})
    match config.source:
        case blocks.SqliteSource():
            return SqliteSource(**settings)
        case blocks.FileSource():
            return FileSource(**settings)
        case blocks.S3Source():
            return S3Source(**settings)
        case blocks.InlineSource():
            return InlineSource(**settings)


class BackfillResource(dg.ConfigurableResource[None]):
    """A config and everything that stands under it: store, ledger, plan.

    Opened by ops only: nothing is read or written while definitions load. The plan is read once in a run.
    """

    config_path: str = Field(description="The YAML file.")

    _plan: Plan | None = PrivateAttr(default=None)

    def effects(self) -> Effects:
        """Clocks, randomness and waiting; tests override it."""
        return Effects()

    def config(self, source: DidSource | None = None) -> BackfillConfig:
        """The YAML as it is now.

        Args:
            source: takes the place of its `source` block.

        Raises:
            ConfigError: it has become invalid.
        """
        config = load_config(Path(self.config_path))
        return config if source is None else config.model_copy(update={"source": source.block()})

    @contextmanager
    def open_state(self, *, create: bool = False, source: DidSource | None = None) -> Iterator[BackfillState]:
        """The state, opened; closed at the end.

        Args:
            create: begin a state where there is none; only a plan does.
            source: takes the place of the config's `source` block.

        Raises:
            ConfigError: the YAML has become invalid.
            UsageError: nothing is planned yet, or the config asks for something that this version doesn't have yet.
            StateError: the state can't be opened.
        """
        config = self.config(source)
        configure_logging(config.monitoring.log_level)
        with open_state(config, create=create, effects=self.effects()) as state:
            yield state

    def plan(self, state: BackfillState) -> Plan:
        """The plan as it was when the run first asked for it."""
        if self._plan is None:
            self._plan = self.newest_plan(state)
        return self._plan

    def newest_plan(self, state: BackfillState) -> Plan:
        """The plan as it is now: for whoever asks again and again in one process."""
        return PlanStore(state.store).read()


def backfill_of(resources: object, name: str) -> BackfillResource:
    """The config and state of a backfill, out of what an op, check, schedule or sensor is given."""
    resource = getattr(resources, names.state_resource(name))
    assert isinstance(resource, BackfillResource)
    return resource


def source_resource_of(resources: object, name: str) -> DidSource:
    """The list of DIDs of a backfill, likewise."""
    resource = getattr(resources, names.source_resource(name))
    assert isinstance(resource, DidSource)
    return resource


def _given(resource: DidSource) -> dict[str, object]:
    """The settings that were given, by name."""
    given = {name: getattr(resource, name) for name in type(resource).model_fields}
    return {name: value for name, value in given.items() if value is not None}
