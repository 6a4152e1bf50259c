"""Whether tables that a query sees as one have the same columns: what isn't there would be NULL, and lose accounts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pyarrow as pa

from backfill_dagster.errors import SourceError
from backfill_dagster.sources.columns import name_list

COLUMNS_MAX = 1000


class AlikeColumns:
    """The columns of the first table, which all others must have too; in any order."""

    def __init__(self) -> None:
        self._first = ""
        self._kinds: Mapping[str, str] = {}

    @property
    def names(self) -> list[str]:
        """Of the columns, as the first table has them; none before that."""
        return list(self._kinds)

    def check(self, names: Sequence[str], kinds: Sequence[str], where: str) -> None:
        """Look at one more table.

        Args:
            names: of its columns.
            kinds: of what each holds.
            where: its address.

        Raises:
            SourceError: it isn't like the first, or a query couldn't tell its columns apart.
        """
        _check_names(names, where)
        found = dict(zip(names, kinds, strict=True))
        if not self._first:
            self._first, self._kinds = where, found
        elif found != self._kinds:
            raise SourceError(
                f"{where} is not like {self._first}, {self._difference(found)}: write it like the others, "
                "or narrow source.path to those that are alike"
            )

    def _difference(self, found: Mapping[str, str]) -> str:
        missing = [name for name in self._kinds if name not in found]
        more = [name for name in found if name not in self._kinds]
        other = [name for name in found if found[name] != self._kinds.get(name, found[name])]
        said = []
        if missing:
            said.append(f"it lacks {name_list(missing)}")
        if more:
            said.append(f"it has {name_list(more)} besides")
        if other:
            one = other[0]
            said.append(f"its column {one!r} holds {found[one]}, not {self._kinds[one]}")
        return ", ".join(said)


def kind_of(kind: pa.DataType) -> str:
    """What a column holds, in whatever form Arrow keeps it."""
    if pa.types.is_dictionary(kind):
        return kind_of(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return str(pa.string())
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return str(pa.binary())
    return str(kind)


def _check_names(names: Sequence[str], where: str) -> None:
    if len(names) > COLUMNS_MAX:
        raise SourceError(
            f"{where} has {len(names)} columns, over {COLUMNS_MAX}: is it a list in one line? Write one row a line"
        )
    # As DuckDB compares them.
    twice = [name for name, times in Counter(map(str.lower, names)).items() if times > 1]
    if twice:
        raise SourceError(
            f"{where} has several columns {twice[0]!r}, which a query can't tell apart (capitals don't count); "
            f"columns found: {name_list(names)}; rename them"
        )
