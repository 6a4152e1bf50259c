"""The network as a process, and the files that it leaves for others."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sqlite3
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from backfill_dagster.errors import UsageError
from backfill_dagster.localnet import LocalnetOptions, LocalNetwork, run_localnet, serve
from backfill_dagster.localnet.__main__ import main
from backfill_dagster.localnet.description import forget_description
from backfill_dagster.localnet.listener import Listener, bind

OPTIONS = LocalnetOptions(hosts=2, repos=30, seed=4, median_records=10, states={"web": 1, "moved": 1, "not_a_did": 1})


async def test_the_description_says_what_others_need(tmp_path: Path) -> None:
    async with LocalNetwork(OPTIONS) as network:
        path = network.write_description(tmp_path / "net")
        said = json.loads(path.read_text())
        assert said["plc_url"] == network.plc_url
        assert said["control_url"] == network.control_url
        assert said["hosts"] == [{"url": host.url, "dids": host.dids} for host in network.hosts]
        assert (said["seed"], said["repos"], said["pid"]) == (4, 30, os.getpid())
        assert said["expected"] == network.expected
        assert said["expected_structure"] == network.expected_structure
        assert "verify: full" in said["verify"]
        base = sqlite3.connect(said["dids_sqlite"])
        rows = [did for (did,) in base.execute("SELECT did FROM dids")]
        base.close()
        assert rows == network.dids == list(said["expected"])
    assert {path.name for path in (tmp_path / "net").iterdir()} == {"dids.sqlite", "localnet.json"}


async def test_serve_stops_on_a_signal_and_comes_back_on_its_ports(tmp_path: Path) -> None:
    seen: list[tuple[list[str], list[str]]] = []

    def ready(network: LocalNetwork) -> None:
        assert json.loads((tmp_path / "localnet.json").read_text())["plc_url"] == network.plc_url
        seen.append(([network.plc_url, *(host.url for host in network.hosts)], network.dids))
        os.kill(os.getpid(), signal.SIGTERM if len(seen) == 1 else signal.SIGINT)

    await serve(tmp_path, OPTIONS, ready=ready)
    await serve(tmp_path, OPTIONS, ready=ready)
    assert seen[0] == seen[1]
    for url in seen[0][0]:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", int(url.rpartition(":")[2]))) != 0


async def test_a_port_that_is_taken_is_replaced() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        options = LocalnetOptions(hosts=1, repos=1, states={}, ports=(taken,))
        async with LocalNetwork(options) as network:
            assert network.plc_url != f"http://localhost:{taken}"


async def test_a_server_that_lost_its_port_says_so() -> None:
    listener = Listener(bind(None))
    await listener.stop()
    listener = Listener(bind(None))

    async def nothing(request: object) -> object:
        raise AssertionError(request)

    await listener.start(nothing)  # type: ignore[arg-type]
    await listener.down()
    await listener.down()
    with socket.socket() as other:
        other.bind(("127.0.0.1", listener.port))
        other.listen()
        with pytest.raises(OSError, match="was taken"):
            await listener.up()
    await listener.up()
    await listener.stop()


def test_an_earlier_description_is_forgotten(tmp_path: Path) -> None:
    assert forget_description(tmp_path) == ()
    for text, ports in (('{"ports": [1, "x", 70000, 8080]}', (1, 8080)), ("{", ()), ("[]", ())):
        (tmp_path / "localnet.json").write_text(text)
        assert forget_description(tmp_path) == ports
    assert forget_description(tmp_path) == ()


def test_a_folder_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="can't write"):
        run_localnet(tmp_path / "file" / "state", OPTIONS)


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more, words in ((["--hosts", "0"], "1 to 100"), (["--faults", str(tmp_path / "none")], "faults file")):
        with pytest.raises(SystemExit) as stopped:
            main(["--state", str(tmp_path), *more])
        assert stopped.value.code == 2
        assert words in capsys.readouterr().err


@pytest.mark.live
async def test_a_process_stops_on_sigint_even_when_it_began_ignored(tmp_path: Path) -> None:
    (tmp_path / "faults.json").write_text('[{"kind": "status", "host": 0, "status": 503}]')
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import signal, sys, runpy; signal.signal(signal.SIGINT, signal.SIG_IGN);"
        "runpy.run_module('backfill_dagster.localnet', run_name='__main__')",
        *("--state", str(tmp_path), "--hosts", "2", "--repos", "10", "--seed", "3"),
        *("--median-records", "5", "--faults", str(tmp_path / "faults.json")),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), 60)
    assert line.startswith(b"ready: 2 hosts, 10 rows, control at http://localhost:")
    said = json.loads((tmp_path / "localnet.json").read_text())
    assert len(said["expected"]) == 10

    def state() -> object:
        with urlopen(said["control_url"] + "/state", timeout=10) as response:
            return json.load(response)["faults"][0]["kind"]

    assert await asyncio.to_thread(state) == "status"
    process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(process.wait(), 20) == 0
