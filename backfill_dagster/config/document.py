"""A YAML file as plain values, with the line of every key: YAML 1.2's few types only, and bounded.

YAML 1.1 reads `no` as false, `010` as 8, `1:30` as 90 and dates as objects; here all of these stay text, and the key
decides how its value is read. Tags, merge keys, duplicate keys and files that unfold into more than the bounds are
problems. What the values mean is known elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from backfill_dagster.config.problems import KeyPath, Problem, config_error, path_text
from backfill_dagster.errors import ConfigError

MAX_FILE_BYTES = 1024 * 1024
MAX_NODES = 200_000
MAX_DEPTH = 24

_TAG = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """Composes nodes with the types of YAML 1.2's core schema; refuses deep nesting before it recurses."""

    yaml_implicit_resolvers = {}  # noqa: RUF012  (SafeLoader's own are shared by every user of yaml in the process)
    depth = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        """One node and what is in it."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem=f"nested more than {MAX_DEPTH} levels deep", problem_mark=mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


for _name, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]{1,18}", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]{1,18}|[0-9]{1,18}(\.[0-9]{0,18})?)([eE][-+]?[0-9]{1,3})?", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"^(?:{_pattern})$"), _first)


@dataclass
class Document:
    """One YAML file, read.

    Attributes:
        data: None, bool, int, float, str, lists and dicts with text keys.
        lines: path -> 1-based line of the key (or list entry).
        problems: everything that is wrong with the YAML itself.
        unread: paths (`a.b[0]`) of values that couldn't be read; they are None in `data`.
    """

    data: object = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    unread: set[str] = field(default_factory=set)


def read_document(path: Path) -> Document:
    """Read a YAML file.

    Raises:
        ConfigError: the file can't be read, is too large, not UTF-8 or no YAML: there is no data at all.
    """
    text = _read_text(path)
    try:
        root = _compose(text)
        return _Builder().build(root) if root is not None else Document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" (column {mark.column + 1})" if mark else ""
        what = " ".join((error.problem or error.context or "not readable").split())
        line, message = mark.line + 1 if mark else None, f"not valid YAML{place}: {what}"
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        message = "not valid YAML: a character that is not allowed in a YAML file"
    raise config_error(path, [Problem(path="", line=line, message=message)])


def _read_text(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():
            raise _unreadable(path, "a folder or device; a config is one YAML file")
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise _unreadable(path, "no such file; `backfill init` writes a starter") from None
    except OSError as error:
        raise _unreadable(path, f"can't be read: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise _unreadable(
            path, "larger than 1 MiB; a long list of DIDs belongs in a file of its own (source.type file)"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _unreadable(path, "not UTF-8; save the file as UTF-8", line) from None


def _unreadable(path: Path, message: str, line: int | None = None) -> ConfigError:
    return config_error(path, [Problem(path="", line=line, message=message)])


def _compose(text: str) -> Node | None:
    loader = _Loader(text)
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


class _Builder:
    """Turns nodes into values. An alias costs what it unfolds to, so a bomb meets the bound on nodes."""

    def __init__(self) -> None:
        self.document = Document()
        self.nodes = 0

    def build(self, root: Node) -> Document:
        """The whole document."""
        self.document.data = self._value(root, (), 0)
        return self.document

    def _value(self, node: Node, path: KeyPath, depth: int) -> object:
        self.nodes += 1
        if self.nodes > MAX_NODES or depth > MAX_DEPTH:
            problem = "aliases unfold into too much, or into themselves; write the values out"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        self.document.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, MappingNode) and node.tag == f"{_TAG}map":
            return self._mapping(node, path, depth)
        if isinstance(node, SequenceNode) and node.tag == f"{_TAG}seq":
            return [self._value(item, (*path, index), depth + 1) for index, item in enumerate(node.value)]
        if not isinstance(node, ScalarNode) or node.tag not in _SCALARS:
            return self._no_value(node, path, f"YAML tag {_short(node.tag)} is not used here; write the plain value")
        try:
            return _SCALARS[node.tag](node.value)
        except ValueError:
            return self._no_value(node, path, f"not a value that fits its tag {_short(node.tag)}")

    def _no_value(self, node: Node, path: KeyPath, message: str) -> object:
        self.document.unread.add(path_text(path))
        self._problem(node, path, message)
        return None

    def _mapping(self, node: MappingNode, path: KeyPath, depth: int) -> dict[str, object]:
        values: dict[str, object] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, ScalarNode) else None
            if not isinstance(key, str) or not key:
                self._problem(key_node, path, "a key that is not a word")
            elif key == "<<":
                self._problem(key_node, path, "merge keys (<<) are not used here; write the keys out")
            elif key in values:
                first = self.document.lines[(*path, key)]
                self._problem(key_node, (*path, key), f"the key stands twice in one mapping, first in line {first}")
            else:
                self.document.lines[(*path, key)] = key_node.start_mark.line + 1
                values[key] = self._value(value_node, (*path, key), depth + 1)
        return values

    def _problem(self, node: Node, path: KeyPath, message: str) -> None:
        self.document.problems.append(Problem(path=path_text(path), line=node.start_mark.line + 1, message=message))


def _bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError
    return text.lower() == "true"


def _bounded_int(text: str) -> int:
    return int(text[:32])


_SCALARS: dict[str, Callable[[str], object]] = {
    f"{_TAG}str": str,
    f"{_TAG}null": lambda text: None,
    f"{_TAG}bool": _bool,
    f"{_TAG}int": _bounded_int,
    f"{_TAG}float": float,
}


def _short(tag: object) -> str:
    return str(tag).replace(_TAG, "!!")[:60]
