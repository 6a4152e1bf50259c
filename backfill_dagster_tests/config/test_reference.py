"""docs/configuration.md documents every key of the models, and no other, as they are now."""

from __future__ import annotations

import re
import sys
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from backfill_dagster.config import BackfillConfig, reference
from backfill_dagster.config.availability import LACKS
from backfill_dagster.config.explain import accepts
from backfill_dagster.config.values import Kind

DOCUMENT = Path(__file__).parents[2] / "docs/configuration.md"


def keys(annotation: object, path: str) -> Iterator[str]:
    """All key paths below a type, found without the code under test."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            yield f"{path}{name}"
            is_list = typing.get_origin(field.annotation) is tuple
            yield from keys(field.annotation, f"{path}{name}{'[]' if is_list else ''}.")
    for part in typing.get_args(annotation):
        yield from keys(part, path)


def test_every_key_is_documented_and_no_other() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `([a-z_\[\].0-9]+)` \|", text, re.MULTILINE))
    assert documented == set(keys(BackfillConfig, ""))
    assert {"name", "source.query", "source.dids", "filters[].source.uris", "processing.quota.hours"} <= documented


def test_the_document_is_up_to_date() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    hint = "run: .venv/bin/python -m backfill_dagster.config.reference docs/configuration.md"
    assert reference.with_reference(text) == text, hint


def test_what_is_not_available_is_told() -> None:
    text = " ".join(DOCUMENT.read_text(encoding="utf-8").split())
    told = re.findall(r"Valid but not available in this version: (.*?)\. `validate` notes", text)
    assert [one.replace("`", "") for one in told] == [", ".join(lack.what for lack in LACKS)]


def test_every_key_has_a_meaning() -> None:
    rows = [line.split(" | ") for line in reference.render_reference().splitlines() if line.startswith("| `")]
    assert len(rows) > 80
    assert [
        row[0] for row in rows if len(row) != 5 or not row[1].strip() or not row[2].strip() or not row[3].strip()
    ] == []


def test_rows_say_type_default_meaning_and_example() -> None:
    rows = reference.render_reference().splitlines()
    assert "| `processing.batch_size` | a whole number from 1 to 10000 | `100` | DIDs per commit. | `500` |" in rows
    assert "| `source.type` | sqlite | *required* | A SQLite database, opened read-only. | `sqlite` |" in rows
    assert any(row.startswith("| `state.path` |") and "`data/<name>`" in row for row in rows)
    assert any(row.startswith("| `processing.allow_private_hosts` | true or false | `false` |") for row in rows)
    assert any(row.startswith("| `monitoring.max_error_rate` | a number from 0 to 1 | `0.05` |") for row in rows)


def test_a_document_without_the_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="no place for the reference"):
        reference.with_reference("# Configuration\n")


def test_main_writes_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "doc.md"
    path.write_text(f"before\n{reference.BEGIN}\nold\n{reference.END}\nafter\n", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["reference", str(path)])
    reference.main()
    text = path.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{reference.BEGIN}\n\n### `backfill`\n")
    assert text.endswith(f"\n{reference.END}\nafter\n")
    assert "\nold\n" not in text


def test_a_kind_has_to_say_what_it_is() -> None:
    with pytest.raises(TypeError, match="Kind does not say what it accepts"):
        _ = Kind().accepts
    with pytest.raises(TypeError, match="Kind reads nothing"):
        Kind().read("x")
    assert accepts(BackfillConfig) == "a block of keys (a mapping)"
