"""`state.json`: the name, id and schema version that tie a state folder to one backfill and its ledger.

Comparing the id with the ledger's is the ledger's business (`Ledger.bind_state`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import orjson

from backfill_dagster.errors import StateError
from backfill_dagster.store.base import ObjectStore
from backfill_dagster.store.local import LocalStore
from backfill_dagster.store.probe import check_once, check_put_if_absent

STATE_KEY = "state.json"

STATE_SCHEMA_VERSION = 1
"""Version of the layout below the state's root: log entries, plan generations, part names."""

_CONTENT_PREFIXES = ("log/", "plan/")

_REMEDY = "bring it back from a backup, or let `backfill repair` write it again"


@dataclass(frozen=True, slots=True)
class StateMarker:
    """Whose state this is.

    Attributes:
        name: the backfill's name.
        state_id: made once, when the state began; the ledger carries the same.
        schema_version: `STATE_SCHEMA_VERSION` of the code that began it.
    """

    name: str
    state_id: str
    schema_version: int


def read_state(store: ObjectStore, name: str) -> StateMarker | None:
    """The marker of the backfill `name`; None when no state has begun here. Creates nothing.

    Raises:
        StateError: the state is another backfill's, of another schema version, or its marker can't be read.
    """
    if not store.exists(STATE_KEY):
        return None
    marker = _parse(store.get(STATE_KEY), store.path(STATE_KEY))
    if marker.name != name:
        raise StateError(
            f"{store.uri} holds the state of the backfill {marker.name!r}, not of {name!r}; set another state.path, "
            f"or the old name"
        )
    if marker.schema_version != STATE_SCHEMA_VERSION:
        raise StateError(
            f"{store.uri} has schema version {marker.schema_version}, this version of backfill-dagster reads "
            f"{STATE_SCHEMA_VERSION}; use the version that wrote it, or set another state.path"
        )
    return marker


def ensure_state(
    store: ObjectStore,
    name: str,
    new_id: Callable[[], str],
    *,
    ledger_state_id: str | None = None,
    read_only: bool = False,
) -> StateMarker:
    """The marker of the backfill `name`, written now when no state has begun here.

    Args:
        store: the state's root.
        name: the backfill's name.
        new_id: makes the id of a new state.
        ledger_state_id: the id that the ledger is bound to; with one, a missing marker is a loss and not a beginning.
        read_only: the state is there and nothing will be written, so it needn't be asked whether the store keeps its
            word.

    Raises:
        StateError: as `read_state`; the marker is missing over a state or a ledger with content; or the store ignores
            put-if-absent.
    """
    marker = read_state(store, name)
    if marker is not None:
        if not (read_only or isinstance(store, LocalStore)):
            check_once(store, new_id)  # a state can be moved to another service
        return marker
    is_begun = has_content(store)  # first of all: in a bucket that isn't there, no object is, and a listing says why
    if ledger_state_id is not None:
        raise StateError(
            f"the ledger belongs to the state {ledger_state_id}, but {store.path(STATE_KEY)} is missing; bring the "
            "state folder back (if only that file is lost, `backfill repair` writes it again), or move the ledger away "
            "too to begin anew"
        )
    if is_begun:
        marker = read_state(store, name)
        if marker is not None:
            return marker  # another process began it in between, and its plan was what the listing found
        raise StateError(
            f"{store.uri} has a log or a plan but no {STATE_KEY}; bring that file back, let `backfill repair` write it "
            "again, or set another state.path"
        )
    check_put_if_absent(store, new_id)
    fresh = StateMarker(name=name, state_id=new_id(), schema_version=STATE_SCHEMA_VERSION)
    if store.put_if_absent(STATE_KEY, _marker_bytes(fresh)):
        return fresh
    return ensure_state(store, name, new_id)  # another process began it in between


def has_content(store: ObjectStore) -> bool:
    """Whether there is a plan or a log, whose state it may be."""
    return any(store.list(prefix) for prefix in _CONTENT_PREFIXES)


def restore_state(store: ObjectStore, name: str, state_id: str) -> bool:
    """Write the marker of a state that has a plan or a log and no marker, or none that can be read; whether it was.

    Args:
        store: the state's root.
        name: the backfill's name.
        state_id: the id that the ledger is bound to.

    Raises:
        StateError: the store refuses.
    """
    if not has_content(store):
        return False
    marker = StateMarker(name, state_id, STATE_SCHEMA_VERSION)
    if not store.exists(STATE_KEY):
        if store.put_if_absent(STATE_KEY, _marker_bytes(marker)):
            return True
        return store.get(STATE_KEY) == _marker_bytes(marker)  # taken by one's own try, whose reply got lost
    data = store.get(STATE_KEY)
    try:
        _parse(data, store.path(STATE_KEY))
    except StateError:
        store.put(STATE_KEY, _marker_bytes(marker))
        return True
    return False


def _marker_bytes(marker: StateMarker) -> bytes:
    return orjson.dumps(asdict(marker), option=orjson.OPT_SORT_KEYS) + b"\n"


def _parse(data: bytes, where: str) -> StateMarker:
    try:
        fields = orjson.loads(data)
        marker = StateMarker(fields["name"], fields["state_id"], fields["schema_version"])
    except (ValueError, KeyError, TypeError) as error:
        raise StateError(f"{where} can't be read ({error!r}); {_REMEDY}") from error
    known = isinstance(marker.name, str) and isinstance(marker.state_id, str)
    if not known or type(marker.schema_version) is not int:
        raise StateError(f"{where} has fields of the wrong type; {_REMEDY}")
    return marker
