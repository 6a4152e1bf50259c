"""Servers that speak AWS' protocols on loopback, started as processes: for the demo and the tests, never for data.

`tools/aws_servers/install` puts them there. They keep everything in memory and forget it when they stop.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from backfill_dagster.errors import BackfillError, UsageError

FOLDER = Path("tools") / "aws_servers"
"""Where they are, below the project's root."""

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "loopback",
    "AWS_SECRET_ACCESS_KEY": "loopback",
    "AWS_DEFAULT_REGION": "us-east-1",
}
"""What AWS' tools want to see; these servers take anything."""

_START_SECONDS_MAX = 30.0
_STOP_SECONDS_MAX = 5.0
_LOOK_SECONDS = 0.05
_START_TRIES_MAX = 3
"""A port that was free a moment ago may be taken."""


@contextmanager
def moto_server(folder: Path) -> Iterator[str]:
    """S3 by moto; gives its address."""
    program = _program(folder / ".venv" / "bin" / "moto_server")
    yield from _served(lambda port: [program, "-H", "127.0.0.1", "-p", str(port)], {})


@contextmanager
def ministack_server(folder: Path) -> Iterator[str]:
    """DynamoDB by ministack; gives its address."""
    program = _program(folder / ".venv" / "bin" / "ministack")
    # Left alone it binds every address of the machine, and an SFTP server besides.
    yield from _served(lambda port: [program], {"BIND_HOST": "127.0.0.1", "SFTP_ENABLED": "0"}, "GATEWAY_PORT")


@contextmanager
def dynalite_server(folder: Path) -> Iterator[str]:
    """DynamoDB by dynalite; gives its address."""
    program = _program(folder / "node_modules" / ".bin" / "dynalite")
    options = ["--host", "127.0.0.1", "--createTableMs", "0", "--deleteTableMs", "0", "--updateTableMs", "0"]
    yield from _served(lambda port: [program, *options, "--port", str(port)], {})


def _program(path: Path) -> str:
    if not path.exists():
        raise UsageError(f"{path} is not there: `{FOLDER / 'install'}` installs the servers")
    return str(path)


def _served(command: object, environ: Mapping[str, str], port_variable: str = "") -> Iterator[str]:
    assert callable(command)
    with tempfile.TemporaryFile() as said:
        for tries_left in reversed(range(_START_TRIES_MAX)):
            port = _free_port()
            own = {**os.environ, **environ, **({port_variable: str(port)} if port_variable else {})}
            process = _start(command(port), own, said.fileno())
            try:
                if _answers(process, port):
                    yield f"http://127.0.0.1:{port}"
                    return
            finally:
                _stop(process)
            if not tries_left:
                said.seek(0)
                last = said.read().decode("utf-8", "replace").strip().splitlines()[-1:]
                raise BackfillError(f"{command(port)[0]} doesn't start: {''.join(last)}")


def _start(command: Sequence[str], environ: Mapping[str, str], out: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - a program of this project's own tools folder
        command,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=out,
        start_new_session=True,
        preexec_fn=_end_with_parent if sys.platform == "linux" else None,
    )


def _end_with_parent() -> None:
    """In the child: a SIGTERM when whoever has started it is gone, `kill -9` included (prctl(2), PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until the server answers anything; False when it has ended."""
    deadline = time.monotonic() + _START_SECONDS_MAX
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=1):
                return True
        except urllib.error.HTTPError:
            return True
        except OSError:
            time.sleep(_LOOK_SECONDS)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
