"""Planners that stop at gates, so that a test decides who goes on when; a directory of identities in a dict.

What every generation has to keep is in `plan_rules.py`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from backfill_dagster.atproto.did_document import DidDocument
from backfill_dagster.errors import NetworkError, NotFoundError
from backfill_dagster.plan import PlanResult, make_plan
from backfill_dagster.state import BackfillState
from backfill_dagster_tests.worker.mortal import KilledError

WAIT_SECONDS = 60
"""Against hanging only."""

GONE = ""
"""Instead of a host: the directory knows no such DID."""


class Directory:
    """Stands for `identity.Resolver`: DID -> host, as things are at the moment of asking."""

    def __init__(self, hosts: dict[str, str] | None = None) -> None:
        self.hosts = hosts or {}
        self.silent: set[str] = set()

    def known(self, dids: Any) -> dict[str, DidDocument]:
        return {}

    async def resolve(self, did: str, *, fresh: bool = False) -> DidDocument:
        if did in self.silent:
            raise NetworkError("no answer; run again later")
        host = self.hosts.get(did, GONE)
        if host == GONE:
            raise NotFoundError(f"{did} is gone", error_code="DidNotFound")
        return DidDocument(did, "", f"https://{host}", "")


def with_source(state: BackfillState, dids: list[str]) -> None:
    """Write the list of DIDs that the state's config reads."""
    Path(state.config.source.path).write_text("\n".join([*dids, ""]))  # type: ignore[union-attr]


def with_shard_size(state: BackfillState, shard_size: int) -> BackfillState:
    processing = state.config.processing.model_copy(update={"shard_size": shard_size})
    return replace(state, config=state.config.model_copy(update={"processing": processing}))


async def plan_with(state: BackfillState, directory: Directory, *, refresh: bool = False) -> PlanResult:
    resolver: Any = directory
    return await make_plan(state, resolver, None, scope="scope", run_id=state.effects.new_id(), refresh=refresh)


class Planner:
    """One planning in a thread of its own: it goes on when `go_on` says so, from one gate to the next.

    Gates: before and after the plan's generations are listed (also for the reserved shard), and before one is appended.

    Attributes:
        dies: "before" or "after" appending a generation it is killed; "" never.
        on_commit: told the bytes of every generation that this planner has committed.
        result: what planning did, once it has ended well.
    """

    def __init__(
        self,
        state: BackfillState,
        directory: Directory,
        *,
        refresh: bool = False,
        dies: str = "",
        on_commit: Callable[[bytes], None] = lambda data: None,
    ) -> None:
        self.dies = dies
        self.on_commit = on_commit
        self.result: PlanResult | None = None
        self._error: BaseException | None = None
        self._gated = replace(state, store=_GatedStore(state.store, self))  # type: ignore[arg-type]
        self._directory = directory
        self._refresh = refresh
        self._may_go, self._has_stopped = threading.Semaphore(0), threading.Semaphore(0)
        self.is_done = self._is_killed = False
        self._thread = threading.Thread(target=self._plan, name="planner", daemon=True)
        self._thread.start()

    def go_on(self) -> bool:
        """Let it run to its next gate, or to its end; whether it goes on after that."""
        if not self.is_done:
            self._may_go.release()
            assert self._has_stopped.acquire(timeout=WAIT_SECONDS), "the planner hangs"
        if self.is_done:
            self._thread.join(WAIT_SECONDS)
            if self._error is not None and not isinstance(self._error, KilledError):
                raise self._error
        return not self.is_done

    def finish(self) -> PlanResult:
        """Let it run to its end."""
        while self.go_on():
            pass
        assert self.result is not None
        return self.result

    def kill(self) -> None:
        """It does nothing more, wherever it stands."""
        self._is_killed = True
        self.go_on()

    def pause(self) -> None:
        """A gate; called in the planner's thread."""
        self._has_stopped.release()
        self._wait()

    def _wait(self) -> None:
        assert self._may_go.acquire(timeout=WAIT_SECONDS), "nobody lets the planner go on"
        if self._is_killed:
            raise KilledError

    def _plan(self) -> None:
        try:
            self._wait()
            self.result = asyncio.run(plan_with(self._gated, self._directory, refresh=self._refresh))
        except BaseException as error:  # noqa: BLE001 - `go_on` raises it in the test's thread
            self._error = error
        self.is_done = True
        self._has_stopped.release()


class _GatedStore:
    def __init__(self, store: Any, planner: Planner) -> None:
        self._store = store
        self._planner = planner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def list(self, prefix: str) -> Any:
        if not prefix.startswith("plan/"):
            return self._store.list(prefix)
        self._planner.pause()
        found = self._store.list(prefix)
        self._planner.pause()
        return found

    def put_if_absent(self, key: str, data: bytes) -> bool:
        if not key.startswith("plan/"):
            return bool(self._store.put_if_absent(key, data))
        self._planner.pause()
        if self._planner.dies == "before":
            raise KilledError
        is_committed = bool(self._store.put_if_absent(key, data))
        if is_committed:
            self._planner.on_commit(data)
        if self._planner.dies == "after":
            raise KilledError
        return is_committed
