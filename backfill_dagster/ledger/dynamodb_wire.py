"""Plain values to DynamoDB's typed ones and back: text, whole and other numbers, true and false, null, maps.

boto3 has this too, for every type there is, at several times the cost: 80 us an item were seen, of some 1,250 in all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from backfill_dagster.ledger.dynamodb_requests import WireItem


def to_wire(values: Mapping[str, Any]) -> WireItem:
    """Typed values. KeyError for a value of another type, ValueError for NaN and infinity."""
    wire: WireItem = {}
    for name, value in values.items():
        kind = type(value)
        if kind is str:  # nearly all are one of two kinds, and a call for each would cost as much as all the rest
            wire[name] = {"S": value}
        elif kind is int:
            wire[name] = {"N": str(value)}
        else:
            wire[name] = _TYPED[kind](value)
    return wire


def from_wire(item: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Plain values: a number is an int if it is whole, else a float. ValueError for another type."""
    return {name: _plain(value) for name, value in item.items()}


def clean_text(value: str) -> str:
    """The text as UTF-8 can say it, as the log keeps it: lone surrogates (odd bytes in a header) become `?`."""
    return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")


def clean(value: Any) -> Any:
    """The value with all its texts clean."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict):
        return {clean_text(name): clean(item) for name, item in value.items()}
    return value


def _decimal_text(value: float) -> str:
    """The shortest decimal that reads back as the same float."""
    number = Decimal(str(value))
    if not number.is_finite():
        raise ValueError(f"{value} is no number that DynamoDB has")
    return str(number)


_TYPED: dict[type, Callable[[Any], dict[str, Any]]] = {
    float: lambda value: {"N": _decimal_text(value)},
    bool: lambda value: {"BOOL": value},
    type(None): lambda value: {"NULL": True},
    dict: lambda value: {"M": to_wire(value)},
}


def _plain(value: Mapping[str, Any]) -> Any:
    ((kind, inner),) = value.items()
    if kind in ("S", "BOOL"):
        return inner
    if kind == "N":
        number = Decimal(inner)
        return int(number) if number == number.to_integral_value() else float(number)
    if kind == "NULL":
        return None
    if kind == "M":
        return from_wire(inner)
    raise ValueError(f"a value of DynamoDB's type {kind}")
