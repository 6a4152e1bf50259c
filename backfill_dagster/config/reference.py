"""The reference in docs/configuration.md, made from the models: a key's path, what it takes, default, meaning, example.

`python -m backfill_dagster.config.reference docs/configuration.md` writes it between the file's two markers; a test
fails while the file is out of date.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from backfill_dagster.config.explain import accepts, block_types, item_type
from backfill_dagster.config.models import ROOT_KEY, BackfillConfig

BEGIN = "<!-- reference: begin (made by python -m backfill_dagster.config.reference) -->"
END = "<!-- reference: end -->"

_COMPUTED_DEFAULTS = {"state.path": "`data/<name>`", "storage": "the block's", "time_range": "null", "filters": "none"}


def render_reference() -> str:
    """The Markdown of all blocks, in the models' order."""
    return "\n".join(line for title, path, block in _sections() for line in _section(title, path, block))


def with_reference(text: str) -> str:
    """A document's text with the reference between its markers brought up to date.

    Raises:
        ValueError: the markers aren't there.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document has no place for the reference: {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n\n{render_reference()}\n{END}{after}"


def _sections() -> Iterator[tuple[str, str, type[BaseModel]]]:
    yield f"`{ROOT_KEY}`", "", BackfillConfig
    yield from _below(BackfillConfig, "")


def _below(block: type[BaseModel], path: str) -> Iterator[tuple[str, str, type[BaseModel]]]:
    for name, field in block.model_fields.items():
        entries = item_type(_annotation(field))
        inner = block_types(field.annotation if entries is None else entries)
        key = f"{path}{name}" if entries is None else f"{path}{name}[]"
        for one in inner:
            kind = f", type {one.model_fields['type'].examples[0]}" if len(inner) > 1 else ""  # type: ignore[index]
            yield f"`{key}`{kind}", f"{key}.", one
            yield from _below(one, f"{key}.")


def _section(title: str, path: str, block: type[BaseModel]) -> Iterator[str]:
    yield f"### {title}"
    yield ""
    yield "| key | accepted | default | meaning | example |"
    yield "|---|---|---|---|---|"
    # A block's type decides which other keys there are: it comes first.
    for name, field in sorted(block.model_fields.items(), key=lambda item: item[0] != "type"):
        cells = (
            f"`{path}{name}`",
            accepts(_annotation(field)),
            _default(f"{path}{name}", field),
            field.description or "",
            f"`{field.examples[0]}`" if field.examples else "",
        )
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    yield ""


def _default(path: str, field: FieldInfo) -> str:
    if field.is_required():
        return "*required*"
    if path in _COMPUTED_DEFAULTS:
        return _COMPUTED_DEFAULTS[path]
    if field.default_factory is not None:
        return "the block's"
    value = field.default
    if value is None:
        return "null"
    if isinstance(value, tuple):
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, int | float) else f"`{value}`"


def _annotation(field: FieldInfo) -> Any:
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def main() -> None:
    """Bring the document that the command line names up to date."""
    path = Path(sys.argv[1])
    path.write_text(with_reference(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
