"""BackfillConfig: the whole `backfill:` block, its rules over several blocks, and where its files are.

The other blocks are in sources.py, blocks.py and outputs.py; reading the file is in load.py.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, ValidationError, ValidationInfo, field_validator

from backfill_dagster.config.addresses import is_s3
from backfill_dagster.config.block import Block
from backfill_dagster.config.blocks import Identity, Processing, Schedule, TimeRange
from backfill_dagster.config.environment import Expander
from backfill_dagster.config.explain import explain, rule_broken
from backfill_dagster.config.legacy import legacy_problem
from backfill_dagster.config.location import absolute, find_root
from backfill_dagster.config.outputs import Monitoring, Records, SqliteStorage, State, Storage
from backfill_dagster.config.problems import KeyPath, Problem, config_error, path_text
from backfill_dagster.config.record_types import clashes_of, takes
from backfill_dagster.config.sources import Filter, Source
from backfill_dagster.config.values import Flag, Nsid, SchemaVersion, Text
from backfill_dagster.errors import UsageError

ROOT_KEY = "backfill"
TRIAL_SUFFIX = "__trial"

Name = Annotated[str, Text("a lower-case letter, then at most 62 of a-z, 0-9 and _", pattern=r"[a-z][a-z0-9_]{0,62}")]


class BackfillConfig(Block):
    """One backfill: the YAML's `backfill:` block, validated, with all defaults."""

    name: Name = Field(description="Names the jobs, the assets and the default state folder.", examples=["study_users"])
    version: Annotated[Literal["1.0"], SchemaVersion()] = Field(
        default="1.0", description="Version of this file's shape.", examples=['"1.0"']
    )
    source: Source = Field(description="Where the DIDs come from.")
    record_types: Annotated[tuple[Annotated[str, Nsid(wildcard=True)], ...], Field(min_length=1, max_length=200)] = (
        Field(
            description="The collections to keep, as NSIDs; a trailing .* takes a whole namespace. They may overlap.",
            examples=["[app.bsky.feed.post, app.bsky.graph.*]"],
        )
    )
    time_range: TimeRange | None = Field(
        default=None, description="Which records, by their createdAt. UTC, both ends included. Null: all."
    )
    filters: Annotated[tuple[Filter, ...], Field(max_length=50)] = Field(
        default=(), description="Keep only records that a list of URIs names. One or a list."
    )
    identity: Identity = Field(default_factory=Identity, description="How DIDs are resolved to their PDS.")
    processing: Processing = Field(default_factory=Processing, description="How the work is done, and how gently.")
    storage: Storage = Field(default_factory=SqliteStorage, description="The ledger: one item per DID.")
    records: Records = Field(default_factory=Records, description="How the Parquet is written.")
    state: State = Field(default_factory=State, description="Where plan, records, log and reports are kept.")
    monitoring: Monitoring = Field(default_factory=Monitoring, description="Metrics, logs and alerts.")
    auto_launch: Annotated[bool, Flag()] = Field(
        default=False, description="Whether shards are launched when a plan has found new ones.", examples=["true"]
    )
    schedule: Schedule = Field(
        default_factory=Schedule,
        description="When Dagster works by itself; off in Dagster until someone turns it on there.",
    )

    _path: Path = PrivateAttr(default=Path("backfill.yaml"))
    _root: Path = PrivateAttr(default=Path("/"))
    _trial_limit: int | None = PrivateAttr(default=None)

    @field_validator("record_types", mode="after")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        clashes = clashes_of(value)
        if clashes:
            raise rule_broken(clashes)
        return value

    @field_validator("filters", mode="before")
    @classmethod
    def _one_or_a_list(cls, value: Any) -> Any:
        return () if value is None else [value] if isinstance(value, Mapping) else value

    @field_validator("filters", mode="after")
    @classmethod
    def _filters_are_of_use(cls, value: tuple[Filter, ...], info: ValidationInfo) -> tuple[Filter, ...]:
        wanted = info.data.get("record_types")
        if wanted is None:
            return value
        useless = [str(n) for n, item in enumerate(value, 1) if not any(takes(w, item.record_type) for w in wanted)]
        if useless:
            raise rule_broken(f"filter {', '.join(useless)}: no entry of record_types takes its record_type")
        return value

    @field_validator("storage", mode="before")
    @classmethod
    def _sqlite_by_default(cls, value: Any) -> Any:
        if value is None:
            return SqliteStorage()
        return {"type": "sqlite", **value} if isinstance(value, Mapping) else value

    @field_validator("state", mode="after")
    @classmethod
    def _ledger_has_a_place(cls, value: State, info: ValidationInfo) -> State:
        storage = info.data.get("storage")
        if is_s3(value.path or "") and isinstance(storage, SqliteStorage) and storage.path is None:
            raise rule_broken("the state is on S3, a SQLite ledger isn't: set storage.path to a local file")
        return value

    @classmethod
    def check(
        cls,
        mapping: object,
        *,
        path: Path,
        environ: Mapping[str, str],
        lines: Mapping[KeyPath, int] | None = None,
    ) -> tuple[BackfillConfig | None, list[Problem]]:
        """Validate the values of one YAML: the config, or (None and) every problem.

        Args:
            mapping: the whole document (`{"backfill": {...}}`).
            path: where it is, or would be.
            environ: environment variables.
            lines: path -> line, of a file.
        """
        lines = lines or {}
        if not isinstance(mapping, Mapping) or ROOT_KEY not in mapping:
            return None, [_no_root(mapping)]
        old = legacy_problem(mapping[ROOT_KEY], lines)
        if old is not None:
            return None, [old]
        expander = Expander(environ, lines)
        data = expander.expand(mapping[ROOT_KEY], (ROOT_KEY,))
        problems = [*_strays(mapping, lines), *expander.problems]
        try:
            config = cls.model_validate(data)
        except ValidationError as error:
            broken = {problem.path for problem in problems}  # a variable that isn't set is problem enough for its key
            found = explain(error, cls, data, root=(ROOT_KEY,), lines=lines, written=expander.written)
            problems += [problem for problem in found if problem.path not in broken]
            return None, problems + _clashes_beside(data, problems, lines)
        config._path = path
        config._root = find_root(path, environ)
        return (None if problems else config), problems

    @classmethod
    def from_mapping(
        cls, mapping: Mapping[str, Any], *, path: Path, environ: Mapping[str, str] | None = None
    ) -> BackfillConfig:
        """A config from plain values, as if they stood in the YAML at `path`.

        Args:
            mapping: `{"backfill": {...}}`, or the block alone.
            path: decides what relative paths are relative to; the file needn't exist.
            environ: environment variables; default: the process's.

        Raises:
            ConfigError: all problems.
        """
        document = mapping if ROOT_KEY in mapping else {ROOT_KEY: mapping}
        config, problems = cls.check(document, path=path, environ=os.environ if environ is None else environ)
        if config is None:
            raise config_error(path, problems)
        return config

    @property
    def path(self) -> Path:
        """The YAML file."""
        return self._path

    @property
    def root(self) -> Path:
        """What relative paths are relative to; absolute."""
        return self._root

    @property
    def trial_limit(self) -> int | None:
        """How many DIDs a trial takes; None: this is no trial."""
        return self._trial_limit

    def resolve(self, relative: str | Path) -> Path:
        """A local path of this config, absolute; `~` is the home folder."""
        return absolute(self._root / Path(relative).expanduser())

    @property
    def state_path(self) -> Path | str:
        """The state: an absolute folder, or `s3://bucket/prefix`."""
        path = self._state_text
        return path if is_s3(path) else self.resolve(path)

    @property
    def ledger_path(self) -> Path:
        """The SQLite ledger's file.

        Raises:
            UsageError: the ledger is in DynamoDB.
        """
        if not isinstance(self.storage, SqliteStorage):
            raise UsageError(f"{self._path}: storage.type {self.storage.type} has no local ledger file")
        if self.storage.path is not None:
            return self.resolve(self.storage.path)
        return self.resolve(self._state_text) / "ledger.sqlite"

    @property
    def config_hash(self) -> str:
        """16 hex digits of everything that the config says; how it is written, and defaults spelt out, don't matter."""
        data = self.model_dump(mode="json")
        if self.time_range is not None:
            data["time_range"] = [self.time_range.start_us, self.time_range.end_us]
        data["state"]["path"] = self._state_text
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]

    def with_trial(self, limit: int) -> BackfillConfig:
        """A copy for a trial on the first `limit` DIDs: its state and its SQLite ledger are its own.

        Raises:
            UsageError: `limit` is less than 1.
        """
        if limit < 1:
            raise UsageError("the limit of a trial must be at least 1")
        if self._trial_limit is not None:
            trial = self.model_copy()
        else:
            whole_bucket = is_s3(self._state_text) and "/" not in self._state_text.removeprefix("s3://")
            path = f"{self._state_text}{'/' * whole_bucket}{TRIAL_SUFFIX}"
            ledger = f"data/{self.name}{TRIAL_SUFFIX}/ledger.sqlite" if is_s3(path) else None
            state = self.state.model_copy(update={"path": path})
            trial = self.model_copy(update={"state": state, "storage": SqliteStorage(path=ledger)})
        trial._trial_limit = limit
        return trial

    @property
    def _state_text(self) -> str:
        return self.state.path or f"data/{self.name}"


def _clashes_beside(data: object, problems: Sequence[Problem], lines: Mapping[KeyPath, int]) -> list[Problem]:
    """The clashes in a list that has broken entries as well: pydantic stopped at these."""
    path = (ROOT_KEY, "record_types")
    entries = data.get("record_types") if isinstance(data, Mapping) else None
    clashes = clashes_of(entries) if isinstance(entries, list) else ""
    if not clashes or not any(problem.path.startswith(f"{path_text(path)}[") for problem in problems):
        return []
    return [Problem(path=path_text(path), line=lines.get(path), message=clashes)]


def _no_root(mapping: object) -> Problem:
    if mapping is None:
        return Problem(path="", message="the file is empty; `backfill init` writes a starter")
    one_key = "a config has one key at its root, `backfill:`, with everything below it"
    if not isinstance(mapping, Mapping):
        return Problem(path="", message=f"not a mapping; {one_key}")
    others = [str(key)[:40] for key in list(mapping)[:5]]
    nearest = ROOT_KEY if difflib.get_close_matches(ROOT_KEY, others, n=1) else None
    return Problem(path="", message=f"{one_key}; other keys found: {', '.join(others) or 'none'}", nearest=nearest)


def _strays(mapping: Mapping[Any, object], lines: Mapping[KeyPath, int]) -> list[Problem]:
    """Keys beside `backfill:`; what is below it is looked at all the same."""
    message = "unknown key; a config has one key at its root, `backfill:`"
    return [Problem(path=str(key)[:40], line=lines.get((key,)), message=message) for key in mapping if key != ROOT_KEY]
