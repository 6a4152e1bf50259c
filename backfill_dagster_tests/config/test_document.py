"""The YAML itself: types, lines, duplicates, bounds, and files that are none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backfill_dagster.config.document import read_document
from backfill_dagster.errors import ConfigError
from backfill_dagster_tests.config.samples import error_lines, write

ROOT = "a config has one key at its root, `backfill:`, with everything below it; other keys found: "
UNFOLDS = "aliases unfold into too much, or into themselves; write the values out"


def data_of(tmp_path: Path, text: str) -> object:
    document = read_document(write(tmp_path, text))
    assert document.problems == []
    return document.data


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("2025-01-02", "2025-01-02"),
        ("2025-01-02 03:04:05", "2025-01-02 03:04:05"),
        ("010", 10),
        ("0x10", "0x10"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("1.0", 1.0),
        ("-5", -5),
        ("1e3", 1000.0),
        (".inf", ".inf"),
        ("9" * 30, "9" * 30),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("none", "none"),
        ('"5"', "5"),
        ("!!str 5", "5"),
        ('!!int "5"', 5),
        ('!!bool "TRUE"', True),
        ("[did:plc:abc, did:web:x.y]", ["did:plc:abc", "did:web:x.y"]),
        ("${NAME}", "${NAME}"),
    ],
)
def test_scalars(tmp_path: Path, text: str, value: object) -> None:
    read = data_of(tmp_path, f"key: {text}\n")
    assert read == {"key": value}
    assert isinstance(read, dict)
    assert type(read["key"]) is type(value)


def test_lines_are_the_keys(tmp_path: Path) -> None:
    document = read_document(write(tmp_path, "a:\n  b: 1\n  c:\n    - x\n    - y: 2\n"))
    assert document.lines == {
        (): 1,
        ("a",): 1,
        ("a", "b"): 2,
        ("a", "c"): 3,
        ("a", "c", 0): 4,
        ("a", "c", 1): 5,
        ("a", "c", 1, "y"): 5,
    }


def test_aliases_within_bounds_and_a_byte_order_mark_are_fine(tmp_path: Path) -> None:
    assert data_of(tmp_path, "\ufeffa: &x [1, 2]\nb: *x\n") == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: a: the key stands twice in one mapping, first in line 1"),
        ("a: !!python/name:x y\n", "line 1: a: YAML tag !!python/name:x is not used here; write the plain value"),
        ("a: !custom {}\n", "line 1: a: YAML tag !custom is not used here; write the plain value"),
        ("a: !!timestamp 2025-01-02\n", "line 1: a: YAML tag !!timestamp is not used here; write the plain value"),
        ("a: !!int x\n", "line 1: a: not a value that fits its tag !!int"),
        ("a: !!bool maybe\n", "line 1: a: not a value that fits its tag !!bool"),
        ("x: {a: 1}\ny:\n  <<: {b: 1}\n", "line 3: y: merge keys (<<) are not used here; write the keys out"),
        ("? [a]\n: 1\n", "line 1: a key that is not a word"),
        ("'': 1\n", "line 1: a key that is not a word"),
    ],
)  # fmt: skip
def test_yaml_that_is_not_used_here(tmp_path: Path, text: str, problem: str) -> None:
    document = read_document(write(tmp_path, text))
    assert [str(item) for item in document.problems] == [problem]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [1, 2\nb: 3\n", "line 2: not valid YAML (column 2): expected ',' or ']', but got ':'"),
        ("a:\n\t- b\n", "line 2: not valid YAML (column 1): found character '\\t' that cannot start any token"),
        ("a: 'b\n", "line 2: not valid YAML (column 1): found unexpected end of stream"),
        ("a: 1\n---\nb: 2\n", "line 2: not valid YAML (column 1): but found another document"),
        ("a: *nothing\n", "line 1: not valid YAML (column 4): found undefined alias 'nothing'"),
        ("a: 1\nb: \x07\n", "line 2: not valid YAML: a character that is not allowed in a YAML file"),
        ("[" * 100_000, "line 1: not valid YAML (column 25): nested more than 24 levels deep"),
        ("a: &a [*a]\n", f"line 1: not valid YAML (column 4): {UNFOLDS}"),
    ],
)  # fmt: skip
def test_yaml_that_is_none(tmp_path: Path, text: str, problem: str) -> None:
    assert error_lines(write(tmp_path, text)) == [problem]


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    (problem,) = error_lines(write(tmp_path, "\n".join(lines)))
    assert problem.endswith(UNFOLDS)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the file is empty; `backfill init` writes a starter"),
        ("# only this\n", "the file is empty; `backfill init` writes a starter"),
        ("- a\n", "not a mapping; a config has one key at its root, `backfill:`, with everything below it"),
        (
            "name: a\n",
            ROOT + "name",
        ),
        ("{}", ROOT + "none"),
        ("backfil: {}\n", ROOT + "backfil; did you mean backfill?"),
        ("backfill: 5\n", "line 1: backfill: not accepted, found 5; accepted: a block of keys (a mapping)"),
    ],
)
def test_files_that_are_no_config(tmp_path: Path, text: str, problem: str) -> None:
    assert error_lines(write(tmp_path, text)) == [problem]


def test_a_stray_key_at_the_root_hides_nothing(tmp_path: Path) -> None:
    lines = error_lines(write(tmp_path, "backfill:\n  name: X\nmore: 1\n"))
    assert lines[0] == "4 problems"
    assert "line 3: more: unknown key; a config has one key at its root, `backfill:`" in lines
    assert any(line.startswith("line 2: backfill.name: not accepted") for line in lines)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert error_lines(tmp_path / "none.yaml") == ["no such file; `backfill init` writes a starter"]
    assert error_lines(tmp_path) == ["a folder or device; a config is one YAML file"]
    os.mkfifo(tmp_path / "pipe.yaml")
    assert error_lines(tmp_path / "pipe.yaml") == ["a folder or device; a config is one YAML file"]
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nname: caf\xe9\n")
    assert error_lines(tmp_path / "latin.yaml") == ["line 2: not UTF-8; save the file as UTF-8"]
    (tmp_path / "large.yaml").write_bytes(b"#" * (1024 * 1024 + 1))
    expected = "larger than 1 MiB; a long list of DIDs belongs in a file of its own (source.type file)"
    assert error_lines(tmp_path / "large.yaml") == [expected]


def test_a_loop_of_links_is_an_error_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").symlink_to(tmp_path / "loop.yaml")
    assert error_lines(tmp_path / "loop.yaml") == ["can't be read: Too many levels of symbolic links"]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(
    text=st.one_of(
        st.binary(max_size=200), st.text(alphabet="abc:-[]{}&*!|>'\"\n #?,0.~<%@\\", max_size=80).map(str.encode)
    )
)
def test_any_bytes_are_a_document_or_a_config_error(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "any.yaml"
    path.write_bytes(text)
    try:
        document = read_document(path)
    except ConfigError as error:
        assert str(error).startswith(f"{path}: ")
    else:
        assert isinstance(document.data, dict | list | str | int | float | bool | None)
