"""All problems of a file come at once, with line, path, what was found and what is accepted; secrets stay inside."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill_dagster.config import BackfillConfig, load_config
from backfill_dagster.errors import ConfigError
from backfill_dagster_tests.config.samples import build, error_lines, problems_of, write

NAME = "a lower-case letter, then at most 62 of a-z, 0-9 and _"
ENTRY = "the NSID of a collection (app.bsky.feed.post) or a whole namespace (app.bsky.feed.*)"

MANY = """\
backfill:
  name: 123
  source: {type: sqlite, pth: x}
  record_types: [a]
  time_range: {start_date: 2025-02-02, end_date: 2025-01-01}
  processing:
    batch_size: 0
    batchsize: 3
    batch_size: 4
    timeouts: {idle_second: 3}
  storage: {type: foo}
  state: {path: "${NOPE}"}
  extra: !!set {}
"""


def test_all_problems_in_the_files_order(tmp_path: Path) -> None:
    assert error_lines(write(tmp_path, MANY)) == [
        "12 problems",
        f"line 2: backfill.name: not accepted, found 123; accepted: {NAME}",
        "line 3: backfill.source.path: missing; accepted: a local path",
        "line 3: backfill.source.pth: unknown key; did you mean path?",
        f'line 4: backfill.record_types[0]: not accepted, found "a"; accepted: {ENTRY}',
        "line 5: backfill.time_range.end_date: end_date is before start_date",
        "line 7: backfill.processing.batch_size: not accepted, found 0; accepted: a whole number from 1 to 10000",
        "line 8: backfill.processing.batchsize: unknown key; did you mean batch_size?",
        "line 9: backfill.processing.batch_size: the key stands twice in one mapping, first in line 7",
        "line 10: backfill.processing.timeouts.idle_second: unknown key; did you mean idle_seconds?",
        'line 11: backfill.storage.type: not accepted, found "foo"; accepted: one of sqlite, dynamodb',
        "line 12: backfill.state.path: environment variable NOPE is not set; set it, or give a default: ${NOPE:-...}",
        "line 13: backfill.extra: YAML tag !!set is not used here; write the plain value",
    ]


def test_missing_keys_have_the_line_of_their_block(tmp_path: Path) -> None:
    assert error_lines(write(tmp_path, "\n\nbackfill:\n  version: '1.0'\n")) == [
        "3 problems",
        f"line 3: backfill.name: missing; accepted: {NAME}",
        f"line 3: backfill.record_types: missing; accepted: a list; each: {ENTRY}",
        "line 3: backfill.source: missing; accepted: a block of keys (a mapping)",
    ]


def test_an_unknown_key_far_from_all_lists_the_known_ones() -> None:
    assert problems_of(records={"zzz": 1}) == ["backfill.records.zzz: unknown key; accepted: raw, compression"]


def test_empty_blocks_mean_their_defaults() -> None:
    blocks = (
        "time_range",
        "filters",
        "identity",
        "processing",
        "storage",
        "records",
        "state",
        "monitoring",
        "schedule",
    )
    assert build(**dict.fromkeys(blocks)) == build()


@pytest.mark.parametrize(
    "block",
    [
        {"plc_storage": {"type": "sqlite"}},
        {"sync_storage": None},
        {"source": {"type": "sqlite", "path": "x", "metadata": {}}},
    ],
)
def test_legacy_yaml_is_for_migrate(block: dict[str, object]) -> None:
    key = "source.metadata" if "source" in block else next(iter(block))
    expected = f"backfill.{key}: this is a YAML of the old services; `backfill migrate` turns it into today's form"
    assert problems_of(**block, whatever=1) == [expected]


def test_environment_variables() -> None:
    environ = {"NAME": "of_env", "N": "7", "RATE": "2.5", "EMPTY": "", "NESTED": "${N}"}
    config = build(
        environ,
        name="${NAME}",
        processing={"batch_size": "${N}", "requests_per_second": "${RATE}", "max_retries": "${NOT_SET:-4}"},
        state={"path": "data/${NAME}/${N}${EMPTY:-x}-${NESTED}"},
        record_types=["app.bsky.${KIND:-feed}.post"],
        source={"type": "sqlite", "path": "a", "query": "SELECT '$${N}' AS did, '$5'"},
        auto_launch="${FLAG:-true}",
    )
    assert (config.name, config.processing.batch_size, config.processing.requests_per_second) == ("of_env", 7, 2.5)
    assert (config.processing.max_retries, config.auto_launch) == (4, True)
    assert config.state.path == "data/of_env/7x-${N}"
    assert config.record_types == ("app.bsky.feed.post",)
    assert getattr(config.source, "query", "") == "SELECT '${N}' AS did, '$5'"


def test_variables_of_the_process_are_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDY_NAME", "from_process")
    text = "backfill: {name: '${STUDY_NAME}', source: {type: inline, dids: [a]}, record_types: [a.b.c]}"
    assert load_config(write(tmp_path, text)).name == "from_process"


@pytest.mark.parametrize("value", ["${", "${}", "${1A}", "${A B}", "${A:x}", "x${A"])
def test_references_that_are_none(value: str) -> None:
    (problem,) = problems_of({"A": "set"}, state={"path": value})
    assert problem == (
        "backfill.state.path: a ${ that names no environment variable; "
        "accepted: ${NAME}, ${NAME:-default}, or $${ for a plain ${"
    )


def test_an_unset_variable_is_one_problem_with_its_place(tmp_path: Path) -> None:
    text = """\
    backfill:
      name: study
      source: {type: inline, dids: [a]}
      record_types: [app.bsky.feed.post]
      processing:
        batch_size: ${BATCH}
    """
    expected = "environment variable BATCH is not set; set it, or give a default: ${BATCH:-...}"
    assert error_lines(write(tmp_path, text)) == [f"line 6: backfill.processing.batch_size: {expected}"]


def test_no_error_shows_what_a_variable_holds() -> None:
    secret = "hunter2"
    reference = "${TOKEN}"
    broken = problems_of(
        {"TOKEN": secret},
        name=reference + "-",
        version=reference,
        source={"type": reference, "path": reference},
        record_types=[reference, reference],
        time_range={"start_date": reference},
        filters=[{"record_type": reference, "match": reference, "source": {"type": reference}}],
        identity={"plc_url": reference},
        processing={"batch_size": reference, "verify": reference, "timeouts": reference, "quota": {"hours": reference}},
        storage={"type": "dynamodb", "region": reference + "_", "endpoint_url": reference},
        records=reference,
        state={"path": f"x://{reference}"},
        monitoring={"log_level": reference, "alert_on_failure": reference, "alert_webhook_env": f"{reference} "},
        schedule={"resume_cron": reference},
    )
    assert len(broken) == 23
    assert [line for line in broken if secret in line] == []
    assert [line for line in broken if "found" in line and reference not in line] == []


def test_values_are_cut_in_messages() -> None:
    (problem,) = problems_of(identity={"plc_url": "x" * 5000})
    assert f'found "{"x" * 58}…;' in problem


KEYS = ["type", "path", "query", "source", "match", "record_type", "x", "timeouts"]
WORDS = ["sqlite", "s3", "inline", "${A}"]
PLAIN = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12), st.sampled_from(WORDS))
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(block=st.dictionaries(st.sampled_from([*BackfillConfig.model_fields, "nme"]), VALUES, max_size=6))
def test_any_values_are_a_config_or_a_config_error(block: dict[str, object]) -> None:
    try:
        config = build({"A": "value-of-a"}, **block)
    except ConfigError as error:
        assert "backfill." in str(error)
        assert "value-of-a" not in str(error)
    else:
        assert config.path == Path("/somewhere/study.yaml")
