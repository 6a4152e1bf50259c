"""The reference servers as a process: start, stop, and what only their operator can do (tools/reference_pds)."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from backfill_dagster_tests.requirements import need

FOLDER = Path(__file__).parents[2] / "tools" / "reference_pds"
STOP_SECONDS_MAX = 20


class ReferenceServers:
    """The running servers.

    Attributes:
        pds_url: origin of the PDS.
        plc_url: origin of the PLC directory.
        admin_password: of the PDS's `com.atproto.admin.*`.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        said = self._read_line()
        self.pds_url: str = said["pds_url"]
        self.plc_url: str = said["plc_url"]
        self.admin_password: str = said["admin_password"]

    def take_get_repos(self) -> list[dict[str, str]]:
        """Query parameters of each getRepo that the PDS had since the last call."""
        asked = [urlsplit(request.partition(" ")[2]) for request in self._ask("takeRequests")]
        return [
            {name: values[0] for name, values in parse_qs(url.query).items()}
            for url in asked
            if url.path == "/xrpc/com.atproto.sync.getRepo"
        ]

    def rotate_key(self, did: str, curve: str) -> str:
        """A new signing key (k256 or p256), in the PLC directory and under a new commit; returns it as did:key."""
        return str(self._ask("rotateKey", did, curve))

    def publish_foreign_key(self, did: str) -> str:
        """Put a key into the PLC directory that has signed nothing; returns it as did:key."""
        return str(self._ask("publishForeignKey", did))

    def tombstone(self, did: str) -> None:
        """End the DID in the PLC directory."""
        self._ask("tombstone", did)

    def second_pds(self) -> str:
        """Origin of another PDS on the same directory, for accounts to move to; its admin password is the same."""
        return str(self._ask("secondPds"))

    def move_in_directory(self, did: str, endpoint: str, signing_key: str) -> None:
        """Let the DID document name another PDS, and the key that the account has there."""
        self._ask("moveInDirectory", did, endpoint, signing_key)

    def _ask(self, action: str, *arguments: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": action, "with": arguments}) + "\n")
        self._process.stdin.flush()
        answer = self._read_line()
        assert "error" not in answer, f"{action}: {answer['error']}"
        return answer["result"]

    def _read_line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the reference servers ended; what they said is above"
        answer: dict[str, Any] = json.loads(line)
        return answer


def need_reference_pds() -> None:
    """Skip unless the reference PDS is asked for and installed."""
    asked = os.environ.get("BACKFILL_REFERENCE_PDS") == "1"
    need(asked, "BACKFILL_REFERENCE_PDS=1 is not set; `make test-reference` sets it")
    installed = (FOLDER / "node_modules" / ".installed").exists()
    need(installed, "the reference PDS is not installed; tools/reference_pds/install does that (1-2 minutes)")


@contextmanager
def running_servers() -> Iterator[ReferenceServers]:
    """PLC directory and PDS on free loopback ports, for the block; nothing of them is left afterwards."""
    command = [str(FOLDER / "node"), str(FOLDER / "serve.mjs")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield ReferenceServers(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(STOP_SECONDS_MAX) == 0
    finally:
        process.kill()
        process.wait()
