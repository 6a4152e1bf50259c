"""Faults that hosts can be told to show: what they are, as data; which request gets which.

How a fault looks on the wire is `breaking.py`'s business.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from backfill_dagster.errors import UsageError

KINDS: Mapping[str, str] = {
    "status": "answers `status` (500) with `body`, or an XRPC error",
    "rate_limit": "429 with ratelimit and retry-after headers (`seconds`)",
    "rate_limit_html": "429, a generic HTML page without any such header",
    "reset": "connection reset after `bytes` of the body (half of it)",
    "truncate_chunked": "chunked body without its last chunks, cut at `bytes` (half)",
    "truncate_gzip": "gzip stream cut at `bytes` (half) in a properly framed body",
    "truncate_body": "the CAR cut at `bytes` (half) in a properly framed body",
    "short_length": "Content-Length of the whole body, `bytes` of it (half), then closed",
    "stall": "no answer for `seconds` (an hour)",
    "stall_body": "`bytes` of the body (half), then silence for `seconds` (an hour)",
    "drip": "the body byte by byte, `seconds` (0.1) apart",
    "early_hints": "103 responses for ever, `seconds` (0.05) apart",
    "flood": "a body of `bytes` (1 GiB) zeros",
    "gzip_bomb": "the same, gzipped",
    "malformed_json": "200 and JSON that breaks off",
    "html": "200 and an HTML page",
    "flip_byte": "the byte at `bytes` (the middle) of the body has another value",
    "trailing_garbage": "`bytes` (100) more at the end of the body",
    "wrong_repo": "the repo of another account",
    "whole_repo": "the whole repo, whatever `since` says",
    "empty_car": "the CAR's header alone, with the true root",
    "drop_block": "the CAR without its block number `block` (-1: the last one)",
    "redirect": "302 to `location`",
    "down": "connection refused (whole hosts only; with `after`: from that request on)",
}
"""Kind -> what happens; the defaults of its parameters in brackets."""

_BODY_KINDS = frozenset(
    {
        "truncate_gzip",
        "truncate_body",
        "flip_byte",
        "trailing_garbage",
        "wrong_repo",
        "whole_repo",
        "empty_car",
        "drop_block",
        "gzip_bomb",
        "flood",
    }
)
GET_REPO = "com.atproto.sync.getRepo"
SERVICES = ("plc", "web")
"""Servers with faults of their own that are no PDS hosts."""


@dataclass(slots=True, kw_only=True)
class Fault:
    """One fault. `times` and `after` count down as it is shown.

    Attributes:
        kind: one of `KINDS`.
        host: number of a PDS host, its URL, "plc", or "web" (the did:web servers); None: every PDS host.
        did: only requests about this DID.
        path: only this XRPC method (`com.atproto.sync.getRepo`) or path; faults of a CAR's bytes are about getRepo
            unless this says otherwise.
        after: this many matching requests are answered well first.
        times: this many are not; None: for ever.
        status, body, headers: of the answer.
        bytes, block, seconds, location: parameters of the kind.
        shown: how often it was shown.
    """

    kind: str
    host: int | str | None = None
    did: str | None = None
    path: str | None = None
    after: int = 0
    times: int | None = None
    status: int | None = None
    body: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    bytes: int | None = None
    block: int | None = None
    seconds: float | None = None
    location: str | None = None
    shown: int = 0

    def __post_init__(self) -> None:
        """Refuse an unknown kind or a fault that can't be shown.

        Raises:
            UsageError: it says which and what there is.
        """
        if self.kind not in KINDS:
            raise UsageError(f"unknown fault kind {self.kind!r}: one of {', '.join(KINDS)}")
        if self.kind == "down" and (self.host is None or self.did is not None):
            raise UsageError("a fault of kind 'down' needs a host, and is about all of it: leave out did")
        if self.path is None and self.kind in _BODY_KINDS and self.host not in SERVICES:
            self.path = GET_REPO

    def to_json(self) -> dict[str, Any]:
        """The form of faults files and of the control endpoint."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None and value != {}}


def parse_faults(data: object) -> tuple[Fault, ...]:
    """Read faults from JSON: a list of objects with `Fault`'s fields, or `{"faults": [...]}`.

    Raises:
        UsageError: another shape, an unknown field or kind.
    """
    rows = data.get("faults") if isinstance(data, dict) else data
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UsageError('faults are a JSON list of objects, or {"faults": [...]}')
    names = {f.name for f in dataclasses.fields(Fault)} - {"shown"}
    out = []
    for row in rows:
        # `shown` is what the control endpoint says, so that its answer can be sent back.
        given = {name: value for name, value in row.items() if name != "shown"}
        if "kind" not in given or set(given) - names:
            raise UsageError(f"a fault has `kind` and may have {', '.join(sorted(names))}; found {sorted(row)}")
        _check_types(given)
        out.append(Fault(**given))
    return tuple(out)


_TYPES: Mapping[str, tuple[type, ...]] = {
    "kind": (str,),
    "host": (int, str),
    "did": (str,),
    "path": (str,),
    "after": (int,),
    "times": (int,),
    "status": (int,),
    "body": (str,),
    "headers": (dict,),
    "bytes": (int,),
    "block": (int,),
    "seconds": (int, float),
    "location": (str,),
}


def _check_types(row: Mapping[str, object]) -> None:
    for name, value in row.items():
        if value is None and name not in ("kind", "after", "headers"):
            continue
        if not isinstance(value, _TYPES[name]) or isinstance(value, bool):
            raise UsageError(f"fault field {name!r} is {value!r}; expected {_TYPES[name][0].__name__}")


def read_faults(path: Path) -> tuple[Fault, ...]:
    """Read a `--faults` file.

    Raises:
        UsageError: it can't be read or says something else.
    """
    try:
        return parse_faults(orjson.loads(path.read_bytes()))
    except OSError as error:
        raise UsageError(f"can't read the faults file {path}: {error.strerror}") from error
    except orjson.JSONDecodeError as error:
        raise UsageError(f"the faults file {path} is not JSON: {error}") from error


class FaultTable:
    """The faults in force, and which request gets which.

    Args:
        host_urls: origins of the PDS hosts in order.
    """

    def __init__(self, host_urls: Sequence[str]) -> None:
        self._host_urls = list(host_urls)
        self._faults: list[Fault] = []

    @property
    def faults(self) -> list[Fault]:
        """All faults that are in force or waiting for their `after`."""
        return list(self._faults)

    def add(self, faults: Iterable[Fault]) -> None:
        """Put copies of faults in force, after those that already are.

        Raises:
            UsageError: a host that isn't there.
        """
        for fault in faults:
            self._faults.append(dataclasses.replace(fault, host=self._host(fault.host), headers=dict(fault.headers)))

    def clear(self) -> None:
        """Take all faults back."""
        self._faults.clear()

    def _host(self, host: int | str | None) -> int | str | None:
        if host is None or host in SERVICES:
            return host
        if isinstance(host, str) and host.rstrip("/") in self._host_urls:
            return self._host_urls.index(host.rstrip("/"))
        if isinstance(host, int) and 0 <= host < len(self._host_urls):
            return host
        raise UsageError(f"a fault names host {host!r}: there are 'plc', 'web' and 0 to {len(self._host_urls) - 1}")

    def take(self, host: int | str, path: str, did: str) -> Fault | None:
        """The fault that this request gets, counted as shown."""
        for fault in self._faults:
            if not _matches(fault, host, path, did):
                continue
            if fault.after > 0:
                fault.after -= 1
                continue
            if fault.times is not None:
                if fault.times <= 0:
                    continue
                fault.times -= 1
            fault.shown += 1
            return fault
        return None

    def down_now(self) -> set[int | str]:
        """Hosts that a fault keeps down at this moment."""
        return {
            f.host for f in self._faults if f.kind == "down" and f.after <= 0 and f.times != 0 and f.host is not None
        }


def _matches(fault: Fault, host: int | str, path: str, did: str) -> bool:
    if fault.host != host and not (fault.host is None and host not in SERVICES):
        return False
    if fault.did is not None and fault.did != did:
        return False
    return fault.path is None or fault.path == path
