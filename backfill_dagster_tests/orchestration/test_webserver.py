"""The GraphQL client against a server that says what the test wants."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from backfill_dagster.errors import BackfillError
from backfill_dagster.orchestration.live import free_port
from backfill_dagster.orchestration.webserver import RunInfo, Webserver

Say = Callable[[Any], Webserver]


@pytest.fixture
def say() -> Iterator[Say]:
    """Start a server that answers every question with the given JSON value."""
    servers = []

    def start(answer: Any) -> Webserver:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                """Keep quiet."""

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return Webserver(f"http://127.0.0.1:{server.server_port}")

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def run(status: str, run_id: str = "1") -> RunInfo:
    return RunInfo(run_id, "backfill_x", status, {"dagster/partition": "a~0000"}, None, None)


def test_nobody_there() -> None:
    with pytest.raises(BackfillError, match="does not answer"):
        Webserver(f"http://127.0.0.1:{free_port()}").query("{version}")


def test_an_answer_that_is_no_json(say: Say) -> None:
    with pytest.raises(BackfillError, match="does not answer"):
        say(b"<html>").query("{version}")


def test_a_question_that_dagster_does_not_understand(say: Say) -> None:
    with pytest.raises(BackfillError, match="Dagster refuses: Cannot query field"):
        say({"errors": [{"message": "Cannot query field"}]}).query("{nonsense}")


def test_a_refusal_has_its_text(say: Say) -> None:
    refused = {"__typename": "PipelineNotFoundError", "message": "Could not find job plan_x"}
    with pytest.raises(BackfillError, match="Could not find job plan_x"):
        say({"data": {"launchRun": refused}}).launch_job("plan_x")
    invalid = {"__typename": "RunConfigValidationInvalid", "errors": [{"message": "one"}, {"message": "two"}]}
    with pytest.raises(BackfillError, match="one; two"):
        say({"data": {"launchRun": invalid}}).launch_job("plan_x")
    with pytest.raises(BackfillError, match="PartitionSetNotFoundError"):
        say({"data": {"launchPartitionBackfill": {"__typename": "PartitionSetNotFoundError"}}}).launch_assets([], [])


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (None, "is not in the workspace"),
        ({"__typename": "WorkspaceLocationEntry", "loadStatus": "LOADING"}, "is loading"),
        (
            {
                "__typename": "WorkspaceLocationEntry",
                "loadStatus": "LOADED",
                "locationOrLoadError": {"__typename": "PythonError", "message": "SyntaxError"},
            },
            "did not load: SyntaxError",
        ),
    ],
)
def test_a_location_that_can_not_be_used(say: Say, entry: Any, said: str) -> None:
    error = say({"data": {"workspaceLocationEntryOrError": entry}}).location_error()
    assert error is not None
    assert said in error


def test_a_location_that_is_loaded(say: Say) -> None:
    entry = {
        "__typename": "WorkspaceLocationEntry",
        "loadStatus": "LOADED",
        "locationOrLoadError": {"__typename": "RepositoryLocation"},
    }
    assert say({"data": {"workspaceLocationEntryOrError": entry}}).location_error() is None


def test_the_status_of_a_backfill(say: Say) -> None:
    answer = {"__typename": "PartitionBackfill", "status": "COMPLETED_SUCCESS"}
    assert say({"data": {"partitionBackfillOrError": answer}}).backfill_status("abc") == "COMPLETED_SUCCESS"


def test_waiting_ends_when_all_have_ended_and_shows_each_look() -> None:
    looks = iter([[], [run("QUEUED")], [run("SUCCESS"), run("STARTED", "2")], [run("SUCCESS"), run("FAILURE", "2")]])
    seen: list[int] = []
    naps: list[float] = []
    web = Webserver("http://127.0.0.1:1", monotonic=lambda: 0.0, sleep=naps.append)
    ended = web.wait_for_runs(lambda: next(looks), count=2, timeout_seconds=1, on_runs=lambda r: seen.append(len(r)))
    assert [one.status for one in ended] == ["SUCCESS", "FAILURE"]
    assert seen == [0, 1, 2, 2]
    assert len(naps) == 3


def test_waiting_gives_up_and_says_how_far_they_are() -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    web = Webserver("http://127.0.0.1:1", monotonic=lambda: now[0], sleep=sleep)
    with pytest.raises(BackfillError, match=r"2 runs have not ended after 3 s \(QUEUED, STARTED\)"):
        web.wait_for_runs(lambda: [run("STARTED"), run("QUEUED", "2")], count=2, timeout_seconds=3)
    with pytest.raises(BackfillError, match="none started"):
        web.wait_for_runs(list, count=1, timeout_seconds=3)


def test_a_run_knows_its_partition() -> None:
    assert run("SUCCESS").partition_key == "a~0000"
    assert run("SUCCESS").is_finished
    assert not run("STARTING").is_finished


def test_terminating_nothing_asks_nobody() -> None:
    assert Webserver("http://127.0.0.1:1").terminate([]) is None  # type: ignore[func-returns-value]
