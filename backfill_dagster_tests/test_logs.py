"""Log lines: one JSON object each, with the record's fields, and nothing of other packages."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from backfill_dagster.logs import configure_logging


@pytest.fixture(autouse=True)
def _logger_as_before() -> Iterator[None]:
    logger = logging.getLogger("backfill_dagster")
    before = (logger.handlers, logger.level, logger.propagate)
    yield
    logger.handlers, logger.level, logger.propagate = before


def lines_of(level: str) -> list[dict[str, object]]:
    stream = io.StringIO()
    configure_logging(level, stream)
    logger = logging.getLogger("backfill_dagster.worker.shard")
    logger.info("shard run begins", extra={"fields": {"shard": "a~0000", "pending": 3}})
    try:
        raise ValueError("odd")
    except ValueError:
        logger.exception("it broke")
    logging.getLogger("somebody.else").error("not ours")
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_fields_and_exceptions_are_in_the_line() -> None:
    begins, broke = lines_of("INFO")
    assert {name: begins[name] for name in ("level", "logger", "message", "shard", "pending")} == {
        "level": "INFO",
        "logger": "backfill_dagster.worker.shard",
        "message": "shard run begins",
        "shard": "a~0000",
        "pending": 3,
    }
    assert str(begins["time"]).endswith("Z")
    assert "ValueError: odd" in str(broke["exception"])


def test_the_level_holds() -> None:
    assert [line["message"] for line in lines_of("ERROR")] == ["it broke"]
